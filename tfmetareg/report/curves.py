"""Fine-tuning curves over several seeds: their mean and range, and when one reaches another's end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmetareg.files import StrPath
from tfmetareg.report.results import Result, read_stages, series

MEASURES = ("test/distance_px", "test/ncc", "test/total")
Lines = Sequence[Mapping[str, Any]]


def read_seed_stages(workdir: StrPath, results: Sequence[Result]) -> list[dict[str, list[dict[str, Any]]]]:
    """Metrics by stage for each seed, from `seed-<s>/`; of `workdir` itself if the results pool no seeds."""
    seeds = next((result.seeds for result in results if result.seeds), ())
    folders = [Path(workdir, f"seed-{seed}") for seed in seeds] or [Path(workdir)]
    return [read_stages(folder) for folder in folders]


def mean_curves(seeds: Sequence[Mapping[str, Lines]]) -> dict[str, list[dict[str, Any]]]:
    """Evaluation lines by stage: means over the seeds, at the epochs that all seeds have.

    With several seeds, the lines also hold the lowest and highest value, under the measure's name followed by
    `/low` and `/high`.
    """
    shared = [stage for stage in seeds[0] if all(stage in stages for stages in seeds)]
    curves = {stage: _mean_lines([stages[stage] for stages in seeds]) for stage in shared}
    return {stage: lines for stage, lines in curves.items() if lines}


def epochs_until(
    curves: Mapping[str, Lines], stage: str, other: str, measure: str = MEASURES[0]
) -> tuple[float, float] | None:
    """Number of epochs after which two stages stay at or below the final value of the second one.

    Args:
        curves: evaluation lines by stage.
        stage, other: names of the two stages; the final value is that of `other`.
        measure: name of the measure.

    Returns:
        Epochs of `stage` and of `other`. The first is infinite if `stage` ends above the value. None if a
        curve is missing.
    """
    epochs, values = series(curves.get(stage, ()), "epoch", measure)
    other_epochs, other_values = series(curves.get(other, ()), "epoch", measure)
    if not len(epochs) or not len(other_epochs):
        return None
    final = other_values[-1]
    return _stays_below(epochs, values, final), _stays_below(other_epochs, other_values, final)


def _stays_below(epochs: np.ndarray, values: np.ndarray, limit: float) -> float:
    """The first epoch from which on no value exceeds the limit; infinite if the last value does."""
    above = np.flatnonzero(values > limit)
    first = above[-1] + 1 if len(above) else 0
    return float(epochs[first]) if first < len(epochs) else math.inf


def _mean_lines(seeds: Sequence[Lines]) -> list[dict[str, Any]]:
    by_epoch = [
        {line["epoch"]: line for line in lines if line.get("epoch") is not None and "test/ncc" in line}
        for lines in seeds
    ]
    shared = sorted(set.intersection(*map(set, by_epoch)))
    return [_mean_line([lines[epoch] for lines in by_epoch]) for epoch in shared]


def _mean_line(lines: Lines) -> dict[str, Any]:
    line: dict[str, Any] = {"step": lines[0]["step"], "epoch": lines[0]["epoch"]}
    for measure in MEASURES:
        values = [one[measure] for one in lines if one.get(measure) is not None]
        line[measure] = float(np.mean(values)) if values else None
        if len(values) > 1:
            line[f"{measure}/low"], line[f"{measure}/high"] = min(values), max(values)
    return line
