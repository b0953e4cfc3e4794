"""Landmark distance after adaptation as a function of the number of fine-tuning pairs, for each start."""

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


class ShotPoint(NamedTuple):
    """Landmark distance on the test pairs after fine-tuning on a number of pairs, in pixels.

    Attributes:
        start: start weights that were fine-tuned.
        pairs: number of fine-tuning pairs.
        distance, std: mean and standard deviation over the test pairs (and seeds).
        over_seeds: mean of each seed; empty for a single seed.
    """

    start: str
    pairs: int
    distance: float
    std: float | None
    over_seeds: tuple[float, ...]


def read_shots(workdir: StrPath) -> tuple[list[ShotPoint], list[Comparison]]:
    """Reads <workdir>/shots: the points of the curves, and the comparisons of Ours with the other starts.

    Both are empty if the work directory has no such results, or no landmarks.
    """
    results = read_results(Path(workdir, "shots"))
    points = sorted(filter(None, map(_point, results)), key=lambda p: (_ORDER.index(p.start), p.pairs))
    counts = sorted({point.pairs for point in points})
    compared = [
        (f"ours-{pairs}", f"{other}-{pairs}") for pairs in counts for other in ("fine_tune", "matched")
    ]
    return points, comparisons(results, compared)


def shot_rows(points: Sequence[ShotPoint]) -> list[tuple[str, ...]]:
    """The points as a table of text: headings, then a row for each number of pairs."""
    starts = list(dict.fromkeys(point.start for point in points))
    by_place = {(point.start, point.pairs): point for point in points}
    rows = [("Pairs", *(_LABELS[start] for start in starts))]
    for pairs in sorted({point.pairs for point in points}):
        row = [by_place.get((start, pairs)) for start in starts]
        rows.append((str(pairs), *(_cell(point) for point in row)))
    return rows


def shots_record(points: Sequence[ShotPoint], compared: Sequence[Comparison]) -> dict[str, Any]:
    """Content of `tables/shots.json`."""
    return {
        "schema": 1,
        "points": [point._asdict() for point in points],
        "comparisons": [comparison._asdict() for comparison in compared],
    }


def _point(result: Result) -> ShotPoint | None:
    start, _, pairs = result.method.rpartition("-")
    spread = result.distance_px
    if start not in _LABELS or not re.fullmatch(r"\d+", pairs) or spread is None or spread.mean is None:
        return None
    return ShotPoint(start, int(pairs), spread.mean, spread.std, result.seed_distances)


def _cell(point: ShotPoint | None) -> str:
    if point is None:
        return "–"
    return f"{point.distance:.2f}" + (f" ± {point.std:.2f}" if point.std is not None else "")
