"""What the scores of single pairs say that a mean hides: spread, worst pair, pairs made worse."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from tfmetareg.methods import label
from tfmetareg.report.results import Result, read_scores

HEADINGS = ("Before", "Mean ± SD", "Median", "Quartiles", "Worst", "Made worse", "Worst pair")
MISLEADING_HEADINGS = ("Method", "Pair", "Accuracy", "Similarity")
# Most pairs that a list of misleading pairs names.
MAX_LISTED = 20


class Measure(NamedTuple):
    """A measure of each pair before and after registration.

    Attributes:
        name: within a sentence.
        before, after: attributes of a `PairScore`.
        unit: with a space ahead of it; empty for none.
        digits: behind the point.
        lower_is_better: False where higher is.
        rounding: a change below this is none.
    """

    name: str
    before: str
    after: str
    unit: str = ""
    digits: int = 3
    lower_is_better: bool = False
    rounding: float = 0.0005

    def loss(self, value: float) -> float:
        """The value, or its negative: lower is better."""
        return value if self.lower_is_better else -value

    def gain(self, before: float, after: float) -> float:
        """By how much registration made it better; below zero, worse."""
        return self.loss(before) - self.loss(after)

    def values(self, score: Any) -> tuple[float, float] | None:
        """Before and after registration; None if the pair lacks one of them."""
        before, after = getattr(score, self.before), getattr(score, self.after)
        return None if before is None or after is None else (before, after)

    def better(self, before: float, after: float) -> bool:
        """Whether registration made it better, by more than rounding."""
        return self.gain(before, after) > self.rounding

    def worse(self, before: float, after: float) -> bool:
        """Whether registration made it worse, by more than rounding."""
        return self.gain(before, after) < -self.rounding

    def text(self, value: float) -> str:
        """The value with its unit."""
        return f"{value:.{self.digits}f}{self.unit}"

    def change(self, before: float, after: float) -> str:
        """Name and values, for instance "landmark distance 3.20 → 4.61 px"."""
        return f"{self.name} {before:.{self.digits}f} → {self.text(after)}"


ACCURACIES = (
    Measure("landmark distance", "distance_before_px", "distance_px", " px", 2, True, 0.005),
    Measure("Dice", "dice_before", "dice"),
)
# Of both images: what training raises, and what is not accuracy.
SIMILARITIES = (Measure("NCC", "ncc_before", "ncc"), Measure("local NCC", "local_ncc_before", "local_ncc"))
# Stands in for accuracy where there are neither landmarks nor labels.
STAND_IN = SIMILARITIES[1]


class Spread(NamedTuple):
    """A measure after registration over the pairs of one result that have it.

    Attributes:
        method: name of the result.
        measure: attribute of `PairScore`.
        pairs: their number.
        before_mean: mean over them before registration.
        mean, std, first_quartile, median, third_quartile: over the pairs.
        worst: the worst value, and `worst_pair` the name of its pair.
        made_worse: number of pairs that were better before registration.
    """

    method: str
    measure: str
    pairs: int
    before_mean: float
    mean: float
    std: float
    first_quartile: float
    median: float
    third_quartile: float
    worst: float
    worst_pair: str
    made_worse: int


class Misleading(NamedTuple):
    """A pair, or with an empty name the mean of all, that became more similar and less accurate.

    Attributes:
        method: name of the result.
        pair: name of the pair.
        accuracy, similarity: the measure, and its values before and after registration.
    """

    method: str
    pair: str
    accuracy: tuple[Measure, float, float]
    similarity: tuple[Measure, float, float]


def measures_of(scores: Sequence[Any]) -> list[Measure]:
    """The measures of accuracy that the pairs have; else the similarity that stands in for it.

    Args:
        scores: of single pairs, with the attributes of `PairScore`.
    """
    known = [measure for measure in ACCURACIES if any(map(measure.values, scores))]
    return known or [STAND_IN] * any(map(STAND_IN.values, scores))


def ranked(scores: Sequence[Any], when: str = "after") -> list[int]:
    """Indices of the pairs that have the first measure of `measures_of`, worst first.

    Args:
        scores: of single pairs.
        when: "before" or "after" registration.
    """
    for measure in measures_of(scores)[:1]:
        losses = {
            index: measure.loss(values[when == "after"])
            for index, score in enumerate(scores)
            if (values := measure.values(score))
        }
        return sorted(losses, key=lambda index: (-losses[index], index))
    return []


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` places among `count` ranks, first and last among them.

    >>> evenly(74, 3), evenly(2, 3), evenly(5, 1)
    ([0, 36, 73], [0, 1], [0])
    """
    return [*dict.fromkeys(np.linspace(0, count - 1, min(count, wanted)).astype(int).tolist())]


def pairs_to_show(scores: Sequence[Any], count: int) -> list[int]:
    """Indices of the pairs whose images figures need: from the worst to the best, evenly.

    They are chosen twice: after registration, which shows what this method makes of them, and before it,
    which gives every method the same ones.
    """
    orders = [ranked(scores, when) for when in ("after", "before")]
    return [*dict.fromkeys(order[place] for order in orders for place in evenly(len(order), count))]


def spreads(results: Sequence[Result]) -> list[tuple[Measure, list[Spread]]]:
    """The spread of every measure that a result has, by measure."""
    scores = {result.method: read_scores(result) for result in results}
    measures = measures_of([score for own in scores.values() for score in own])
    return [
        (measure, [spread for method, own in scores.items() for spread in _spread(method, measure, own)])
        for measure in measures
    ]


