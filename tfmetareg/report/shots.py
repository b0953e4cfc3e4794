"""Distance after adaptation over the number of fine-tuning pairs, from each start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmetareg.files import StrPath
from tfmetareg.methods import STARTS
from tfmetareg.report.results import Result, read_results
from tfmetareg.report.statistics import Comparison, comparisons

_LABELS = {start.kind: start.label for start in STARTS}
_ORDER = list(_LABELS)


class Point(NamedTuple):
    """Mean landmark distance on the test pairs after fine-tuning on so many pairs, in pixels.

    Attributes:
        start, pairs: what was fine-tuned, and on how many pairs.
        distance, std: mean and standard deviation over test pairs (and seeds).
        over_seeds: the mean of every seed; empty where there is but one.
    """

    start: str
    pairs: int
    distance: float
    std: float | None
    over_seeds: tuple[float, ...]


def read_shots(workdir: StrPath) -> tuple[list[Point], list[Comparison]]:
    """Points of the curves, in the order of the starts and of the pairs, and Ours against the others.

    Both are empty where the work directory has no shots, or no landmarks.
    """
    results = read_results(Path(workdir, "shots"))
    points = sorted(filter(None, map(_point, results)), key=lambda p: (_ORDER.index(p.start), p.pairs))
    counts = sorted({point.pairs for point in points})
    compared = [
        (f"ours-{pairs}", f"{other}-{pairs}") for pairs in counts for other in ("fine_tune", "matched")
    ]
    return points, comparisons(results, compared)


def shot_rows(points: Sequence[Point]) -> list[tuple[str, ...]]:
    """The points as a table of text, headings first: a row for every number of pairs."""
    starts = list(dict.fromkeys(point.start for point in points))
    found = {(point.start, point.pairs): point for point in points}
    rows = [("Pairs", *(_LABELS[start] for start in starts))]
    for pairs in sorted({point.pairs for point in points}):
        row = [found.get((start, pairs)) for start in starts]
        rows.append((str(pairs), *(_cell(point) for point in row)))
    return rows


def shots_record(points: Sequence[Point], found: Sequence[Comparison]) -> dict[str, Any]:
    """What `tables/shots.json` holds."""
    return {
        "schema": 1,
        "points": [point._asdict() for point in points],
        "comparisons": [comparison._asdict() for comparison in found],
    }


def _point(result: Result) -> Point | None:
    start, _, pairs = result.method.rpartition("-")
    spread = result.distance_px
    if start not in _LABELS or not re.fullmatch(r"\d+", pairs) or spread is None or spread.mean is None:
        return None
    return Point(start, int(pairs), spread.mean, spread.std, result.seed_distances)


def _cell(point: Point | None) -> str:
    if point is None:
        return "–"
    return f"{point.distance:.2f}" + (f" ± {point.std:.2f}" if point.std is not None else "")
