"""Drawing in a second process: real ones, one of them really killed."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.unit.tfmetareg.report.test_registration import pair
from tests.unit.tfmetareg.report.test_registration_page import summary
from tfmetareg.report import drawing as module
from tfmetareg.report.drawing import drawn_beside, second_process

NAMES = ("moving.png", "fixed.png")


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.setattr(module, "available_cpus", lambda: 2)


def drawn(folder, panels=None) -> dict[str, bytes]:
    folder.mkdir()
    with drawn_beside(panels or pair(comparison="auto"), NAMES, summary(), folder):
        pass
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_process_draws_the_same(tmp_path, two_processors):
    here = drawn(tmp_path / "here")
    assert {"checkerboard.png", "grid.png", "jacobian.png", "registration.html"} <= {*here}
    with second_process():
        (worker,) = module._process._processes
        assert worker != os.getpid()
        assert drawn(tmp_path / "there") == here
        os.kill(worker, signal.SIGKILL)
        assert drawn(tmp_path / "at_the_kill") == here
        assert drawn(tmp_path / "after_it") == here
    assert module._process is None


def test_it_is_done_with_the_folder_when_the_block_fails_and_tells_its_own_errors(tmp_path, two_processors):
    with second_process():
        with pytest.raises(OSError, match="No space"), drawn_beside(pair(), NAMES, summary(), tmp_path):
            raise OSError(28, "No space left")
        assert (tmp_path / "registration.html").is_file()  # Whole: nothing is written behind one's back.
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError), drawn_beside(pair(), NAMES, summary(), tmp_path / "file"):
            pass


def test_one_processor_draws_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_cpus", lambda: 1)
    with second_process():
        assert module._process is None
        assert "grid.png" in drawn(tmp_path / "here")


def test_what_begins_it_is_cheap():
    """The command line imports it ahead of everything."""
    import subprocess

    script = "import sys, tfmetareg.report.drawing; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
