"""report.html: one self-contained page with tables, figures, definitions and configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath, write_json, write_text
from tfmetareg.methods import definition, label
from tfmetareg.report.curves import mean_curves, read_seed_stages
from tfmetareg.report.goals import goal_rows, goals
from tfmetareg.report.markup import data_uri, render
from tfmetareg.report.pair_scores import (
    ACCURACIES,
    Measure,
    misleading,
    misleading_rows,
    misleading_warnings,
    spread_rows,
    spreads,
)
from tfmetareg.report.pictures import Pictures, draw_pictures, palette
from tfmetareg.report.results import Result, prepared_otherwise, read_json_object, read_results
from tfmetareg.report.shots import read_shots, shot_rows, shots_record
from tfmetareg.report.statistics import comparison_rows, comparisons
from tfmetareg.report.tables import (
    MAX_LABELS,
    build_table,
    label_rows,
    markdown_rows,
    to_csv,
    to_markdown,
    to_record,
)

NO_LANDMARKS = "Without landmarks there is no distance; image similarity (NCC) stands in for accuracy."
SPREAD = (
    "{name} after registration, over the pairs, each pair's mean over the seeds if there are several. "
    "Quartiles: first … third. Worst pair: its value and name. Made worse: pairs that were better before "
    "registration."
)
INSTEAD = " There are neither landmarks nor labels: this is similarity, which stands in for accuracy."
MISLEADING = (
    "Pairs whose images became more alike while landmarks or labels came to agree less, worst of each method "
    "first: what similarity alone would not tell."
)
GOALS = "What the comparison set out to show; beside it the paper's values."
DIFFERENCES = (
    "Landmark distance of the first method less that of the second, pair by pair, each pair's mean over the "
    "seeds; below zero the first is better. Interval: bootstrap over the test pairs. p: Wilcoxon's "
    "signed-rank test."
)
LOSSES = (
    "The same of the loss of Eq. (1), which is what training brings down; below zero the first is better."
)
SHOTS = (
    "Landmark distance in pixels (mean ± standard deviation) after fine-tuning on so many pairs, equally "
    "many gradient steps each."
)
LABELS = (
    "Over the pairs that have the label in either image, after registration (mean ± standard deviation): "
    "Dice, 95 % Hausdorff distance (HD95), average symmetric surface distance (ASSD). Lost: pairs in which "
    "both images have the label and the warped image no more; they have no distance, and Dice 0. At most "
    f"{MAX_LABELS} labels, those of the most pairs; results/*.json holds all."
)
COMPARED = {"task": "task", "split": "split", "pairs": "number of pairs", "landmarks": "number of landmarks"}


class PageTable(NamedTuple):
    """A text table of the page.

    Attributes:
        title, text: heading and explanation.
        rows: headings first.
        methods: of each row behind the headings, for its colour; empty for rows of no single method.
    """

    title: str
    text: str
    rows: Sequence[Sequence[str]]
    methods: Sequence[str] = ()


class PageTables(NamedTuple):
    """The tables below the first one: of single pairs, and of comparisons."""

    pairs: list[PageTable]
    comparisons: list[PageTable]


def write_report(workdir: StrPath) -> Path:
    """Writes <workdir>/figures/*.png, <workdir>/tables and <workdir>/report.html from the files of `workdir`.

    Returns:
        Path of report.html.

    Raises:
        UserError: there are no results, or one of the files is damaged.
    """
    workdir = Path(workdir)
    results = read_results(workdir)
    if not results:
        raise UserError(
            f"{workdir / 'results'} holds no results; make them with "
            f"`python train.py --mode evaluate --workdir {workdir}`"
        )
    pictures = draw_pictures(workdir, results)
    tables = write_tables(workdir, results)
    page = workdir / "report.html"
    write_text(page, render_page(workdir, results, pictures, tables))
    return page


def write_tables(workdir: StrPath, results: Sequence[Result]) -> PageTables:
    """Writes the tables into <workdir>/tables; returns those that the page shows below the first one.

    table.md, .csv and .json hold the table of results; pairs.md and .json what single pairs say;
    statistics.md and .json the paired comparisons and the goals; shots.json the distance over the number of
    fine-tuning pairs. Files without content are not written.
    """
    workdir = Path(workdir)
    folder, table = workdir / "tables", build_table(results)
    compared, losses = comparisons(results), comparisons(results, measure="loss")
    points, few = read_shots(workdir)
    aims = goals(results, [*compared, *few], mean_curves(read_seed_stages(workdir, results)))
    left_out = _read_run_card(workdir).get("left_out", {})
    for name in ("pairs.md", "pairs.json", "statistics.md", "statistics.json", "shots.json"):
        (folder / name).unlink(missing_ok=True)  # They may be of earlier results.
    write_text(folder / "table.md", to_markdown(table) + "".join(f"\n{note}\n" for note in _notes(left_out)))
    write_text(folder / "table.csv", to_csv(table))
    write_json(folder / "table.json", {"schema": 1, "rows": to_record(table), "left_out": left_out})
    page_tables = [
        PageTable("Goals", GOALS, goal_rows(aims)),
        PageTable("Labels", LABELS, *label_rows(results)),
        PageTable("Paired differences", DIFFERENCES, comparison_rows(compared)),
        PageTable("Paired differences of the loss", LOSSES, comparison_rows(losses, "loss", 4)),
        PageTable("With few pairs", SHOTS, shot_rows(points)),
        PageTable("With few pairs: paired differences", DIFFERENCES, comparison_rows(few)),
    ]
    shown = [page_table for page_table in page_tables if len(page_table.rows) > 1]
    if compared or losses or aims:
        record = {
            "schema": 1,
            "comparisons": [comparison._asdict() for comparison in compared],
            "loss_comparisons": [comparison._asdict() for comparison in losses],
            "goals": [goal._asdict() for goal in aims],
        }
        write_json(folder / "statistics.json", record)
    if points:
        write_json(folder / "shots.json", shots_record(points, few))
    if shown:
        write_text(folder / "statistics.md", "\n".join(map(_table_markdown, shown)))
    return PageTables(_write_pair_tables(folder, results), shown)


def _write_pair_tables(folder: Path, results: Sequence[Result]) -> list[PageTable]:
    """Writes pairs.md and pairs.json, if there are scores of single pairs; returns their tables."""
    found, misled = spreads(results), misleading(results)
    tables = [
        PageTable(
            f"{_sentence(measure.name)}: spread over the pairs",
            SPREAD.format(name=_sentence(measure.name)) + ("" if measure in ACCURACIES else INSTEAD),
            spread_rows(measure, own),
            [spread.method for spread in own],
        )
        for measure, own in found
    ]
    rows = misleading_rows(misled)
    if len(rows) > 1:
        methods = [entry.method for entry in misled if entry.pair]
        tables.append(PageTable("More alike, less accurate", MISLEADING, rows, methods))
    if tables:
        write_text(folder / "pairs.md", "\n".join(map(_table_markdown, tables)))
        record = {
            "schema": 1,
            "spread": [spread._asdict() for _, own in found for spread in own],
            "misleading": [
                {"method": entry.method, "pair": entry.pair, **_changed(entry.accuracy, entry.similarity)}
                for entry in misled
            ],
        }
        write_json(folder / "pairs.json", record)
    return tables


def _changed(*measured: tuple[Measure, float, float]) -> dict[str, float]:
    return {
        name: value
        for measure, before, after in measured
        for name, value in ((measure.before, before), (measure.after, after))
    }


def render_page(workdir: StrPath, results: Sequence[Result], pictures: Pictures, tables: PageTables) -> str:
    """The page as HTML without references to other files."""
    workdir = Path(workdir)
    table = build_table(results)
    return render(
        "page.html.j2",
        tasks=_joined(result.task for result in results),
        summary=summary(results),
        warnings=[
            *report_warnings(results),
            *_prepared_otherwise(results),
            *_notes(_read_run_card(workdir).get("left_out", {})),
        ],
        colours=palette(workdir, results),
        table=table,
        table_csv=data_uri("text/csv", to_csv(table).encode()),
        tables=tables,
        pictures=pictures,
        label=label,
        anchors=_anchors(tables, pictures),
        definitions=[(result.method, _definition(result)) for result in results],
        run_card=_read_run_card(workdir),
        configuration=_read_configuration(workdir),
    )


def _anchors(tables: PageTables, pictures: Pictures) -> dict[str, str]:
    """Where each section is, by its title, in their order."""
    titles = [
        "Results",
        *(table.title for table in tables.pairs),
        "Worst, median and best pair",
        *(picture.title for picture in pictures.images if picture.path),
        *(table.title for table in tables.comparisons),
        *["Left out"] * any(not picture.path for picture in pictures.images),
        "How each row was made",
        "Run card",
        "Configuration",
    ]
    return {title: re.sub(r"\W+", "-", title.lower()) for title in titles}


def summary(results: Sequence[Result]) -> list[str]:
    """Sentences that say what was compared, on which pairs, and which method is best."""
    splits, tasks = (_joined(getattr(result, name) for result in results) for name in ("split", "task"))
    methods, pairs = _count(len(results), "method"), _count(results[0].pairs, "image pair")
    sentences = [f"{methods} compared on the {splits} split of {tasks}: {pairs} registered by each."]
    measured = [
        (result.distance_px.mean, result.distance_px.before_mean, result)
        for result in results
        if result.distance_px and result.distance_px.mean is not None
    ]
    if not measured:
        return [*sentences, NO_LANDMARKS]
    _, before, first = measured[0]
    landmarks = first.landmarks
    if landmarks is not None:
        sentences.append(f"Accuracy is measured at {_count(landmarks, 'pair')} of corresponding landmarks.")
    if before is not None:
        sentences.append(
            f"Before registration, corresponding landmarks lie {before:.2f} px apart on average."
        )
    smallest, _, best = min(measured, key=lambda entry: entry[0])
    if len(measured) > 1:
        sentences.append(f"The smallest mean distance is {smallest:.2f} px, by {best.label}.")
    worse = next((one for one in spreads([best])[0][1] if one.made_worse), None)
    if worse:
        sentences.append(f"{best.label} made {worse.made_worse} of {worse.pairs} pairs worse than before.")
    return sentences


def report_warnings(results: Sequence[Result]) -> list[str]:
    """What to know before trusting the numbers, a line each."""
    return [*mismatches(results), *misleading_warnings(results)]


def mismatches(results: Sequence[Result]) -> list[str]:
    """Warnings if the rows were not measured on the same pairs."""
    warnings = []
    for attribute, name in COMPARED.items():
        values = sorted({str(getattr(result, attribute)) for result in results})
        if len(values) > 1:
            warnings.append(
                f"The rows differ in the {name} ({', '.join(values)}): do not compare them directly."
            )
    return warnings


def _prepared_otherwise(results: Sequence[Result]) -> list[str]:
    return [
        f"{result.label}: {prepared_otherwise(result.preprocessing_differs)}"
        for result in results
        if result.preprocessing_differs
    ]


def _notes(left_out: Mapping[str, str]) -> list[str]:
    return [f"Left out: {label(row)}: {why}" for row, why in left_out.items()]


def _table_markdown(table: PageTable) -> str:
    return f"## {table.title}\n\n{table.text}\n\n{markdown_rows(table.rows)}"


def _definition(result: Result) -> str:
    epochs = f" Epochs of fine-tuning: {result.epochs:g}." if result.epochs else ""
    return definition(result.method) + epochs


def _read_run_card(workdir: Path) -> dict[str, Any]:
    path = workdir / "run.json"
    return read_json_object(path) if path.is_file() else {}


def _read_configuration(workdir: Path) -> str:
    path = workdir / "config.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _joined(names: Any) -> str:
    """The distinct names, comma-separated, in their order."""
    return ", ".join(dict.fromkeys(names))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
