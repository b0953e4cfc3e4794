"""Runs jobs in worker processes on this machine, in constant memory."""

from __future__ import annotations

import collections
import contextlib
import functools
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Callable, Protocol

from tfmetareg.errors import UserError
from tfmetareg.processes import start_worker

# Jobs in the queue per worker: enough that no worker idles while the oldest job is still running.
_JOBS_PER_WORKER = 4


class Job(Protocol):
    """A piece of work that can be pickled."""

    def run(self) -> Any:
        """Does the work; the result can be pickled."""


RunJobs = Callable[[Iterable[Job]], Iterator[Any]]
# Context manager that runs jobs; its argument is the build's staging folder.
Engine = Callable[[Path], "contextlib.AbstractContextManager[RunJobs]"]


class WorkerKilledError(UserError):
    """A worker process was killed; the next run of the same build goes on from what is done."""


@contextlib.contextmanager
def local_workers(count: int) -> Iterator[RunJobs]:
    """Gives a function that runs jobs in `count` processes and yields their results in the jobs' order.

    A count of 1 means this process. More processes are forked from a server
    that has imported TensorFlow but not used it: they share its memory, start
    at once and inherit no thread. They end when this process ends, even if it is killed.

    Raises:
        WorkerKilledError: a worker was killed.
    """
    if count == 1:
        yield lambda jobs: (job.run() for job in jobs)
        return
    with ProcessPoolExecutor(count, mp_context=forked(), initializer=_start_worker) as pool:
        try:
            yield functools.partial(_run, pool, count * _JOBS_PER_WORKER)
        except BrokenProcessPool:
            raise WorkerKilledError(
                "a worker process was killed, most often for want of memory; run the same command again "
                "with fewer `--workers`: `build` goes on where it stopped, `validate` starts anew."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def forked() -> multiprocessing.context.BaseContext:
    """Context that forks processes from a server that has already imported the builder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tfrecords_builder.build", "tfrecords_builder.sources"])
    return context


def _run(pool: Executor, waiting: int, jobs: Iterable[Job]) -> Iterator[Any]:
    futures: collections.deque = collections.deque()
    for job in jobs:
        futures.append(pool.submit(_call, job))
        if len(futures) == waiting:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def _call(job: Job) -> Any:
    return job.run()


def _start_worker() -> None:
    start_worker()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    # Parallelism comes from the processes.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
