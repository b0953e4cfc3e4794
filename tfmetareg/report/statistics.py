"""Paired statistics of two methods on the same test pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

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
    """Paired difference of a measure, `method` minus `other`.

    The measure is the landmark distance in pixels or the loss: lower is better.

    Attributes:
        pairs: number of test pairs.
        difference: mean difference; below zero, `method` is better.
        low, high: bootstrap interval of the mean difference over the pairs; None for a single pair.
        p_value: two-sided p-value of Wilcoxon's signed-rank test.
        over_seeds: mean difference of each seed; empty for a single seed, and for the loss.
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

    The 95 % interval is a percentile bootstrap of the mean over the pairs: it covers the choice of test
    pairs, not that of seeds.

    >>> compare("ours_10", "fine_tune_10", [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]).difference
    -1.0
    """
    from scipy import stats  # Takes as long to import as NumPy and matplotlib together.

    differences = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    low, high = mean_interval(differences)
    # Signed ranks are undefined if all differences are zero.
    p_value = float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    return Comparison(method, other, len(differences), float(differences.mean()), low, high, p_value)


def mean_interval(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap interval (95 %) of the mean of (n,) values, with a fixed seed."""
    from scipy import stats

    if len(values) < 2:
        return None, None
    bootstrap = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(bootstrap.confidence_interval.low), float(bootstrap.confidence_interval.high)


def comparisons(
    results: Sequence[Result],
    compared: Sequence[tuple[str, str]] = COMPARED,
    measure: Literal["distance_px", "loss"] = "distance_px",
) -> list[Comparison]:
    """Compares all pairs of methods whose results are present and have the measure for single pairs."""
    by_method = {result.method: result for result in results}
    pairs = [(method, other) for method, other in compared if {method, other} <= by_method.keys()]
    tables = {method: _values(by_method[method], measure) for method in {*itertools.chain(*pairs)}}
    compared_pairs = []
    for method, other in pairs:
        one, another = by_method[method], by_method[other]
        keys = [key for key in tables[method] if key in tables[other]]
        if keys:
            values = ([tables[name][key] for key in keys] for name in (method, other))
            means = zip(one.seed_distances, another.seed_distances) if measure == "distance_px" else ()
            compared_pairs.append(
                compare(method, other, *values)._replace(
                    over_seeds=tuple(mean - mean_other for mean, mean_other in means)
                )
            )
    return compared_pairs


def comparison_rows(
    compared: Sequence[Comparison], unit: str = "px", digits: int = 3
) -> list[tuple[str, ...]]:
    """The comparisons as a table of text: headings, then a row for each."""
    return [(f"Difference ({unit})", *HEADINGS), *(_cells(comparison, digits) for comparison in compared)]


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
