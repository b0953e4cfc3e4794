"""CSV files as people really save them, and landmarks in them."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from tfmetareg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file: column names in lower case, and rows as (line number, cell by column)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: Path) -> Table:
    """Reads a CSV file with a header.

    Byte-order marks, CRLF, semicolons or tabs as separators, spaces around
    names and cells, and empty lines are accepted.

    Raises:
        UserError: no such file, not UTF-8 text, empty, a column named twice,
            or a row of another length than the header.
    """
    lines = [(number, line) for number, line in enumerate(_read_lines(path), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: empty file; its first line must name the columns.")
    separator = next((mark for mark in ";\t" if mark in lines[0][1]), ",")
    cells = list(csv.reader([line for _, line in lines], delimiter=separator, skipinitialspace=True))
    header = tuple(name.strip().lower() for name in cells[0])
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}: column `{name}` is there twice; keep one.")
    rows = []
    for (number, _), row in zip(lines[1:], cells[1:]):
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(row)} cells where the header has {len(header)}; "
                "give every row one cell per column."
            )
        rows.append((number, {name: cell.strip() for name, cell in zip(header, row)}))
    return Table(header, tuple(rows))


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as CSV in UTF-8.") from None
    return io.StringIO(text, newline=None).read().split("\n")


def read_landmarks(path: Path) -> np.ndarray:
    """Reads landmarks from a CSV file with the columns `x,y` (column, row) or `row,col`.

    Returns:
        float32 (n, 2), (row, column) in pixels, pixel centres at integers,
        in the file's order. Further columns are ignored.

    Raises:
        UserError: as `read_table`, or the header names neither pair of
            columns or both, or a coordinate is not a finite number.
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
            f"got `{','.join(table.columns)}`."
        )
    points = [[_coordinate(path, number, row[name]) for name in pairs[0]] for number, row in table.rows]
    return np.asarray(points, np.float32).reshape(-1, 2)


def check_inside(points: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Refuses landmarks outside the image, whose pixels reach from -0.5 to size - 0.5.

    Raises:
        UserError: `where`, the first point outside and the image's size.
    """
    outside = np.flatnonzero(((points < -0.5) | (points > np.asarray(shape) - 0.5)).any(axis=1))
    if len(outside):
        row, column = points[outside[0]]
        raise UserError(
            f"{where}: point {outside[0] + 1} (x {column:g}, y {row:g}) lies outside the image of width "
            f"{shape[1]} and height {shape[0]}; check units and order of the coordinates."
        )


def _coordinate(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{path}, line {number}: a coordinate must be a finite number, got `{text}`.")
    return value
