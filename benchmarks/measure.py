"""Runs one case: each contender in its own process, one repetition each in turn."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CONTENDERS, FEATURES, ROOT, Case
from benchmarks.protocol import Worker, WorkerError

# Pause in seconds, in which the threads of the previous contender go to sleep.
_PAUSE = 0.1
# Environment variables that only contenders set; they are not inherited from this process.
_OWN_SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "VXM_BACKEND", "NEURITE_BACKEND")


class CaseReplies:
    """The replies of the contenders to one case, and the reasons why contenders are left out."""

    def __init__(self) -> None:
        self.replies: dict[str, list[dict[str, float]]] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, str] = {}

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Context that leaves the contender out of the case, with the reason, if its worker fails."""
        try:
            yield
        except WorkerError as error:
            self.replies.pop(name, None)
            self.left_out[name] = str(error)


def measure(case: Case, names: Sequence[str], folder: Path, repetitions: int) -> CaseReplies:
    """Runs a case.

    Args:
        case: the case.
        names: names of the contenders, in the order of their turns.
        folder: folder with the data; the workers' logs are written there.
        repetitions: number of repetitions of each contender.
    """
    return (_measure_fresh if case.fresh else _measure_warm)(case, names, folder, repetitions)


def _measure_warm(case: Case, names: Sequence[str], folder: Path, repetitions: int) -> CaseReplies:
    """Starts all workers, warms each up by a repetition that does not count, then lets them take turns."""
    measured = CaseReplies()
    with contextlib.ExitStack() as opened:
        workers = {}
        for name in names:
            with measured.attempt(name):
                worker = opened.enter_context(_worker(name, folder))
                measured.about[name] = worker.about()
                _prepare(worker, case, name, folder)
                worker.go()
                workers[name], measured.replies[name] = worker, []
        for _ in range(repetitions):
            for name in list(measured.replies):
                time.sleep(_PAUSE)
                with measured.attempt(name):
                    measured.replies[name].append(workers[name].go())
    return measured


def _measure_fresh(case: Case, names: Sequence[str], folder: Path, repetitions: int) -> CaseReplies:
    """Starts a new process for each repetition; the time counts from its start."""
    measured = CaseReplies()
    measured.replies = {name: [] for name in names}
    for _ in range(repetitions):
        for name in list(measured.replies):
            with measured.attempt(name):
                began = time.perf_counter()
                with _worker(name, folder) as worker:
                    _prepare(worker, case, name, folder)
                    reply = worker.go()
                    reply["seconds"] = time.perf_counter() - began
                    measured.replies[name].append(reply)
                    measured.about[name] = worker.about()
    return measured


@contextlib.contextmanager
def _worker(name: str, folder: Path) -> Iterator[Worker]:
    contender = CONTENDERS[name]
    inherited = {key: value for key, value in os.environ.items() if key not in _OWN_SETTINGS}
    environment = {**inherited, "TF_CPP_MIN_LOG_LEVEL": "3", **contender.environment}
    command = [str(contender.python), "-m", f"benchmarks.contenders.{contender.module}"]
    worker = Worker(command, environment, ROOT, folder / f"{name}.log")
    try:
        yield worker
    finally:
        worker.close()


def _prepare(worker: Worker, case: Case, name: str, folder: Path) -> None:
    options = {"features": FEATURES, "data": str(folder), **case.options, **CONTENDERS[name].options}
    worker.prepare(case.work or name, options)
