"""The table of results: one model, written as Markdown, CSV or (in the page's template) HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tfmetareg.report.results import Result, Spread

MISSING = "–"


class Cell(NamedTuple):
    """A cell: the text shown, the numbers behind it and whether it is the best of its column."""

    text: str
    values: tuple = ()
    best: bool = False


class Column(NamedTuple):
    """A column: its heading, its names in CSV, what it shows and which value is the best.

    Attributes:
        csv_names: one name, or two where a standard deviation belongs to the value.
        cell: a result's cell.
        best: min, max or None where no value is better than another.
        trivial: methods that do nothing and would win for it (no deformation folds nowhere).
        optional: whether it is left out where no result has a value.
    """

    heading: str
    csv_names: tuple[str, ...]
    cell: Callable[[Result], Cell]
    best: Callable | None = None
    trivial: frozenset = frozenset()
    optional: bool = False


class ResultTable(NamedTuple):
    """Columns and rows; the first cell of a row is the method's label."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def _cell(value: float | None, text: Callable[[float], str]) -> Cell:
    return Cell(MISSING if value is None else text(value), (value,))


def _spread_cell(spread: Spread | None, digits: int) -> Cell:
    if spread is None or spread.mean is None:
        return Cell(MISSING, (None, None))
    std = "" if spread.std is None else f" ± {spread.std:.{digits}f}"
    return Cell(f"{spread.mean:.{digits}f}{std}", (spread.mean, spread.std))


def _percent(value: float) -> str:
    return "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def _milliseconds_cell(seconds: float | None) -> Cell:
    milliseconds = None if seconds is None else 1e3 * seconds
    return _cell(milliseconds, lambda value: f"{value:.0f}" if value >= 100 else f"{value:.1f}")


COLUMNS = (
    Column("Method", ("method",), lambda result: Cell(result.label, (result.method,))),
    Column("Epochs", ("epochs",), lambda result: _cell(result.epochs, "{:g}".format)),
    Column(
        "Distance (px)",
        ("distance_px_mean", "distance_px_std"),
        lambda result: _spread_cell(result.distance_px, 2),
        min,
    ),
    Column(
        "Distance (mm)",
        ("distance_mm_mean", "distance_mm_std"),
        lambda result: _spread_cell(result.distance_mm, 2),
        min,
        optional=True,
    ),
    Column("NCC", ("ncc_mean", "ncc_std"), lambda result: _spread_cell(result.ncc, 3), max),
    Column(
        "Local NCC", ("local_ncc_mean",), lambda result: _cell(result.local_ncc.mean, "{:.3f}".format), max
    ),
    Column(
        "Dice", ("dice_mean", "dice_std"), lambda result: _spread_cell(result.dice, 3), max, optional=True
    ),
    Column(
        "Folding (%)",
        ("folding_percent_mean",),
        lambda result: _cell(result.folding_percent, _percent),
        min,
        frozenset({"not_deformed", "affine"}),
    ),
    Column(
        "ms/pair",
        ("ms_per_pair",),
        lambda result: _milliseconds_cell(result.seconds_per_pair),
        min,
        frozenset({"not_deformed"}),
    ),
    Column(
        "of it alignment",
        ("ms_per_pair_alignment",),
        lambda result: _milliseconds_cell(result.seconds_alignment),
        optional=True,
    ),
)


def build_table(results: Sequence[Result]) -> ResultTable:
    """Makes the table with one row per result, in the order given."""
    cells = {column: _cells(column, results) for column in COLUMNS}
    shown = [
        column
        for column in COLUMNS
        if not column.optional or any(cell.values[0] is not None for cell in cells[column])
    ]
    return ResultTable(tuple(shown), tuple(zip(*(cells[column] for column in shown))))


def to_markdown(table: ResultTable) -> str:
    """Renders the table as Markdown with aligned columns, the best values bold; ends with a newline."""
    body = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    head = [column.heading for column in table.columns]
    widths = [max(map(len, texts)) for texts in zip(head, *body)]
    return "".join(_markdown_line(texts, widths) for texts in (head, _rule(widths), *body))


def to_csv(table: ResultTable) -> str:
    """Renders the table as CSV with unrounded numbers and empty cells where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in column.csv_names])
    for row in table.rows:
        writer.writerow(["" if value is None else value for cell in row for value in cell.values])
    return stream.getvalue()


def to_record(table: ResultTable) -> list[dict[str, Any]]:
    """The table for JSON: every row's unrounded values by their name in CSV."""
    names = [name for column in table.columns for name in column.csv_names]
    return [dict(zip(names, (value for cell in row for value in cell.values))) for row in table.rows]


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, headings first, as a Markdown table with aligned columns; ends with a newline."""
    head, *body = [[text.replace("|", "\\|") for text in row] for row in rows]
    widths = [max(map(len, texts)) for texts in zip(head, *body)]
    return "".join(_markdown_line(texts, widths) for texts in (head, _rule(widths), *body))


def _cells(column: Column, results: Sequence[Result]) -> list[Cell]:
    """The column's cell of each result, the best marked."""
    cells = [column.cell(result) for result in results]
    best = _best_rows(column, cells, results)
    return [cell._replace(best=index in best) for index, cell in enumerate(cells)]


def _best_rows(column: Column, cells: Sequence[Cell], results: Sequence[Result]) -> list[int]:
    """Rows with the best value as shown; none where all show the same or only one takes part."""
    if column.best is None:
        return []
    shown = {
        index: cell.text.split(" ±")[0]
        for index, cell in enumerate(cells)
        if cell.values[0] is not None and results[index].method not in column.trivial
    }
    if len(set(shown.values())) < 2:
        return []
    winner = column.best(shown, key=lambda index: cells[index].values[0])
    return [index for index, text in shown.items() if text == shown[winner]]


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace("\\", "\\\\").replace("|", "\\|")
    return f"**{text}**" if cell.best else text


def _rule(widths: Sequence[int]) -> list[str]:
    return ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]


def _markdown_line(texts: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(texts, widths)
    return f"| {first[0]:<{first[1]}} | " + " | ".join(f"{text:>{width}}" for text, width in others) + " |\n"