def spread_rows(measure: Measure, found: Sequence[Spread]) -> list[tuple[str, ...]]:
    """The spreads of a measure as a table of text: headings, then a row for each."""
    digits = measure.digits
    rows: list[tuple[str, ...]] = [("Method", "Pairs", *HEADINGS)]
    for one in found:
        share = "" if not one.made_worse else f" ({one.made_worse / one.pairs:.0%})".replace("%", " %")
        rows.append((
            label(one.method),
            str(one.pairs),
            f"{one.before_mean:.{digits}f}",
            f"{one.mean:.{digits}f} ± {one.std:.{digits}f}",
            f"{one.median:.{digits}f}",
            f"{one.first_quartile:.{digits}f} … {one.third_quartile:.{digits}f}",
            f"{one.worst:.{digits}f}",
            f"{one.made_worse} of {one.pairs}{share}",
            one.worst_pair,
        ))  # fmt: skip
    return rows


def misleading(results: Sequence[Result]) -> list[Misleading]:
    """Where similarity rose and accuracy fell: means over the pairs first, then single pairs, worst first."""
    return [entry for result in results for entry in _misleading(result.method, read_scores(result))]


def misleading_rows(entries: Sequence[Misleading]) -> list[tuple[str, ...]]:
    """The single pairs as a table of text: headings, then a row for each, at most MAX_LISTED."""
    pairs = [entry for entry in entries if entry.pair]
    rows = [
        (label(one.method), one.pair, _change(one.accuracy), _change(one.similarity))
        for one in pairs[:MAX_LISTED]
    ]
    further = [(f"and {len(pairs) - MAX_LISTED} more", "", "", "")] * (len(pairs) > MAX_LISTED)
    return [MISLEADING_HEADINGS, *rows, *further]


def misleading_warnings(results: Sequence[Result]) -> list[str]:
    """A line for each method and measure whose similarity must not be taken for accuracy."""
    lines = []
    for result in results:
        entries = _misleading(result.method, read_scores(result))
        for measure in dict.fromkeys(entry.accuracy[0] for entry in entries):
            own = [entry for entry in entries if entry.accuracy[0] == measure]
            lines.append(f"{result.label}: {_warning(own, result.pairs)}")
    return lines


def _warning(entries: Sequence[Misleading], pairs: int) -> str:
    whole = [entry for entry in entries if not entry.pair]
    single = [entry for entry in entries if entry.pair]
    parts = [
        f"on average the images became more alike ({_change(one.similarity)}) and less accurate "
        f"({_change(one.accuracy)})"
        for one in whole
    ]
    if single:
        worst = single[0]
        parts.append(
            f"{len(single)} of {pairs} pairs became more alike and less accurate, most of all {worst.pair} "
            f"({_change(worst.similarity)}; {_change(worst.accuracy)})"
        )
    return "; ".join(parts) + ". Do not take similarity for accuracy here."


def _change(measured: tuple[Measure, float, float]) -> str:
    measure, before, after = measured
    return measure.change(before, after)


def _spread(method: str, measure: Measure, scores: Sequence[Any]) -> list[Spread]:
    """The spread over the pairs that have the measure; empty if none has."""
    measured = [(score.key, *values) for score in scores if (values := measure.values(score))]
    if not measured:
        return []
    before, after = (np.array([entry[place] for entry in measured]) for place in (1, 2))
    first, median, third = np.percentile(after, [25, 50, 75]).tolist()
    key, _, worst = max(measured, key=lambda entry: measure.loss(entry[2]))
    made_worse = sum(measure.worse(*values) for _, *values in measured)
    return [
        Spread(
            method=method,
            measure=measure.after,
            pairs=len(measured),
            before_mean=float(before.mean()),
            mean=float(after.mean()),
            std=float(after.std()),
            first_quartile=first,
            median=median,
            third_quartile=third,
            worst=worst,
            worst_pair=key,
            made_worse=made_worse,
        )
    ]


def _misleading(method: str, scores: Sequence[Any]) -> list[Misleading]:
    """Those of one result: the mean over its pairs first, then single pairs, worst first."""
    entries = []
    for accuracy in ACCURACIES:
        measured = [score for score in scores if accuracy.values(score)]
        found = [entry for score in measured if (entry := _judged(method, score.key, accuracy, score))]
        found.sort(key=lambda entry: accuracy.gain(*entry.accuracy[1:]))
        whole = _judged(method, "", accuracy, _mean(measured)) if measured else None
        entries += [*([whole] if whole else []), *found]
    return entries


def _judged(method: str, pair: str, accuracy: Measure, score: Any) -> Misleading | None:
    """The entry of a pair that became more similar and less accurate; None for any other."""
    values = accuracy.values(score)
    if values is None or not accuracy.worse(*values):
        return None
    for similarity in SIMILARITIES:
        similar = similarity.values(score)
        if similar and similarity.better(*similar):
            return Misleading(method, pair, (accuracy, *values), (similarity, *similar))
    return None


def _mean(scores: Sequence[Any]) -> SimpleNamespace:
    """The mean score of pairs, of all measures that every pair has."""
    names = [name for one in (*ACCURACIES, *SIMILARITIES) for name in (one.before, one.after)]
    columns = {name: [getattr(score, name) for score in scores] for name in names}
    return SimpleNamespace(**{
        name: None if None in values else float(np.mean(values)) for name, values in columns.items()
    })  # fmt: skip
