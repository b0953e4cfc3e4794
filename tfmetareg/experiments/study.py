"""Compares schedules of meta-training without the target: leave-one-task-out over the source tasks.

Each source task in turn stands in for the target: the network is pretrained and meta-trained on the others,
fine-tuned for ten epochs on the training pairs of the one left out, and measured on its test pairs. Beside
every schedule stands its control, joint training with as many gradient steps (`rows`, `matched`). Stages that
two schedules have in common are trained once:

    <workdir>/<task>-<seed>/start-<digest>/      pretrain, fine_tune_10
    <workdir>/<task>-<seed>/control-<digest>/    matched, matched_10
    <workdir>/<task>-<seed>/<schedule>/          reptile, ours_10

The digest is that of the options that decide on the stages. A second call trains what is missing, such as a
further schedule.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from tfmetareg.cache import digest
from tfmetareg.command_line import with_changes
from tfmetareg.config import Config, FinetuneOptions
from tfmetareg.errors import UserError
from tfmetareg.experiments.reproduce import seeds_of
from tfmetareg.experiments.rows import comparison_stages, matched_schedule
from tfmetareg.methods import SHORT_EPOCHS
from tfmetareg.modes.reptile import gradient_steps
from tfmetareg.modes.stage import Stage, plan
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.report.results import read_metrics, series
from tfmetareg.report.study import AdaptationLoss, Outcome, write_study
from tfmetareg.training.loop import DivergedError

# What a schedule may change; everything else is the same for all schedules.
_SECTIONS = ("pretrain", "reptile")
_FINETUNE_KEYS = ("pairs", "batch_size", "learning_rate", "annealing")
_SET_BY_STUDY = "reptile.init"


def run(config: Config, path: Path) -> None:
    """Runs the study in a work directory; prints its table and writes it to `tables/study.{md,json}`."""
    schedules = _schedules(config)
    whole = open_workdir(config, path)
    left_out = _left_out(whole)
    _check_sources(whole, schedules)
    whole.begin()
    outcomes = [
        outcome
        for seed in seeds_of(config.study.seeds, config.seed)
        for task in left_out
        for outcome in _outcomes(whole, task, seed, schedules)
    ]
    print(write_study(whole.path, outcomes, config.study.schedules))


def _schedules(config: Config) -> dict[str, Config]:
    """The configuration under each schedule.

    Raises:
        UserError: there is none, or one changes an option that it may not, or to a value out of range.
    """
    if not config.study.schedules:
        raise UserError("`study.schedules` must name one schedule at least, {base: {}} for instance.")
    schedules = {}
    for name, changes in config.study.schedules.items():
        for key in changes:
            section, _, option = str(key).partition(".")
            own = section in _SECTIONS or (section == "finetune" and option in _FINETUNE_KEYS)
            if not own or key == _SET_BY_STUDY:
                raise UserError(
                    f"schedule `{name}`: `{key}` must be a key of {' or '.join(_SECTIONS)} (but not "
                    f"{_SET_BY_STUDY}), or one of finetune's {', '.join(_FINETUNE_KEYS)}: the rest is the "
                    "same for all."
                )
        try:
            schedules[name] = with_changes(config, changes)
        except UserError as error:
            raise UserError(f"schedule `{name}`: {error}") from None
    return schedules


def _left_out(whole: Workdir) -> Sequence[str]:
    """The tasks to leave out in turn: those of `study.left_out`, else all sources with test pairs.

    Raises:
        UserError: a task is no source, lacks a split or is named twice; or there is none.
    """
    named = whole.config.study.left_out
    for task in named:
        if task not in whole.sources:
            known = ", ".join(whole.sources)
            raise UserError(f"`study.left_out`: `{task}` is not a source; there are: {known}.")
        for split in ("train", "test"):
            whole.records.shards(task, split)
    if len(set(named)) < len(named):
        raise UserError(f"`study.left_out` ({', '.join(named)}) must name each task once.")
    left_out = named or [task for task in whole.sources if whole.records.pair_count(task, "test")]
    if not left_out:
        raise UserError(f"{whole.records.root}: no source task has pairs to test on; build one that has.")
    missing = [task for task in whole.sources if not named and task not in left_out]
    if missing:
        print(f"note: never left out, without pairs to test on: {', '.join(missing)}", file=sys.stderr)
    return left_out


def _check_sources(whole: Workdir, schedules: dict[str, Config]) -> None:
    """Refuses what would stop the study later.

    Raises:
        UserError: a source has no training pairs, or fewer tasks are left than m.
    """
    for task in whole.sources:
        whole.records.shards(task, "train")
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
    folder = whole.path / f"{task}-{seed}"
    sources = [name for name in whole.sources if name != task]
    data = dataclasses.replace(whole.config.data, sources=sources, target=task)
    known: dict[Path, Optional[AdaptationLoss]] = {}
    for name, config in schedules.items():
        print(f"{task} left out, seed {seed}: {name}", file=sys.stderr)
        config = dataclasses.replace(config, seed=seed, data=data, finetune=_adaptation(config.finetune))
        start = _stages(config, folder / _folder_name("start", config.pretrain, config.finetune))
        control = _folder_name("control", config.pretrain, matched_schedule(config), config.finetune)
        reptile = dataclasses.replace(config.reptile, init=str(start["pretrain"].weights))
        config = dataclasses.replace(config, reptile=reptile)
        pretrained = _loss(start["fine_tune_10"], known)
        ours, matched = (
            _loss(_stages(config, folder / place)[stage], known) if pretrained else None
            for place, stage in ((name, "ours_10"), (control, "matched_10"))
        )
        yield Outcome(name, task, seed, gradient_steps(config.reptile), ours, matched, pretrained)


def _adaptation(options: FinetuneOptions) -> FinetuneOptions:
    """Fine-tuning as configured, but measured before the first and after the last epoch only."""
    own = {key: getattr(options, key) for key in _FINETUNE_KEYS}
    return FinetuneOptions(**own, evaluate_every=SHORT_EPOCHS)


def _stages(config: Config, path: Path) -> dict[str, Stage]:
    """The stages in a work directory of the study, by name."""
    workdir = open_workdir(config, path)
    workdir.begin()
    return comparison_stages(workdir)


def _folder_name(kind: str, *options: Any) -> str:
    """A folder's name, after the options that decide on its content."""
    return f"{kind}-{digest([dataclasses.asdict(option) for option in options], length=8)}"


def _loss(stage: Stage, known: dict[Path, Optional[AdaptationLoss]]) -> Optional[AdaptationLoss]:
    """Trains a fine-tuning stage and what it starts from, where that is missing.

    Args:
        stage: the stage.
        known: results of the same call so far, by folder.

    Returns:
        Its loss on the test pairs before the first and after the last step; None where training diverges,
        which is a result too.
    """
    if stage.folder not in known:
        try:
            for one in plan([stage]):
                one.make()
            known[stage.folder] = _adaptation_loss(stage.folder)
        except DivergedError as error:
            print(f"{stage.folder}: {error}", file=sys.stderr)
            known[stage.folder] = None
    return known[stage.folder]


def _adaptation_loss(folder: Path) -> AdaptationLoss:
    lines = read_metrics(folder)
    losses, distances = (series(lines, "step", f"test/{name}")[1] for name in ("total", "distance_px"))
    distance = float(distances[-1]) if len(distances) else None
    return AdaptationLoss(float(losses[0]), float(losses[-1]), distance)
