from __future__ import annotations

import functools
import multiprocessing
import signal
import time

import numpy as np
import pytest

from tfmetareg.errors import Problems
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.types import ImagePair
from tfrecords_builder.workers import WorkerKilledError, local_workers
from tfrecords_builder.writer import Batch

IMAGE = np.random.default_rng(0).random((16, 16))


def job(number, *parts):
    """A batch of one pair after some other parts; workers can import all of it."""
    pair = ImagePair(str(number), "s", IMAGE, IMAGE.T.copy())
    return Batch([*parts, functools.partial(iter, [pair])], Preprocessing((16, 16)), Problems())


def sleeping(seconds):
    """A part that takes a while and gives nothing."""
    return functools.partial(filter, time.sleep, [seconds])


def keys(results):
    return [int(pair.key) for prepared in results for pair in prepared.pairs]


def test_results_come_in_the_jobs_order_whichever_is_done_first():
    with local_workers(2) as run:
        assert keys(run(job(number, sleeping(0.3 * (number % 2 == 0))) for number in range(10))) == [
            *range(10)
        ]
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_only_a_few_jobs_are_taken_ahead():
    taken = 0

    def jobs():
        nonlocal taken
        for taken in range(1, 41):
            yield job(taken)

    with local_workers(2) as run:
        for done, _ in enumerate(run(jobs()), 1):
            assert taken <= done + 8
    assert taken == 40


def test_one_worker_is_this_process():
    with local_workers(1) as run:
        assert keys(run([job(0)])) == [0]
        assert multiprocessing.active_children() == []


def test_a_killed_worker_is_told_in_one_line():
    killed = job(0, functools.partial(signal.raise_signal, signal.SIGKILL))
    with pytest.raises(WorkerKilledError, match="killed.* fewer `--workers`: .*`validate` starts anew"):
        with local_workers(2) as run:
            list(run([killed]))


def test_a_failure_of_ours_comes_through():
    with pytest.raises(TypeError), local_workers(2) as run:
        list(run([job(0, functools.partial(abs, -1))]))
