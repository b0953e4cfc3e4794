"""What is to be done for a comparison, apart from doing it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Union

from tfmetareg.errors import UserError
from tfmetareg.experiments.measurement import Measurement, set_results_aside
from tfmetareg.modes.stage import Stage, State
from tfmetareg.modes.stage import plan as plan_stages

Job = Union[Stage, Measurement]


class Outdated(NamedTuple):
    """Stages and results of another configuration."""

    stages: list[Stage]
    measurements: list[Measurement]


def plan(measurements: Iterable[Measurement]) -> list[Job]:
    """The measurements in their order, each after the stages that it needs. Nothing is trained or written.

    Every stage is there once, finished or not: `make` of a stage or a measurement does what is missing.
    """
    planned: dict[Path, Job] = {}
    for measurement in measurements:
        for stage in plan_stages([measurement.stage] if measurement.stage else []):
            planned.setdefault(stage.folder, stage)
        planned[measurement.result] = measurement
    return list(planned.values())


def execute(planned: Sequence[Job]) -> dict[str, str]:
    """Trains and measures what is missing.

    Args:
        planned: as `plan` gives it.

    Returns:
        By name, why an optional measurement was left out.

    Raises:
        UserError: what is not optional cannot be made.
    """
    left_out = {}
    for job in planned:
        try:
            job.make()
        except UserError as error:
            if not (isinstance(job, Measurement) and job.optional):
                raise
            left_out[job.method] = str(error)
            print(f"{job.method}: left out, {error}", file=sys.stderr)
    return left_out


def outdated(stages: Iterable[Stage], measurements: Iterable[Measurement]) -> Outdated:
    """Those of them that are there and of another configuration; a stage may still be unfinished."""
    return Outdated(
        [stage for stage in stages if stage.state() is State.OUTDATED],
        [one for one in measurements if one.result.is_file() and not one.is_current()],
    )


def set_aside(found: Outdated) -> None:
    """Moves stages and results to the `replaced/` of their work directory."""
    for stage in found.stages:
        stage.set_aside()
    by_workdir = itertools.groupby(found.measurements, key=lambda one: one.workdir.path)
    for _, group in by_workdir:
        measurements = list(group)
        set_results_aside(measurements[0].workdir, [one.method for one in measurements])
