"""`scripts/real.sh` and its preset: what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tfmetareg.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_records_that_were_built_otherwise_are_refused(records_root, tmp_path):
    (tmp_path / "records").symlink_to(records_root)
    environment = {**os.environ, "PYTHON": sys.executable, "SIZE": "64 64", "ALIGN": "none"}
    command = ["sh", ROOT / "scripts" / "real.sh", tmp_path / "data", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "built with SIZE and ALIGN `32 32 none`, not `64 64 none`" in done.stderr


def test_the_preset_without_real_records_names_the_builder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    preset = ROOT / "configs" / "reproduce_real.yaml"
    assert main(["--mode=reproduce", f"--config={preset}", f"--workdir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert "runs/real/records" in error and "tfrecords_builder build" in error
