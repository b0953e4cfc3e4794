"""Goals of the comparison: the value reached, whether it meets the goal, and the paper's value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfmetareg.methods import label
from tfmetareg.report.curves import Lines, epochs_until
from tfmetareg.report.results import Result, read_scores
from tfmetareg.report.statistics import Comparison

# Method, other method, largest ratio of their mean landmark distances, and the paper's ratio.
RATIOS = (
    ("ours_10", "not_deformed", 0.50, 0.50),
    ("ours_10", "fine_tune_10", 0.86, 0.86),
    ("ours_10", "model_seen", 1.00, 0.91),
    ("ours_long", "fine_tune_long", 0.94, 0.94),
)
CURVES = (("ours_10", "fine_tune_10"), ("ours_long", "fine_tune_long"))
SHARE_OF_EPOCHS = 0.4
# Largest ratios of the seconds per pair to those of elastix, with the alignment and for the network alone.
SHARES_OF_TIME = ((1 / 10, "alignment included"), (1 / 50, "the network's own part"))
BETTER = (("ours_10", "matched_10"), ("ours-5", "matched-5"), ("ours-10", "matched-10"))
MET = {True: "met", False: "not met", None: "–"}
HEADINGS = ("Goal", "Value", "Met", "Paper")


class Goal(NamedTuple):
    """A goal of the comparison.

    Attributes:
        text: the goal as text.
        value: the value reached as text.
        met: whether the value meets the goal; None if the runs cannot be compared.
        paper: the paper's value; None if it has none.
    """

    text: str
    value: str
    met: bool | None
    paper: float | None = None


def goals(
    results: Sequence[Result], compared: Sequence[Comparison], curves: Mapping[str, Lines]
) -> list[Goal]:
    """The goals that the results can be measured against; empty if there are none.

    Args:
        results: results of the table's rows.
        compared: their paired comparisons, and those with few fine-tuning pairs.
        curves: evaluation lines by stage, as from `curves.mean_curves`.
    """
    distances = {
        result.method: result.distance_px.mean
        for result in results
        if result.distance_px and result.distance_px.mean is not None
    }
    by_method = {result.method: result for result in results}
    return [*_ratios(distances), *_differences(compared), *_epochs(curves), *_against_elastix(by_method)]


def goal_rows(shown: Sequence[Goal]) -> list[tuple[str, ...]]:
    """The goals as a table of text: headings, then a row for each."""
    papers = ["–" if goal.paper is None else f"{goal.paper:.2f}" for goal in shown]
    met = [MET[goal.met] for goal in shown]
    return [HEADINGS, *zip((goal.text for goal in shown), (goal.value for goal in shown), met, papers)]


def _ratios(distances: Mapping[str, float]) -> list[Goal]:
    rows = []
    for one, other, limit, paper in RATIOS:
        if one in distances and distances.get(other):
            share = distances[one] / distances[other]
            text = f"{label(one)} ≤ {limit:.2f} × {label(other)}"
            rows.append(Goal(text, f"{share:.3f}", share <= limit, paper))
    return rows


def _differences(compared: Sequence[Comparison]) -> list[Goal]:
    return [
        Goal(
            f"{label(one.method)} − {label(one.other)}: 95 % interval below 0 px",
            f"{one.low:+.3f} … {one.high:+.3f} px",
            one.high < 0,
        )
        for one in compared
        if (one.method, one.other) in BETTER and one.low is not None and one.high is not None
    ]


def _epochs(curves: Mapping[str, Lines]) -> list[Goal]:
    rows = []
    for stage, other in CURVES:
        epochs = epochs_until(curves, stage, other)
        if epochs is None:
            continue
        text = (
            f"Epochs of {label(stage)} until it stays within {label(other)}'s final distance, "
            f"≤ {SHARE_OF_EPOCHS} of its own"
        )
        rows.append(Goal(text, *_share_of_epochs(*epochs)))
    return rows


def _against_elastix(results: Mapping[str, Result]) -> list[Goal]:
    """Accuracy and speed relative to elastix; empty if elastix has not registered the pairs."""
    if "elastix" not in results:
        return []
    peer, rows = results["elastix"], []
    if "ours_pair" in results:
        ours = results["ours_pair"]
        quartiles = [_quartiles(ours), _quartiles(peer)]
        text = f"{label('ours_pair')} ≤ {label('elastix')}"
        if all(map(len, quartiles)):
            texts = [", ".join(f"{quartile:.2f}" for quartile in own) for own in quartiles]
            met = bool(np.all(quartiles[0] <= quartiles[1]))
            rows.append(
                Goal(f"{text} in every quartile of the distances", f"{' against '.join(texts)} px", met)
            )
        rows += _share_of_time(f"{text} in seconds per pair", ours.seconds_per_pair, peer, 1.0)
    if "ours_10" in results:
        ours = results["ours_10"]
        seconds = ours.seconds_per_pair
        network = None if seconds is None else seconds - (ours.seconds_alignment or 0.0)
        for (share, part), value in zip(SHARES_OF_TIME, (seconds, network)):
            text = f"{label('ours_10')} ≤ 1/{1 / share:.0f} of {label('elastix')}'s seconds per pair, {part}"
            rows += _share_of_time(text, value, peer, share)
    return rows


def _share_of_time(text: str, seconds: float | None, peer: Result, limit: float) -> list[Goal]:
    if seconds is None or not peer.seconds_per_pair:
        return []
    share = seconds / peer.seconds_per_pair
    return [
        Goal(text, f"{share:.3f} ({seconds:.3f} s against {peer.seconds_per_pair:.2f} s)", share <= limit)
    ]


def _quartiles(result: Result) -> np.ndarray:
    """First quartile, median and third quartile of the pairs' distances; empty without distances."""
    distances = [score.distance_px for score in read_scores(result) if score.distance_px is not None]
    return np.percentile(distances, [25, 50, 75]) if distances else np.array([])


def _share_of_epochs(reached: float, own: float) -> tuple[str, bool | None]:
    """The value as text, and whether it meets the goal; None if fine-tuning did not improve the other."""
    if math.isinf(reached):
        return "never", False
    if not own:
        return "not comparable: its start is as near as its end", None
    return f"{reached / own:.2f} (epoch {reached:g} against {own:g})", reached <= SHARE_OF_EPOCHS * own
