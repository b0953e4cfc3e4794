"""Compares schedules of meta-training without a look at the target: leave-one-task-out over the sources.

Each source task in turn plays the target's part: what is pretrained and meta-trained on the others is adapted
to it for ten epochs on its training pairs, and measured on its test pairs. Every schedule has its control
beside it, joint training from the same start with as many gradient steps (`rows`, `matched`). What two
schedules have in common is trained once:

    <workdir>/<task>-<seed>/start-<digest>/      pretrain, fine_tune_10
    <workdir>/<task>-<seed>/control-<digest>/    matched, matched_10
    <workdir>/<task>-<seed>/<schedule>/          reptile, ours_10

Everything is kept: a second call trains what is missing, a further schedule for instance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from tfmetareg.config import Config, changed
from tfmetareg.errors import UserError
from tfmetareg.loop import DivergedError
from tfmetareg.report.results import read_metrics, series
from tfmetareg.report.study import Loss, Outcome, write_study
from tfmetareg.runs.reproduce import seeds_of
from tfmetareg.runs.rows import SHORT, Stages, matched_schedule, meta_gradient_steps
from tfmetareg.runs.run import Run, open_run


def run(config: Config, workdir: Path) -> None:
    """Runs the study in `workdir`; prints its table and writes it to `tables/study.{md,json}`."""
    schedules = {name: changed(config, keys) for name, keys in config.study.schedules.items()}
    whole = open_run(config, workdir)
    left_out = config.study.left_out or whole.sources
    _check(whole, left_out, schedules)
    whole.begin()
    outcomes = [
        outcome
        for seed in seeds_of(config.study.seeds, config.seed)
        for task in left_out
        for outcome in _outcomes(whole, task, seed, schedules)
    ]
    print(write_study(whole.workdir, outcomes, config.study.schedules))


def _check(whole: Run, left_out: list[str], schedules: dict[str, Config]) -> None:
    """Refuses what would stop the study later.

    Raises:
        UserError: no schedule, a task that is no source or lacks a split, or fewer tasks left than m.
    """
    if not schedules:
        raise UserError("`study.schedules` must name one schedule at least, {base: {}} for instance.")
    for task in left_out:
        if task not in whole.sources:
            raise UserError(
                f"`study.left_out`: `{task}` is not a source; there are: {', '.join(whole.sources)}."
            )
        for split in ("train", "test"):
            whole.records.shards(task, split)
    for name, config in schedules.items():
        m = config.reptile.meta_batch_size
        if m > len(whole.sources) - 1:
            raise UserError(
                f"schedule `{name}`: `reptile.meta_batch_size` ({m}) must be at most the number of source "
                f"tasks less the one left out ({len(whole.sources) - 1})."
            )


def _outcomes(whole: Run, task: str, seed: int, schedules: dict[str, Config]) -> Iterator[Outcome]:
    """Every schedule with that task left out."""
    folder = whole.workdir / f"{task}-{seed}"
    sources = [name for name in whole.sources if name != task]
    data = dataclasses.replace(whole.config.data, sources=sources, target=task)
    for name, config in schedules.items():
        print(f"{task} left out, seed {seed}: {name}", file=sys.stderr)
        config = dataclasses.replace(
            config,
            seed=seed,
            data=data,
            finetune=dataclasses.replace(config.finetune, evaluate_every=SHORT),
        )
        start = _stages(config, folder / _named("start", config.pretrain, config.finetune))
        options = dataclasses.replace(config.reptile, init=str(start.weights("pretrain")))
        config = dataclasses.replace(config, reptile=options)
        shared = matched_schedule(config)
        control = _stages(config, folder / _named("control", config.pretrain, shared, config.finetune))
        own = _stages(config, folder / name)
        yield Outcome(
            name,
            task,
            seed,
            meta_gradient_steps(config),
            _loss(own, "ours_10"),
            _loss(control, "matched_10"),
            _loss(start, "fine_tune_10"),
        )


def _stages(config: Config, workdir: Path) -> Stages:
    opened = open_run(config, workdir)
    opened.begin()
    return Stages(opened)


def _named(kind: str, *options: Any) -> str:
    """A folder's name by what decides on its content."""
    content = [dataclasses.asdict(option) for option in options]
    for one in content:
        if one["init"].endswith(".h5"):
            one["init"] = ""  # A start of this study, wherever it lies.
    return f"{kind}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]}"


def _loss(stages: Stages, stage: str) -> Optional[Loss]:
    """Trains the stage where that is missing; its loss on the test pairs at its beginning and at its end.

    None where it, or what it starts from, diverges: that is a result too.
    """
    try:
        lines = read_metrics(stages.weights(stage).parent)
    except DivergedError as error:
        print(f"{stages.run.workdir}: {error}", file=sys.stderr)
        return None
    values = series(lines, "step", "test/total")[1]
    return Loss(float(values[0]), float(values[-1]))
