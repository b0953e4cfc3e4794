"""CSV files as people really save them, and landmarks in them."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from tfmetareg.errors import UserError


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """A CSV file: column names in lower case, and rows as (line number, cell by column)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: Path) -> CsvTable:
    """Reads a CSV file with a header.

    Byte-order marks, CRLF, semicolons or tabs as separators, spaces around
    names and cells, and empty lines are accepted.

    Raises:
        UserError: no such file, not UTF-8 text, empty; or a line for each
            column named twice and each row of another length than the header.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: empty file; its first line must name the columns.")
    cells = _cells(path, [line for _, line in lines])
    header = tuple(name.strip().lower() for name in cells[0])
    problems = [
        f"{path}: column `{name}` is there twice; keep one."
        for name in dict.fromkeys(header)
        if header.count(name) > 1
    ]
    problems += [
        f"{path}, line {number}: {len(row)} cells where the header has {len(header)}; "
        "give every row one cell per column."
        for (number, _), row in zip(lines[1:], cells[1:])
        if len(row) != len(header)
    ]
    if problems:
        raise UserError("\n".join(problems))
    rows = (
        (number, {name: cell.strip() for name, cell in zip(header, row)})
        for (number, _), row in zip(lines[1:], cells[1:])
    )
    return CsvTable(header, tuple(rows))


def _cells(path: Path, lines: list[str]) -> list[list[str]]:
    separator = next((mark for mark in ";\t" if mark in lines[0]), ",")
    try:
        cells = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error}); save it as CSV in UTF-8.") from None
    if len(cells) != len(lines):
        raise UserError(f"{path}: a quoted cell goes on over the end of its line; close its quotes.")
    return cells


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text, whatever ends them; UserError if it is missing, unreadable or no text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put it there, or correct its name.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it must be a readable file.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it in UTF-8.") from None
    if "\0" in text:
        raise UserError(f"{path}: not text but binary; save it as text in UTF-8.")
    return io.StringIO(text, newline=None).read().split("\n")


def read_landmarks(path: Path, gaps: bool = False) -> np.ndarray:
    """Reads landmarks from a CSV file with the columns `x,y` (column, row) or `row,col`.

    Args:
        path: of the file.
        gaps: lets cells be empty, which become NaN.

    Returns:
        float32 (n, 2), (row, column) in pixels, pixel centres at integers,
        in the file's order. Further columns are ignored.

    Raises:
        UserError: as `read_table`; the header names neither pair of columns or
            both; or a line for each coordinate that is not a finite number.
    """
    table = read_table(path)
    pairs = [
        (first, second)
        for first, second in (("row", "col"), ("y", "x"))
        if {first, second} <= {*table.columns}
    ]
    if len(pairs) != 1:
        raise UserError(
            f"{path}: the first line must be a header with `x,y` (column, row) or `row,col`, "
            f"got `{','.join(table.columns)}`; add one."
        )
    points, problems = [], []
    for number, row in table.rows:
        values = [_coordinate(row[name]) for name in pairs[0]]
        points.append(values)
        problems += [
            f"{path}, line {number}: a coordinate must be a finite number, got `{row[name]}`; correct it."
            for name, value in zip(pairs[0], values)
            if not (np.isfinite(value) or (gaps and not row[name]))
        ]
    if problems:
        raise UserError("\n".join(problems))
    return np.asarray(points, np.float32).reshape(-1, 2)


def check_inside(points: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Refuses landmarks outside the image, whose pixels reach from -0.5 to size - 0.5.

    Raises:
        UserError: `where`, the first point outside and the image's size.
    """
    outside = np.flatnonzero(((points < -0.5) | (points > np.asarray(shape) - 0.5)).any(axis=1))
    if len(outside):
        row, column = points[outside[0]]
        others = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        raise UserError(
            f"{where}: point {outside[0] + 1} (x {column:g}, y {row:g}){others} lies outside the image of "
            f"width {shape[1]} and height {shape[0]}; check units and order of the coordinates."
        )


def _coordinate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
