"""CSV tables, tolerant of how programs save them."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from pathlib import Path
from typing import Optional

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.names import why_missing

# The line with which programs tell Excel the separator, with the empty cells that Excel may add to it.
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(\\t|.)"?\1*\s*', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """A CSV file: column names in lower case, and rows as (line number, cell by column)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: Path, problems: Optional[Problems] = None) -> CsvTable:
    """Reads a CSV file with a header.

    Byte-order marks, CRLF, semicolons or tabs as separators, a first line `sep=;` that names another one (as
    Excel reads it), spaces around names and cells, and empty lines are accepted.

    Args:
        path: of the file.
        problems: collects rows whose length differs from the header's, which are then left out; None refuses
            a table with such rows.

    Raises:
        UserError: the file is missing, not UTF-8 text or empty; or a line for
            each duplicate column and each row whose length differs from the header's.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    named = _SEPARATOR_LINE.fullmatch(lines[0][1]) if lines else None
    if named:
        del lines[0]
    if not lines:
        raise UserError(f"{path}: empty file; its first line must name the columns.")
    cells = _cells(path, [line for _, line in lines], named and named[1].replace("\\t", "\t"))
    header = tuple(name.strip().lower() for name in cells[0])
    twice = [
        f"{path}: column `{name}` is there twice; keep one."
        for name in dict.fromkeys(header)
        if header.count(name) > 1
    ]
    wrong = [
        f"{path}, line {number}: {len(row)} cells where the header has {len(header)}; "
        "give every row one cell per column."
        for (number, _), row in zip(lines[1:], cells[1:])
        if len(row) != len(header)
    ]
    if twice or (wrong and problems is None):
        raise UserError("\n".join(twice + wrong))
    if problems is not None:
        for line in wrong:
            problems.add(line)
    rows = (
        (number, {name: cell.strip() for name, cell in zip(header, row)})
        for (number, _), row in zip(lines[1:], cells[1:])
        if len(row) == len(header)
    )
    return CsvTable(header, tuple(rows))


def _cells(path: Path, lines: list[str], separator: Optional[str]) -> list[list[str]]:
    separator = separator or next((mark for mark in ";\t" if mark in lines[0]), ",")
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
        raise UserError(f"{path}: {why_missing(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it must be a readable file.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it in UTF-8.") from None
    if "\0" in text:
        raise UserError(f"{path}: not text but binary; save it as text in UTF-8.")
    return io.StringIO(text, newline=None).read().split("\n")
