"""Runs the builder's jobs as an Apache Beam pipeline, on the runner that its options name.

The pipeline carries jobs, not images. Images lie in files that this machine and every worker can reach, on a
cluster in a shared file system. The records equal those of a local build; a stopped build can be continued.
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

from tfmetareg.errors import UserError, one_line
from tfmetareg.files import published
from tfrecords_builder.workers import Engine, Job, RunJobs


def beam_engine(workers: int, pipeline_options: Sequence[str] = ()) -> Engine:
    """An engine that runs each step of a build as one pipeline.

    Args:
        workers: number of processes of Beam's local runner; other runners have their own option.
        pipeline_options: options of Beam, for instance `--runner=FlinkRunner`.

    Raises:
        UserError: apache-beam is not installed.
    """
    try:
        import apache_beam  # noqa: F401 - fail before any work is done
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
    """Runs the jobs as a pipeline; yields their results in the order of the jobs."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    run = uuid.uuid4().hex
    results = []
    elements = []
    for index, job in enumerate(jobs):
        results.append(staging.absolute() / f"{run}-{index:06d}.result")
        # Pickled here as one object: Beam would pickle a job piecewise and lose what its partitions share.
        elements.append(pickle.dumps((job, results[-1])))
    try:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            _ = pipeline | beam.Create(elements) | beam.Reshuffle() | beam.Map(_run_job)
    except ValueError as error:
        raise UserError(f"`--engine beam`: {one_line(error)}") from None
    except Exception as error:
        # On a full disk a worker cannot write its result.
        if f"[Errno {errno.ENOSPC}]" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise
    yield from map(_result, results)


def _run_job(element: bytes) -> None:
    """Runs a job and writes its result, or the UserError that it raised, to the job's file."""
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
