"""The table `pairs.csv`, and the image pairs that its rows name."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.read import read_image
from tfmetareg.imaging.tables import CsvTable, check_inside, read_landmarks, read_table
from tfmetareg.imaging.volumes import slice_spacing
from tfmetareg.types import ImagePair, no_landmarks

TABLE = "pairs.csv"
REQUIRED_COLUMNS = ("moving", "fixed")
_COLUMNS = (
    *REQUIRED_COLUMNS,
    "task",
    "subject",
    "split",
    "moving_landmarks",
    "fixed_landmarks",
    "moving_spacing",
    "fixed_spacing",
)

# Cell by column.
Row = dict[str, str]


def listed_pairs(path: Path, problems: Problems) -> list[tuple[str, Row]]:
    """Reads the rows of a `pairs.csv`.

    Args:
        path: of the table.
        problems: collects rows with mistakes: a pair listed twice, or files outside the table's folder.

    Returns:
        The other rows, each with its place in the file for error messages: (where, row).

    Raises:
        UserError: the table cannot be read, or its columns are wrong.
    """
    table = read_table(path)
    _check_columns(path, table)
    return _checked_rows(path, table, problems)


def _check_columns(path: Path, table: CsvTable) -> None:
    problems = [
        f"column `{name}` is missing; the first line must name `moving` and `fixed`, "
        f"got `{','.join(table.columns)}`."
        for name in REQUIRED_COLUMNS
        if name not in table.columns
    ]
    for name in table.columns:
        if name not in _COLUMNS:
            near = difflib.get_close_matches(name, _COLUMNS, 1)
            hint = f"did you mean `{near[0]}`?" if near else "remove it."
            problems.append(f"unknown column `{name}`; {hint} Known columns: {', '.join(_COLUMNS)}.")
    for name in ("landmarks", "spacing"):
        if (f"moving_{name}" in table.columns) != (f"fixed_{name}" in table.columns):
            problems.append(f"`moving_{name}` and `fixed_{name}` go together; add the missing column.")
    if not table.rows:
        problems.append("no pairs; add a row for each pair below the header.")
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))


def _checked_rows(path: Path, table: CsvTable, problems: Problems) -> list[tuple[str, Row]]:
    checked = []
    seen: dict[tuple[str, ...], str] = {}
    for number, row in table.rows:
        mistakes = list(_row_mistakes(row))
        files = [os.path.realpath(path.parent / row[name]) for name in REQUIRED_COLUMNS]
        if not mistakes and files[0] == files[1]:
            mistakes.append(f"`{row['moving']}` is both the moving and the fixed image; name two images.")
        first = seen.setdefault((row.get("task", ""), *files), f"line {number}")
        if not mistakes and first != f"line {number}":
            mistakes.append(f"the same pair as in {first}; remove one of the two.")
        for mistake in mistakes:
            problems.add(f"{path}, line {number}: {mistake}")
        if not mistakes:
            checked.append((f"{path}, line {number}", row))
    return checked


def _row_mistakes(row: Row) -> Iterator[str]:
    """Mistakes that a row has by itself."""
    for name in REQUIRED_COLUMNS:
        if not row[name]:
            yield f"`{name}` is empty; name an image file."
    if bool(row.get("moving_landmarks")) != bool(row.get("fixed_landmarks")):
        yield "landmarks for one image only; name both files or neither."
    for name in (*REQUIRED_COLUMNS, "moving_landmarks", "fixed_landmarks"):
        path = os.path.normpath(row.get(name) or ".")
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
            yield f"`{row[name]}` leads out of the folder; copy or link the file into it."


def read_pair(
    root: Path, where: str, row: Row, subject: str, colour: str, problems: Problems
) -> Optional[ImagePair]:
    """Reads the pair of a row.

    Args:
        root: folder that the row's paths are relative to.
        where: place of the row, as `listed_pairs` returns it.
        row: cell by column.
        subject: subject of the pair.
        colour: as for `read_image`.
        problems: collects all mistakes in the pair.

    Returns:
        The pair; None if it has mistakes.
    """
    key = f"{row['moving']}:{row['fixed']}"
    values: dict[str, Any] = {}
    for name in REQUIRED_COLUMNS:
        with problems.collected():
            values[name] = read_image(root / row[name], colour)
        with problems.collected():
            values[f"{name}_landmarks"] = _landmarks(root, row, name)
        with problems.collected():
            given = _spacing(where, row.get(f"{name}_spacing", ""))
            values[f"{name}_spacing"] = given or slice_spacing(root / row[name])
    if len(values) < 6 or not _landmarks_fit(root, row, values, problems):
        return None
    return ImagePair(key=key, subject=subject, split=row.get("split", "").lower() or None, **values)


def _landmarks_fit(root: Path, row: Row, values: dict[str, Any], problems: Problems) -> bool:
    """Whether the landmarks lie in their images and match in number; mistakes are reported."""
    before = len(problems.lines)
    files = {name: root / row.get(f"{name}_landmarks", "") for name in REQUIRED_COLUMNS}
    points = {name: values[f"{name}_landmarks"] for name in REQUIRED_COLUMNS}
    for name in REQUIRED_COLUMNS:
        with problems.collected():
            check_inside(points[name], values[name].shape, str(files[name]))
    if len(points["moving"]) != len(points["fixed"]):
        problems.add(
            f"{files['fixed']}: {len(points['fixed'])} landmarks, "
            f"{files['moving']} has {len(points['moving'])}; row i of one must match row i of the other."
        )
    return len(problems.lines) == before


def _landmarks(root: Path, row: Row, name: str) -> np.ndarray:
    file = row.get(f"{name}_landmarks")
    return read_landmarks(root / file) if file else no_landmarks()


def _spacing(where: str, text: str) -> Optional[tuple[float, float]]:
    """Parses "0.5", "0.5 0.4" or "0.5x0.4" as (row, column) in mm; None for an empty text."""
    if not text:
        return None
    try:
        values = [float(part) for part in re.split(r"\s*x\s*|\s+", text.lower())]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0 < value < np.inf for value in values):
        raise UserError(
            f"{where}: spacing must be a number above 0, or row and column as `0.5x0.4`, in mm, "
            f"got `{text}`; correct it."
        )
    return values[0], values[-1]
