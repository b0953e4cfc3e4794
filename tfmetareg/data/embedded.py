"""The embedded tasks: procedural records, for runs without records of one's own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tfmetareg.data.schema import MANIFEST
from tfmetareg.errors import UserError

ROOT = Path("data/embedded")


def embedded_records(options: str = "") -> Path:
    """Returns the records folder of the embedded tasks, after building it on first use.

    The builder runs in a process of its own, since this package does not import it.

    Args:
        options: options of the builder's command, for instance "--image-size 96 96". Different options have
            different folders.

    Raises:
        UserError: the builder fails with these options.
    """
    try:
        given = shlex.split(options)
    except ValueError as error:
        raise UserError(f"`data.embedded` ({options}) cannot be read: {error}; close its quotes.") from None
    root = ROOT.with_name("-".join([ROOT.name, *re.findall(r"[\w.]+(?:-[\w.]+)*", options)]))
    if (root / MANIFEST).is_file():
        return root
    print(f"No data named: building the embedded tasks into {root}.", file=sys.stderr)
    command = [sys.executable, "-m", "tfrecords_builder", "build", "--source", "embedded"]
    packages = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [*command, "--output", str(root), *given], env={**os.environ, "PYTHONPATH": paths}
    )
    if finished.returncode:
        raise UserError(f"{root}: the embedded tasks were not built; see `data.embedded` ({options}).")
    return root
