"""Curves of fine-tuning over several seeds: their mean and band, and how soon one reaches another."""

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
    """Metrics by stage for every seed: of `seed-<s>/` where the results pool several, else of `workdir`."""
    seeds = next((result.seeds for result in results if result.seeds), ())
    folders = [Path(workdir, f"seed-{seed}") for seed in seeds] or [Path(workdir)]
    return [read_stages(folder) for folder in folders]


def mean_curves(seeds: Sequence[Mapping[str, Lines]]) -> dict[str, list[dict[str, Any]]]:
    """Evaluation lines by stage: the mean over the seeds, at the epochs that every seed has.

    Of several seeds the lines hold the lowest and highest value too, under the
    measure's name with `/low` and `/high`.
    """
    shared = [stage for stage in seeds[0] if all(stage in stages for stages in seeds)]
    curves = {stage: _mean_lines([stages[stage] for stages in seeds]) for stage in shared}
    return {stage: lines for stage, lines in curves.items() if lines}


def epochs_until(
    curves: Mapping[str, Lines], stage: str, other: str, measure: str = MEASURES[0]
) -> tuple[float, float] | None:
    """Epochs after which a stage, and another one itself, stay at the other's final value or below it.

    Returns:
        The stage's epochs and the other's; the first is infinite where the stage ends above. None where a
        curve is missing.
    """
    epochs, values = series(curves.get(stage, ()), "epoch", measure)
    other_epochs, other_values = series(curves.get(other, ()), "epoch", measure)
    if not len(epochs) or not len(other_epochs):
        return None
    final = other_values[-1]
    return _stays_below(epochs, values, final), _stays_below(other_epochs, other_values, final)


def _stays_below(epochs: np.ndarray, values: np.ndarray, limit: float) -> float:
    """The first epoch from which on no value is above the limit; infinite where the last one is."""
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
