"""Runs jobs in worker processes of this machine, in constant memory."""

from __future__ import annotations

import collections
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Callable, Protocol

from tfmetareg.errors import UserError

# How many jobs wait for each worker: enough that none idles while a slow job is awaited.
_JOBS_PER_WORKER = 4


class Job(Protocol):
    """A piece of work that can be pickled."""

    def run(self) -> Any:
        """Does it; the result can be pickled."""


RunJobs = Callable[[Iterable[Job]], Iterator[Any]]
# Gets the build's staging folder.
Engine = Callable[[Path], "contextlib.AbstractContextManager[RunJobs]"]


class Stopped(UserError):  # noqa: N818 - an event, as KeyboardInterrupt
    """The run ended before its work was done; what `build` has done is kept for the next one."""


def available_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def local_workers(count: int) -> Iterator[RunJobs]:
    """Gives a function that runs jobs in `count` processes and yields their results in the jobs' order.

    With one, that is this process. More are forked from a server that has
    imported TensorFlow but not used it: they share its memory, start at once,
    and inherit no thread. They end when this process does, even if it is killed.

    Raises:
        Stopped: a worker was killed.
    """
    if count == 1:
        yield lambda jobs: (job.run() for job in jobs)
        return
    with ProcessPoolExecutor(count, mp_context=forked(), initializer=_start_worker) as pool:
        try:
            yield functools.partial(_run, pool, count * _JOBS_PER_WORKER)
        except BrokenProcessPool:
            raise Stopped(
                "a worker process was killed, most often for want of memory; run the same command again "
                "with fewer `--workers`: `build` goes on where it stopped, `validate` starts anew."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def forked() -> multiprocessing.context.BaseContext:
    """Starts processes from a server that has imported what they need."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the builder's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    # The processes are what runs in parallel.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with_parent() -> None:
    """A killed builder cannot tell its workers, which would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
