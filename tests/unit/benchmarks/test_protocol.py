"""Workers answer, fail with a reason, and take turns; contenders keep to their own environment."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

from benchmarks.cases import CONTENDERS, ROOT, Case, Contender
from benchmarks.measure import measure
from benchmarks.protocol import Worker, WorkerError

WORKER = """
import os, time
from benchmarks.protocol import serve

def count(options):
    calls = []
    def repeat():
        print("noise on standard output")
        calls.append(1)
        time.sleep(0.02)
        return {"calls": len(calls)}
    return repeat

def fail(options):
    raise ValueError("no such image")

def die(options):
    import sys
    sys.exit("out of memory")

serve({"count": count, "fail": fail, "die": die}, lambda: {"versions": {}, "pid": os.getpid()})
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    worker = Worker([sys.executable, str(script)], environment, tmp_path, tmp_path / "log")
    yield worker
    worker.close()


def test_a_worker_prepares_once_and_repeats(worker, tmp_path):
    worker.prepare("count", {})
    replies = [worker.go() for _ in range(3)]
    assert [reply["calls"] for reply in replies] == [1, 2, 3]
    assert all(0.02 <= reply["seconds"] < 5 for reply in replies)
    assert all(reply["max_rss_mib"] > 1 for reply in replies)  # No less than this process's own, on Linux.
    assert (tmp_path / "log").read_text().count("noise") == 3


def test_a_failure_is_one_line_and_the_worker_lives_on(worker):
    with pytest.raises(WorkerError, match="^ValueError: no such image$"):
        worker.prepare("fail", {})
    assert worker.about()["pid"] == worker._process.pid


def test_the_end_of_a_worker_is_told_with_its_last_words(worker):
    with pytest.raises(WorkerError, match="ended with status 1: out of memory"):
        worker.prepare("die", {})


def test_a_contender_that_cannot_run_is_left_out_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(CONTENDERS, "absent", Contender("", "x", python=tmp_path / "python"))
    monkeypatch.setitem(CONTENDERS, "broken", Contender("", "no_such_module"))
    for fresh in (False, True):
        case = Case("case", "", "work", ("absent", "broken"), fresh=fresh)
        measured = measure(case, case.contenders, tmp_path, 2)
        assert measured.replies == {}
        assert "No such file" in measured.left_out["absent"]
        assert "no_such_module" in measured.left_out["broken"]


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("__main__", {"tensorflow", "numpy", "torch"}),
        ("contenders/keras_peer", {"tfmetareg", "torch"}),
        ("contenders/pytorch_peer", {"tfmetareg", "tensorflow"}),
        ("contenders/ceilings", {"tfmetareg", "torch"}),
    ],
)
def test_a_process_imports_nothing_of_the_others(name, foreign):
    assert not imported(ROOT / "benchmarks" / f"{name}.py") & foreign


def imported(path: Path) -> set[str]:
    """Roots of everything that a file imports, at once or through other files of the benchmarks."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = {name.split(".")[0] for name in names}
    for name in names:
        file = ROOT / f"{name.replace('.', '/')}.py"
        if name.startswith("benchmarks.") and file.is_file():
            found |= imported(file)
    return found
