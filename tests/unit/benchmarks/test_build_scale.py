"""What the builds of many pairs are measured by, on a few."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks import build_scale


def test_a_build_above_the_ceiling_fails_and_is_told(tmp_path, capsys):
    """TensorFlow alone takes more than 64 MiB."""
    flags = ["--pairs", "4", "--workers", "1", "--size", "32", "--folder", str(tmp_path)]
    status = build_scale.main([*flags, "--ceiling-mib", "64", "--output", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert status == 1
    assert "above the ceiling" in told.err
    (build,) = json.loads((tmp_path / "out" / "build.json").read_text())["builds"]
    assert (build["pairs"], build["workers"]) == (4, 1)
    assert build["peak_mib"] > 64
    assert (tmp_path / "out" / "build.md").read_text() in told.out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_memory_is_that_of_a_process_and_its_children():
    held = "import subprocess, sys; x = bytearray(60 << 20)\n"
    child = held + "print(flush=True); sys.stdin.read()"
    parent = held + f"subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    mib = [build_scale._proportional_mib(pid) for pid in build_scale._tree(process.pid)]
    process.communicate("")
    assert len(mib) == 2
    assert 120 < sum(mib) < 160
