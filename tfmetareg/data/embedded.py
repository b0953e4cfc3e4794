"""The embedded tasks: procedural records, for runs without records of one's own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tfmetareg.data.schema import MANIFEST
from tfmetareg.errors import UserError
from tfmetareg.lock import Lock

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
    if not (root / MANIFEST).is_file():
        with _only_builder(root):
            if not (root / MANIFEST).is_file():  # Another run may just have built them.
                _build(root, given)
    return root


@contextlib.contextmanager
def _only_builder(root: Path) -> Iterator[None]:
    lock = Lock(root.with_name(f".{root.name}.lock"), f"builds {root.name}", "wait for it to end")
    try:
        lock.acquire(wait=True)
    except OSError as error:
        raise UserError(
            f"{root.parent}: cannot be written ({error.strerror}); run in another folder, or name records "
            "of your own, `data.root`."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _build(root: Path, options: list[str]) -> None:
    print(f"No data named: building the embedded tasks into {root}.", file=sys.stderr)
    command = [sys.executable, "-m", "tfrecords_builder", "build", "--source", "embedded"]
    packages = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    finished = subprocess.run(
        [*command, "--output", str(root), *options], env={**os.environ, "PYTHONPATH": paths}
    )
    if finished.returncode:
        raise UserError(
            f"{root}: the embedded tasks were not built; see `data.embedded` ({shlex.join(options)})."
        )
