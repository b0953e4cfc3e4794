"""An environment into which another package has brought NumPy 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
TOLD = "NumPy 2.1.3 is installed, with which TensorFlow 2.15 cannot be imported: run `pip install 'numpy>=1.2"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python where the metadata that pip leaves say that NumPy is of version 2.1.3."""
    (folder / "numpy-2.1.3.dist-info").mkdir()
    (folder / "numpy-2.1.3.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.3\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.py", "--mode=pretrain"],
        ["-m", "tfmetareg.cli", "--mode=pretrain"],
        ["-m", "tfrecords_builder", "build", "--source=embedded", "--output=nowhere"],
        ["-m", "tfrecords_builder", "inspect", "nowhere"],
    ],
)
def test_the_command_lines_say_so_in_one_line(tmp_path, arguments):
    if "tfmetareg.cli" in arguments:
        arguments = ["-c", f"import sys; from tfmetareg.cli import main; sys.exit(main({arguments[2:]}))"]
    finished = run(tmp_path, *arguments)
    (line,) = finished.stderr.splitlines()
    assert (finished.returncode, finished.stdout) == (2, "")
    assert line.startswith(f"error: {TOLD}") and "`peers`" in line


def test_the_python_functions_say_so_before_tensorflow_does(tmp_path):
    finished = run(tmp_path, "-c", "import tfmetareg; print(tfmetareg.__version__); tfmetareg.register")
    assert finished.stdout.count("\n") == 1
    assert finished.stderr.splitlines()[-1].startswith(f"tfmetareg.errors.UserError: {TOLD}")
