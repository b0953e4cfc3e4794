"""Paired statistics: one method against another on the same test pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

from tfmetareg.methods import label
from tfmetareg.report.results import Result, read_scores

COMPARED = (
    ("ours_10", "fine_tune_10"),
    ("ours_10", "matched_10"),
    ("ours_10", "model_seen"),
    ("ours_long", "fine_tune_long"),
    ("ours_long", "matched_long"),
)
CONFIDENCE = 0.95
RESAMPLES = 9999


class Comparison(NamedTuple):
    """`method` against `other`: the difference of a measure, pair by pair.

    The measure is one of which less is better: the landmark distance, in pixels, or the loss.

    Attributes:
        pairs: number of test pairs.
        difference: mean of method - other; below zero the method is the better one.
        low, high: its bootstrap interval over the pairs; None of a single pair.
        p_value: of Wilcoxon's signed-rank test, two-sided.
        over_seeds: the mean difference of every seed; empty where there is but one, and of the loss.
    """

    method: str
    other: str
    pairs: int
    difference: float
    low: float | None
    high: float | None
    p_value: float
    over_seeds: tuple[float, ...] = ()


def compare(method: str, other: str, values: Sequence[float], others: Sequence[float]) -> Comparison:
    """Compares two methods by their values on the same pairs, in the same order.

    The interval is the percentile bootstrap's, 95 %, for the mean over the
    pairs: it tells what other test pairs could have given, not what other
    seeds could.
    """
    differences = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    low, high = mean_interval(differences)
    # Without any difference the signed ranks are undefined.
    p_value = float(scipy.stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    return Comparison(method, other, len(differences), float(differences.mean()), low, high, p_value)


def mean_interval(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap interval of the mean of (n,) values, 95 %; the same every time."""
    if len(values) < 2:
        return None, None
    found = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def comparisons(
    results: Sequence[Result],
    compared: Sequence[tuple[str, str]] = COMPARED,
    measure: Literal["distance_px", "loss"] = "distance_px",
) -> list[Comparison]:
    """Compares the methods that are among the results and have the measure of single pairs."""
    by_method = {result.method: result for result in results}
    pairs = [(method, other) for method, other in compared if {method, other} <= by_method.keys()]
    tables = {method: _values(by_method[method], measure) for method in {*itertools.chain(*pairs)}}
    found = []
    for method, other in pairs:
        one, another = by_method[method], by_method[other]
        keys = [key for key in tables[method] if key in tables[other]]
        if keys:
            values = ([tables[name][key] for key in keys] for name in (method, other))
            means = zip(one.seed_distances, another.seed_distances) if measure == "distance_px" else ()
            found.append(
                compare(method, other, *values)._replace(
                    over_seeds=tuple(mean - mean_other for mean, mean_other in means)
                )
            )
    return found


def comparison_rows(found: Sequence[Comparison], unit: str = "px", digits: int = 3) -> list[tuple[str, ...]]:
    """The comparisons as a table of text, headings first."""
    return [(f"Difference ({unit})", *HEADINGS), *(_cells(comparison, digits) for comparison in found)]


def _cells(comparison: Comparison, digits: int) -> tuple[str, ...]:
    low, high = comparison.low, comparison.high
    interval = "–" if low is None else f"{low:+.{digits}f} … {high:+.{digits}f}"
    seeds = ", ".join(f"{value:+.{digits}f}" for value in comparison.over_seeds) or "–"
    p_value = "<0.001" if comparison.p_value < 0.001 else f"{comparison.p_value:.3f}"
    return (
        f"{label(comparison.method)} − {label(comparison.other)}",
        str(comparison.pairs),
        f"{comparison.difference:+.{digits}f}",
        interval,
        p_value,
        seeds,
    )


HEADINGS = ("Pairs", "Mean", "95 % interval", "Wilcoxon p", "Mean of each seed")


def _values(result: Result, measure: str) -> dict[str, float]:
    values = {score.key: getattr(score, measure) for score in read_scores(result)}
    return {key: value for key, value in values.items() if value is not None}
