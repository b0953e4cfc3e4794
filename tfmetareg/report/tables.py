"""The table of results: made once, and written as Markdown, CSV and (by the page's template) HTML."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tfmetareg.files import to_cell
from tfmetareg.methods import label
from tfmetareg.report.results import LabelSummary, MeasureSummary, Result

MISSING = "–"
# Most labels that the table of labels shows.
MAX_LABELS = 12
# Of distances between surfaces, by unit: a pixel may be a thousandth of a millimetre.
_DIGITS = {"px": 2, "mm": 3}
LABEL_HEADINGS = ("Label", "Method", "Pairs", "Dice", "HD95", "ASSD", "Lost")


class Cell(NamedTuple):
    """A table cell: its text, its unrounded numbers, and whether it is the best of its column."""

    text: str
    values: tuple = ()
    best: bool = False


class Column(NamedTuple):
    """A table column.

    Attributes:
        heading: heading in Markdown and HTML.
        csv_names: name in CSV; two names for a mean and its standard deviation.
        cell: makes the cell of a result.
        best: min or max to mark the best value; None if no value is better than another.
        trivial: methods that are not compared, since doing nothing would win (no deformation, no folding).
        optional: leaves the column out if no result has a value.
    """

    heading: str
    csv_names: tuple[str, ...]
    cell: Callable[[Result], Cell]
    best: Callable | None = None
    trivial: frozenset = frozenset()
    optional: bool = False


class ResultTable(NamedTuple):
    """A table of results; the first cell of each row is the method's label."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def _cell(value: float | None, text: Callable[[float], str]) -> Cell:
    return Cell(MISSING if value is None else text(value), (value,))


def _spread_cell(spread: MeasureSummary | None, digits: int) -> Cell:
    if spread is None or spread.mean is None:
        return Cell(MISSING, (None, None))
    std = "" if spread.std is None else f" ± {spread.std:.{digits}f}"
    return Cell(f"{spread.mean:.{digits}f}{std}", (spread.mean, spread.std))


def _surface_cell(name: str, unit: str, result: Result) -> Cell:
    """A distance between the surfaces of labels: in mm where that is known, else in pixels."""
    shown = "px" if getattr(result, f"{name}_mm") is None else "mm"
    return _spread_cell(getattr(result, f"{name}_{unit}") if unit == shown else None, _DIGITS[unit])


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
    *(
        Column(
            f"{name.upper()} ({unit})",
            (f"{name}_{unit}_mean", f"{name}_{unit}_std"),
            functools.partial(_surface_cell, name, unit),
            min,
            optional=True,
        )
        for name in ("hd95", "assd")
        for unit in ("px", "mm")
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
    """Makes the table with one row per result, in the given order."""
    cells = {column: _cells(column, results) for column in COLUMNS}
    shown = [
        column
        for column in COLUMNS
        if not column.optional or any(cell.values[0] is not None for cell in cells[column])
    ]
    return ResultTable(tuple(shown), tuple(zip(*(cells[column] for column in shown))))


def to_markdown(table: ResultTable) -> str:
    """The table as Markdown with aligned columns and the best values in bold; ends with a newline."""
    body = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    head = [column.heading for column in table.columns]
    widths = [max(map(len, texts)) for texts in zip(head, *body)]
    return "".join(_markdown_line(texts, widths) for texts in (head, _rule(widths), *body))


def to_csv(table: ResultTable) -> str:
    """The table as CSV with unrounded numbers; missing numbers are empty cells."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in column.csv_names])
    for row in table.rows:
        writer.writerow([_csv_value(value) for cell in row for value in cell.values])
    return stream.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, str):
        return to_cell(value)
    return "" if value is None else value


def to_record(table: ResultTable) -> list[dict[str, Any]]:
    """The table for JSON: the unrounded values of each row by CSV name."""
    names = [name for column in table.columns for name in column.csv_names]
    return [dict(zip(names, (value for cell in row for value in cell.values))) for row in table.rows]


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, headings first, as a Markdown table with aligned columns; ends with a newline."""
    head, *body = [[_escaped(text) for text in row] for row in rows]
    widths = [max(map(len, texts)) for texts in zip(head, *body)]
    return "".join(_markdown_line(texts, widths) for texts in (head, _rule(widths), *body))


def label_rows(results: Sequence[Result]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The measures of each label as a table of text: headings, then a row per label and method.

    Of more than `MAX_LABELS` labels, those that most pairs have.

    Returns:
        The rows, and the method of each row behind the headings.
    """
    pairs = {name: one.pairs for result in results for name, one in result.labels.items()}
    shown = sorted(sorted(pairs, key=lambda name: (-pairs[name], int(name)))[:MAX_LABELS], key=int)
    found = [(name, result) for name in shown for result in results if name in result.labels]
    rows = [(name, label(result.method), *_label_cells(result.labels[name])) for name, result in found]
    return [LABEL_HEADINGS, *rows], [result.method for _, result in found]


def _label_cells(one: LabelSummary) -> tuple[str, ...]:
    unit = "px" if one.measures["hd95_mm"] is None else "mm"
    surface = (_spread_cell(one.measures[f"{name}_{unit}"], _DIGITS[unit]).text for name in ("hd95", "assd"))
    cells = (text if text == MISSING else f"{text} {unit}" for text in surface)
    return (str(one.pairs), _spread_cell(one.measures["dice"], 3).text, *cells, str(one.lost))


def _cells(column: Column, results: Sequence[Result]) -> list[Cell]:
    """The column's cells, one per result, with the best marked."""
    cells = [column.cell(result) for result in results]
    best = _best_rows(column, cells, results)
    return [cell._replace(best=index in best) for index, cell in enumerate(cells)]


def _best_rows(column: Column, cells: Sequence[Cell], results: Sequence[Result]) -> list[int]:
    """Indices of the rows that show the best value; empty if all compared rows show the same."""
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
    text = _escaped(cell.text)
    return f"**{text}**" if cell.best else text


def _escaped(text: str) -> str:
    """The text on one line, with a backslash ahead of what Markdown takes for markup in a table."""
    return re.sub(r"([\\|<`*\[])", r"\\\1", " ".join(text.split()))


def _rule(widths: Sequence[int]) -> list[str]:
    return ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]


def _markdown_line(texts: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(texts, widths)
    return f"| {first[0]:<{first[1]}} | " + " | ".join(f"{text:>{width}}" for text, width in others) + " |\n"
