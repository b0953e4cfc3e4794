"""Compares schedules of meta-training without a look at the target: leave-one-task-out over the sources.

Each source task in turn plays the target's part: what is pretrained and meta-trained on the others is adapted
to it for ten epochs on its training pairs, and measured on its test pairs. Every schedule has its control
beside it, joint training from the same start with as many gradient steps (`rows`, `matched`). What two
schedules have in common is trained once:

    <workdir>/<task>-<seed>/start-<digest>/      pretrain, fine_tune_10
    <workdir>/<task>-<seed>/control-<digest>/    matched, matched_10
    <workdir>/<task>-<seed>/<schedule>/          reptile, ours_10

The digest is of the options that decide on them.

Everything is kept: a second call trains what is missing, a further schedule for instance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from tfmetareg.command_line import with_changes
from tfmetareg.config import Config, FinetuneOptions
from tfmetareg.errors import UserError
from tfmetareg.experiments.reproduce import seeds_of
from tfmetareg.experiments.rows import SHORT, Stages, matched_schedule, meta_gradient_steps
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.report.results import read_metrics, series
from tfmetareg.report.study import AdaptationLoss, Outcome, write_study
from tfmetareg.training.loop import DivergedError

# What a schedule may change: the rest is the study's own, or the same for all that are compared.
_STAGES = ("pretrain", "reptile")
_KEYS_OF_FINETUNE = ("pairs", "batch_size", "learning_rate", "annealing")
_OF_THE_STUDY = "reptile.init"


def run(config: Config, workdir: Path) -> None:
    """Runs the study in `workdir`; prints its table and writes it to `tables/study.{md,json}`."""
    schedules = _schedules(config)
    whole = open_workdir(config, workdir)
    left_out = _left_out(whole)
    _check_sources(whole, schedules)
    whole.begin()
    outcomes = [
        outcome
        for seed in seeds_of(config.study.seeds, config.seed)
        for task in left_out
        for outcome in _outcomes(whole, task, seed, schedules)
    ]
    print(write_study(whole.workdir, outcomes, config.study.schedules))


def _schedules(config: Config) -> dict[str, Config]:
    """The configuration under each schedule.

    Raises:
        UserError: there is none, or one changes what it may not, or to a value that is out of range.
    """
    if not config.study.schedules:
        raise UserError("`study.schedules` must name one schedule at least, {base: {}} for instance.")
    found = {}
    for name, changes in config.study.schedules.items():
        for key in changes:
            section, _, option = str(key).partition(".")
            own = section in _STAGES or (section == "finetune" and option in _KEYS_OF_FINETUNE)
            if not own or key == _OF_THE_STUDY:
                raise UserError(
                    f"schedule `{name}`: `{key}` must be a key of {' or '.join(_STAGES)} (but not "
                    f"{_OF_THE_STUDY}), or one of finetune's {', '.join(_KEYS_OF_FINETUNE)}: the rest is the "
                    "same for all."
                )
        try:
            found[name] = with_changes(config, changes)
        except UserError as error:
            raise UserError(f"schedule `{name}`: {error}") from None
    return found


def _left_out(whole: Workdir) -> Sequence[str]:
    """The tasks that are left out in turn: as asked for, else all sources with pairs to test on.

    Raises:
        UserError: one is no source, lacks a split or is named twice, or there is none.
    """
    asked = whole.config.study.left_out
    for task in asked:
        if task not in whole.sources:
            known = ", ".join(whole.sources)
            raise UserError(f"`study.left_out`: `{task}` is not a source; there are: {known}.")
        for split in ("train", "test"):
            whole.records.shards(task, split)
    if len(set(asked)) < len(asked):
        raise UserError(f"`study.left_out` ({', '.join(asked)}) must name each task once.")
    found = asked or [task for task in whole.sources if whole.records.pair_count(task, "test")]
    if not found:
        raise UserError(f"{whole.records.root}: no source task has pairs to test on; build one that has.")
    missing = [task for task in whole.sources if not asked and task not in found]
    if missing:
        print(f"note: never left out, without pairs to test on: {', '.join(missing)}", file=sys.stderr)
    return found


def _check_sources(whole: Workdir, schedules: dict[str, Config]) -> None:
    """Refuses what would stop the study later.

    Raises:
        UserError: fewer tasks are left than m.
    """
    left = len(whole.sources) - 1
    for name, config in schedules.items():
        m = config.reptile.meta_batch_size
        if m > left:
            raise UserError(
                f"schedule `{name}`: `reptile.meta_batch_size` ({m}) must be at most the number of source "
                f"tasks less the one left out ({left})."
            )


def _outcomes(whole: Workdir, task: str, seed: int, schedules: dict[str, Config]) -> Iterator[Outcome]:
    """Every schedule with that task left out."""
    folder = whole.workdir / f"{task}-{seed}"
    sources = [name for name in whole.sources if name != task]
    data = dataclasses.replace(whole.config.data, sources=sources, target=task)
    known: dict[Path, Optional[AdaptationLoss]] = {}
    for name, config in schedules.items():
        print(f"{task} left out, seed {seed}: {name}", file=sys.stderr)
        config = dataclasses.replace(config, seed=seed, data=data, finetune=_adaptation(config.finetune))
        start = _stages(config, folder / _named("start", config.pretrain, config.finetune))
        # Where the start does not come to be, whatever goes on from it does not either.
        reptile = dataclasses.replace(config.reptile, init=str(start.run.stage_weights("pretrain")))
        control = _named("control", config.pretrain, matched_schedule(config), config.finetune)
        config = dataclasses.replace(config, reptile=reptile)
        pretrained = _loss(start, "fine_tune_10", known)
        further = [_stages(config, folder / name), _stages(config, folder / control)]
        ours, matched = (
            _loss(stages, stage, known) if pretrained else None
            for stages, stage in zip(further, ("ours_10", "matched_10"))
        )
        yield Outcome(name, task, seed, meta_gradient_steps(config), ours, matched, pretrained)


def _adaptation(options: FinetuneOptions) -> FinetuneOptions:
    """Fine-tuning as configured, but measured at its two ends alone."""
    own = {key: getattr(options, key) for key in _KEYS_OF_FINETUNE}
    return FinetuneOptions(**own, evaluate_every=SHORT)


def _stages(config: Config, workdir: Path) -> Stages:
    opened = open_workdir(config, workdir)
    opened.begin()
    return Stages(opened)


def _named(kind: str, *options: Any) -> str:
    """A folder's name by the options that decide on its content."""
    content = json.dumps([dataclasses.asdict(option) for option in options], sort_keys=True)
    return f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _loss(
    stages: Stages, stage: str, known: dict[Path, Optional[AdaptationLoss]]
) -> Optional[AdaptationLoss]:
    """Trains the stage where that is missing; its loss on the test pairs at its beginning and at its end.

    None where it, or what it starts from, diverges: that is a result too. `known` are those of this call.
    """
    folder = stages.run.workdir / stage
    if folder not in known:
        try:
            lines = read_metrics(stages.weights(stage).parent)
            losses, distances = (
                series(lines, "step", f"test/{name}")[1] for name in ("total", "distance_px")
            )
            distance = float(distances[-1]) if len(distances) else None
            known[folder] = AdaptationLoss(float(losses[0]), float(losses[-1]), distance)
        except DivergedError as error:
            print(f"{folder}: {error}", file=sys.stderr)
            known[folder] = None
    return known[folder]
