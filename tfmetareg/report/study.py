"""A study of schedules: what each is worth on tasks that it has not seen, beside joint training as long."""

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
    """One schedule, one task left out, one seed.

    Attributes:
        schedule, task, seed: which.
        gradient_steps: of the meta-training, and of the control.
        ours, matched, pretrained: adapted from the meta-learned start, from the control, and from their
            common start; None where that diverged.
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
        """Ours less Matched, after adaptation; None where one of them diverged."""
        return self.ours.after - self.matched.after if self.ours and self.matched else None


def write_study(workdir: StrPath, outcomes: Sequence[Outcome], schedules: dict[str, dict[str, Any]]) -> str:
    """Writes <workdir>/tables/study.json and study.md.

    Args:
        workdir: work directory.
        outcomes: of all schedules on the same tasks and seeds.
        schedules: what each schedule changes, for the page.

    Returns:
        The page, Markdown.
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
    """A row for each schedule, headings first; what adapts best comes first, what diverged last."""
    by_schedule = _grouped(outcomes)
    order = sorted(by_schedule, key=lambda name: _sorting(_mean(by_schedule[name], "ours", "after")))
    return [HEADINGS, *(_schedule_row(name, by_schedule[name]) for name in order)]


def task_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Each schedule's difference on each task left out, mean over the seeds; headings first."""
    tasks = list(dict.fromkeys(outcome.task for outcome in outcomes))
    rows = [("Schedule", *tasks)]
    for name, own in _grouped(outcomes).items():
        by_task = [[outcome.difference for outcome in own if outcome.task == task] for task in tasks]
        rows.append((name, *("–" if None in values else f"{np.mean(values):+.4f}" for values in by_task)))
    return rows


def distance_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Landmark distances after adaptation, mean over the seeds, headings first; no rows without landmarks."""
    measured = [outcome for outcome in outcomes if _distance(outcome.pretrained) is not None]
    tasks = list(dict.fromkeys(outcome.task for outcome in measured))
    kinds = {"ours": "Ours", "matched": "Matched", "pretrained": "Pretrained only"}
    rows = [("Schedule", *(f"{task}: {title}" for task in tasks for title in kinds.values()))]
    for name, own in _grouped(measured).items():
        cells = []
        for task in tasks:
            for kind in kinds:
                values = [_distance(getattr(outcome, kind)) for outcome in own if outcome.task == task]
                cells.append("–" if None in values else f"{np.mean(values):.3f}")
        rows.append((name, *cells))
    return rows if tasks else []


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
    """Mean loss over the cases; None where one of them diverged."""
    losses = [getattr(outcome, kind) for outcome in outcomes]
    return None if None in losses else float(np.mean([getattr(loss, when) for loss in losses]))


def _sorting(mean: float | None) -> float:
    return math.inf if mean is None else mean


def _grouped(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    names = dict.fromkeys(outcome.schedule for outcome in outcomes)
    return {name: [outcome for outcome in outcomes if outcome.schedule == name] for name in names}


def _losses(outcome: Outcome) -> dict[str, dict[str, float] | None]:
    found = {kind: getattr(outcome, kind) for kind in ("ours", "matched", "pretrained")}
    return {kind: loss and loss._asdict() for kind, loss in found.items()}


def _changes(changed: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in changed.items()) or "nothing"
