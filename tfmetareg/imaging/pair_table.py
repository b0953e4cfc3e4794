"""The table `pairs.csv`, and the image pairs that its rows name."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, Optional

import numpy as np

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.direction import pair_notes, turn_to_fixed
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.labels import open_labels
from tfmetareg.imaging.landmark_files import LandmarkFile, read_landmark_file
from tfmetareg.imaging.landmarks import landmark_doubts, points_on
from tfmetareg.imaging.names import name_on_disk
from tfmetareg.imaging.read import open_image
from tfmetareg.imaging.tables import CsvTable, read_table
from tfmetareg.types import ImagePair, Note, no_landmarks

TABLE = "pairs.csv"
REQUIRED_COLUMNS = ("moving", "fixed")
# Columns of files: what is read from their cells is the file's name on disk.
_FILE_COLUMNS = (
    *REQUIRED_COLUMNS,
    "moving_landmarks",
    "fixed_landmarks",
    "moving_labels",
    "fixed_labels",
)
_COLUMNS = (
    *_FILE_COLUMNS,
    "task",
    "subject",
    "split",
    "moving_spacing",
    "fixed_spacing",
)
# Cell by column.
Row = dict[str, str]


class OpenedPair(NamedTuple):
    """A pair of images.

    Attributes:
        pair: one channel of each image, with what the table tells of them, and notes on their landmarks.
        moving, fixed: the images themselves.
        moving_labels, fixed_labels: their label maps, if any.
    """

    pair: ImagePair
    moving: Image
    fixed: Image
    moving_labels: Optional[Image] = None
    fixed_labels: Optional[Image] = None

    def in_one_direction(self) -> ImagePair:
        """The pair with its moving image in the fixed image's direction, and the notes on both.

        Raises:
            UserError: the images lie in different planes.
        """
        pair = turn_to_fixed(self.moving, self.fixed).moving(self.pair)
        return dataclasses.replace(pair, notes=(*pair.notes, *pair_notes(self.moving, self.fixed)))


def listed_pairs(path: Path, problems: Problems, *, inside: bool = True) -> list[tuple[str, Row]]:
    """Reads the rows of a `pairs.csv`.

    Args:
        path: of the table.
        problems: collects rows with mistakes: a pair listed twice, or files that may not be named.
        inside: whether all files must lie in the table's folder.

    Returns:
        The other rows, each with its place in the file for error messages: (where, row). Files are named as
        the disk names them, see `name_on_disk`.

    Raises:
        UserError: the table cannot be read, or its columns are wrong.
    """
    before = len(problems.lines)
    table = read_table(path, problems)
    _check_columns(path, table, any_rows=bool(table.rows) or len(problems.lines) > before)
    return _checked_rows(path, table, problems, inside)


def _check_columns(path: Path, table: CsvTable, any_rows: bool) -> None:
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
    if not any_rows:
        problems.append("no pairs; add a row for each pair below the header.")
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))


def _checked_rows(path: Path, table: CsvTable, problems: Problems, inside: bool) -> list[tuple[str, Row]]:
    checked = []
    seen: dict[tuple[str, ...], str] = {}
    for number, written in table.rows:
        names = {name: name_on_disk(path.parent, written.get(name, "")) for name in _FILE_COLUMNS}
        row = {**written, **{name: file for name, file in names.items() if file}}
        mistakes = [*_row_mistakes(row), *(_outside(row) if inside else ())]
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
    if row.get("fixed_labels") and not row.get("moving_labels"):
        yield "`fixed_labels` without `moving_labels`; name both files, or neither."


def _outside(row: Row) -> Iterator[str]:
    """A line for each file outside the table's folder."""
    for name in _FILE_COLUMNS:
        if leads_out(row.get(name, "")):
            yield f"`{row[name]}` leads out of the folder; copy or link the file into it."


def leads_out(name: str) -> bool:
    """Whether a name leads out of the folder that it is relative to.

    >>> [leads_out(name) for name in ("../a.png", "/data/a.png", "C:\\\\a.png", "b/../a.png")]
    [True, True, True, False]
    """
    path = os.path.normpath(name)
    return os.path.isabs(path) or path.split(os.sep)[0] == os.pardir or bool(PureWindowsPath(name).drive)


def read_pair(
    root: Path, where: str, row: Row, subject: str, colour: str, problems: Problems
) -> Optional[OpenedPair]:
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
    images: dict[str, Image] = {}
    labels: dict[str, Optional[Image]] = {}
    values: dict[str, Any] = {}
    for name in REQUIRED_COLUMNS:
        with problems.collected():
            image = open_image(root / row[name])
            values[name] = image.grey(colour)
            images[name] = image
        with problems.collected():
            values[f"{name}_landmarks"] = _landmark_file(root, row, name)
        with problems.collected():
            given = _spacing(where, row.get(f"{name}_spacing", ""))
            values[f"{name}_spacing"] = given or (images[name].spacing if name in images else None)
        with problems.collected():
            labels[f"{name}_labels"] = _labels(root, row, name, images.get(name))
    if len(values) < 6 or len(labels) < 2:
        return None
    notes = _place_landmarks(values, images, problems)
    if notes is None:
        return None
    values.update({name: None if each is None else each.pixels for name, each in labels.items()})
    split = row.get("split", "").lower() or None
    pair = ImagePair(key=key, subject=subject, split=split, notes=notes, **values)
    return OpenedPair(
        pair, images["moving"], images["fixed"], labels["moving_labels"], labels["fixed_labels"]
    )


def _place_landmarks(
    values: dict[str, Any], images: dict[str, Image], problems: Problems
) -> Optional[tuple[Note, ...]]:
    """Puts points in the place of landmark files.

    Returns:
        What is doubtful about them; None where they have mistakes, which are reported.
    """
    files = {name: values[f"{name}_landmarks"] for name in REQUIRED_COLUMNS}
    if None in files.values():
        values.update({f"{name}_landmarks": no_landmarks() for name in files})
        return ()
    moving, fixed = (files[name] for name in REQUIRED_COLUMNS)
    points = {}
    for name, other in zip(REQUIRED_COLUMNS, reversed(REQUIRED_COLUMNS)):
        with problems.collected():
            points[f"{name}_landmarks"] = points_on(files[name], images[name], images[other])
    if len(moving.coordinates) != len(fixed.coordinates):
        problems.add(
            f"{fixed.path}: {len(fixed.coordinates)} landmarks, {moving.path} has {len(moving.coordinates)}; "
            "row i of one must match row i of the other."
        )
    elif len(points) == 2:
        values.update(points)
        return landmark_doubts(moving, fixed, images["moving"], images["fixed"])
    return None


def _landmark_file(root: Path, row: Row, name: str) -> Optional[LandmarkFile]:
    file = row.get(f"{name}_landmarks")
    return read_landmark_file(root / file) if file else None


def _labels(root: Path, row: Row, name: str, image: Optional[Image]) -> Optional[Image]:
    file = row.get(f"{name}_labels")
    if not file or image is None:  # What is wrong with the image has been reported.
        return None
    return open_labels(root / file, image)


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
