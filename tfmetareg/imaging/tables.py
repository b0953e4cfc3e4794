"""CSV tables, tolerant of how programs save them, and landmarks in them."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.geometry.frame import inside_image


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
        UserError: the file is missing, not UTF-8 text or empty; or a line for
            each duplicate column and each row whose length differs from the header's.
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
    """Reads the lines of a UTF-8 text with any line endings.

    Raises:
        UserError: the file is missing, unreadable or not text.
    """
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

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "points.csv").write_text("x,y\\n3.5,7\\n")
    ...     read_landmarks(Path(folder, "points.csv")).tolist()
    [[7.0, 3.5]]

    Args:
        path: of the file.
        gaps: allows empty cells, which become NaN.

    Returns:
        float32 (n, 2), (row, column) in pixels, pixel centres at integers,
        in the file's order. Other columns are ignored.

    Raises:
        UserError: as `read_table`; the header has neither or both pairs of
            columns; or a line for each coordinate that is not a finite number.
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


def write_points(path: Path, points: np.ndarray, origins: dict[str, np.ndarray]) -> None:
    """Writes points with the columns `x,y`, and `<name>_x,<name>_y` for where they came from.

    Args:
        path: of the CSV file.
        points: (n, 2), (row, column); NaN becomes an empty cell.
        origins: (n, 2) each, row i of one where row i of `points` came from, by the name of its image.
    """
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", *(f"{name}_{axis}" for name in origins for axis in "xy")])
        for row in np.hstack([points[:, ::-1], *(origin[:, ::-1] for origin in origins.values())]):
            cells = [f"{value:.4f}" for value in row[:2]] + [f"{value:g}" for value in row[2:]]
            writer.writerow("" if cell == "nan" else cell for cell in cells)


def check_inside(points: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Refuses landmarks outside the image, see `inside_image`.

    Args:
        points: (n, 2), (row, column), pixels.
        shape: (height, width) of the image.
        where: name of the landmarks in the error.

    Raises:
        UserError: a point lies outside.
    """
    outside = np.flatnonzero(~inside_image(points, shape))
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
