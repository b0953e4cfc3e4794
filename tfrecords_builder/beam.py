"""Runs the builder's jobs as an Apache Beam pipeline, on whatever runner its options name.

The pipeline carries jobs, not images: these lie in files that every worker and this machine see (on a shared
file system, where the runner is a cluster). So the records are those of a local build, and one that was
stopped can be gone on with.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pickle
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfmetareg.errors import UserError
from tfmetareg.files import published
from tfrecords_builder.workers import Engine, Job, RunJobs


def beam_engine(workers: int, pipeline_options: Sequence[str] = ()) -> Engine:
    """An engine that runs each step of a build as one pipeline.

    Args:
        workers: processes of Beam's local runner; other runners have options of their own.
        pipeline_options: Beam's own, for instance `--runner=FlinkRunner`.

    Raises:
        UserError: apache-beam is not installed.
    """
    try:
        import apache_beam  # noqa: F401 - to tell before any work is done
    except ImportError:
        raise UserError(
            "`--engine beam` needs Apache Beam; install it with `pip install 'tfmetareg[beam]'`."
        ) from None
    local = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"]
    return functools.partial(_engine, [*local, f"--direct_num_workers={workers}", *pipeline_options])


@contextlib.contextmanager
def _engine(options: Sequence[str], staging: Path) -> Iterator[RunJobs]:
    yield functools.partial(_run, options, staging)


def _run(options: Sequence[str], staging: Path, jobs: Iterable[Job]) -> Iterator[Any]:
    """Runs the jobs as a pipeline; yields their results in the jobs' order."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    run = uuid.uuid4().hex
    results = []
    elements = []
    for index, job in enumerate(jobs):
        results.append(staging.absolute() / f"{run}-{index:06d}.result")
        # Pickled here, in one piece: Beam would take a job apart, and with it what its parts share.
        elements.append(pickle.dumps((job, results[-1])))
    try:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            _ = pipeline | beam.Create(elements) | beam.Reshuffle() | beam.Map(_run_job)
    except ValueError as error:
        raise UserError(f"`--engine beam`: {' '.join(str(error).split())}") from None
    except Exception as error:
        # A full disk keeps a worker from leaving its result.
        if f"[Errno {errno.ENOSPC}]" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise
    yield from map(_result, results)


def _run_job(element: bytes) -> None:
    """Runs a job; leaves what it returns, or the mistake of the user's that it told, in its file."""
    job, path = pickle.loads(element)
    try:
        result = job.run()
    except UserError as error:
        result = error
    with published(path) as temporary:
        temporary.write_bytes(pickle.dumps(result))


def _result(path: Path) -> Any:
    result = pickle.loads(path.read_bytes())
    if isinstance(result, UserError):
        raise result
    return result
