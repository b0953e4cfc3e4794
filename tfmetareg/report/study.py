"""Study of schedules: meta-training against joint training of equal length, on tasks left out of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmetareg.files import StrPath, write_json, write_text
from tfmetareg.report.statistics import mean_interval
from tfmetareg.report.tables import markdown_rows

TEXT = (
    "Each source task in turn is left out of pretraining and meta-training, then adapted to by ten epochs. "
    "Loss of Eq. (1) on its test pairs before and after that, mean over the tasks left out{seeds}. Matched: "
    "joint training on the same tasks from the same start, for as many gradient steps and at the same rate. "
    "Difference: Ours less Matched after adaptation, below zero where meta-learning is ahead; its 95 % "
    "bootstrap interval is over {cases} cases."
)
HEADINGS = ("Schedule", "Gradient steps", "Ours before", "after", "Matched before", "after") + (
    "Pretrained only, after",
    "Difference",
    "95 % interval",
    "Ours ahead in",
)


class AdaptationLoss(NamedTuple):
    """Mean loss of Eq. (1) on a task's test pairs before and after adaptation to the task.

    `distance` is the mean landmark distance after it, in pixels; None without landmarks.
    """

    before: float
    after: float
    distance: float | None = None


class Outcome(NamedTuple):
    """Outcome of one schedule with one task left out and one seed.

    Attributes:
        schedule, task, seed: schedule, left-out task and seed.
        gradient_steps: number of gradient steps of meta-training, and of the joint training beside it.
        ours, matched, pretrained: losses of adaptation from the meta-learned weights, from the jointly
            trained ones, and from the common start of both; None if training diverged.
    """

    schedule: str
    task: str
    seed: int
    gradient_steps: int
    ours: AdaptationLoss | None
    matched: AdaptationLoss | None
    pretrained: AdaptationLoss | None

    @property
    def difference(self) -> float | None:
        """Ours minus Matched, after adaptation; None if one of them diverged."""
        return self.ours.after - self.matched.after if self.ours and self.matched else None


def write_study(workdir: StrPath, outcomes: Sequence[Outcome], schedules: dict[str, dict[str, Any]]) -> str:
    """Writes <workdir>/tables/study.json and study.md.

    Args:
        workdir: work directory.
        outcomes: outcomes of all schedules, on the same tasks and seeds.
        schedules: the options that each schedule changes, for the page.

    Returns:
        The page in Markdown.
    """
    seeds = len({outcome.seed for outcome in outcomes})
    text = TEXT.format(
        seeds=f" and {seeds} seeds" if seeds > 1 else "", cases=len({(o.task, o.seed) for o in outcomes})
    )
    page = "\n".join(
        [
            f"# Schedules on tasks left out\n\n{text}\n",
            markdown_rows(schedule_rows(outcomes)),
            "## Difference on each task\n",
            markdown_rows(task_rows(outcomes)),
            *_distances(outcomes),
            "## What each schedule changes\n",
            *(f"* {name}: {_changes(changed)}" for name, changed in schedules.items()),
            "",
        ]
    )
    folder = Path(workdir, "tables")
    records = [{**outcome._asdict(), **_losses(outcome)} for outcome in outcomes]
    write_json(folder / "study.json", {"schema": 1, "schedules": schedules, "outcomes": records})
    write_text(folder / "study.md", page)
    return page


def schedule_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Headings, then a row for each schedule: lowest loss after adaptation first, diverged ones last."""
    by_schedule = _grouped(outcomes)
    order = sorted(by_schedule, key=lambda name: _sorting(_mean(by_schedule[name], "ours", "after")))
    return [HEADINGS, *(_schedule_row(name, by_schedule[name]) for name in order)]


def task_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Headings, then each schedule's difference on each left-out task, mean over the seeds."""
    tasks = list(dict.fromkeys(outcome.task for outcome in outcomes))
    rows: list[tuple[str, ...]] = [("Schedule", *tasks)]
    for name, own in _grouped(outcomes).items():
        by_task = [[outcome.difference for outcome in own if outcome.task == task] for task in tasks]
        rows.append((name, *(_mean_cell(values, "+.4f") for values in by_task)))
    return rows


def distance_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Headings, then landmark distances after adaptation, mean over the seeds; no rows without landmarks."""
    measured = [outcome for outcome in outcomes if _distance(outcome.pretrained) is not None]
    tasks = list(dict.fromkeys(outcome.task for outcome in measured))
    kinds = {"ours": "Ours", "matched": "Matched", "pretrained": "Pretrained only"}
    rows: list[tuple[str, ...]] = [
        ("Schedule", *(f"{task}: {title}" for task in tasks for title in kinds.values()))
    ]
    for name, own in _grouped(measured).items():
        cells = []
        for task in tasks:
            for kind in kinds:
                values = [_distance(getattr(outcome, kind)) for outcome in own if outcome.task == task]
                cells.append(_mean_cell(values, ".3f"))
        rows.append((name, *cells))
    return rows if tasks else []


def _mean_cell(values: Sequence[float | None], style: str) -> str:
    """The mean as text; a dash if a value is missing."""
    known = [value for value in values if value is not None]
    return format(np.mean(known), style) if len(known) == len(values) else "–"


def _distances(outcomes: Sequence[Outcome]) -> list[str]:
    rows = distance_rows(outcomes)
    return ["## Landmark distance after adaptation, in pixels\n", markdown_rows(rows)] if rows else []


def _distance(loss: AdaptationLoss | None) -> float | None:
    return loss and loss.distance


def _schedule_row(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    shown = [("ours", "before"), ("ours", "after"), ("matched", "before"), ("matched", "after")]
    means = [_mean(outcomes, kind, when) for kind, when in [*shown, ("pretrained", "after")]]
    cells = ["diverged" if mean is None else f"{mean:.4f}" for mean in means]
    differences = np.array([outcome.difference for outcome in outcomes if outcome.difference is not None])
    ahead = f"{np.sum(differences < 0)} of {len(outcomes)}"
    if len(differences) < len(outcomes):
        return (name, str(outcomes[0].gradient_steps), *cells, "–", "–", ahead)
    low, high = mean_interval(differences)
    interval = "–" if low is None else f"{low:+.4f} … {high:+.4f}"
    return (name, str(outcomes[0].gradient_steps), *cells, f"{differences.mean():+.4f}", interval, ahead)


def _mean(outcomes: Sequence[Outcome], kind: str, when: str) -> float | None:
    """Mean loss over the cases; None if one of them diverged."""
    losses = [getattr(outcome, kind) for outcome in outcomes]
    return None if None in losses else float(np.mean([getattr(loss, when) for loss in losses]))


def _sorting(mean: float | None) -> float:
    return math.inf if mean is None else mean


def _grouped(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    names = dict.fromkeys(outcome.schedule for outcome in outcomes)
    return {name: [outcome for outcome in outcomes if outcome.schedule == name] for name in names}


def _losses(outcome: Outcome) -> dict[str, dict[str, float] | None]:
    losses = {kind: getattr(outcome, kind) for kind in ("ours", "matched", "pretrained")}
    return {kind: loss and loss._asdict() for kind, loss in losses.items()}


def _changes(changed: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in changed.items()) or "nothing"
