"""report.html: one self-contained page with tables, figures, definitions and configuration."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath, write_json, write_text
from tfmetareg.methods import definition, label
from tfmetareg.report import figures
from tfmetareg.report.curves import mean_curves, read_seed_stages
from tfmetareg.report.goals import goal_rows, goals
from tfmetareg.report.results import (
    ExamplePairs,
    Result,
    read_examples,
    read_json_object,
    read_results,
    read_scores,
)
from tfmetareg.report.shots import ShotPoint, read_shots, shot_rows, shots_record
from tfmetareg.report.statistics import comparison_rows, comparisons
from tfmetareg.report.tables import build_table, markdown_rows, to_csv, to_markdown, to_record

TEMPLATE = Path(__file__).with_name("page.html.j2")
NO_LANDMARKS = "Without landmarks there is no distance; image similarity (NCC) stands in for accuracy."
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
COMPARED = {"task": "task", "split": "split", "pairs": "number of pairs", "landmarks": "number of landmarks"}


class PageTable(NamedTuple):
    """A text table of the page: title, explanation, and rows with the headings first."""

    title: str
    text: str
    rows: Sequence[Sequence[str]]


class PageImage(NamedTuple):
    """A figure of the page. Without a file, the text says why the figure is missing."""

    title: str
    text: str
    path: Path | None = None

    @property
    def source(self) -> str:
        """The image as a data URI; empty without a file."""
        return _data_uri("image/png", self.path.read_bytes()) if self.path else ""


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
    pictures = draw_figures(workdir, results)
    lists = write_tables(workdir, results)
    page = workdir / "report.html"
    write_text(page, render_page(workdir, results, pictures, lists))
    return page


def write_tables(workdir: StrPath, results: Sequence[Result]) -> list[PageTable]:
    """Writes the tables into <workdir>/tables; returns those that the page shows below the first one.

    table.md, .csv and .json hold the table of results; statistics.md and .json the paired comparisons and
    the goals; shots.json the distance over the number of fine-tuning pairs. Files without content are not
    written.
    """
    workdir = Path(workdir)
    folder, table = workdir / "tables", build_table(results)
    compared, losses = comparisons(results), comparisons(results, measure="loss")
    points, few = read_shots(workdir)
    aims = goals(results, [*compared, *few], mean_curves(read_seed_stages(workdir, results)))
    left_out = _read_run_card(workdir).get("left_out", {})
    for name in ("statistics.md", "statistics.json", "shots.json"):
        (folder / name).unlink(missing_ok=True)  # They may be of earlier results.
    write_text(folder / "table.md", to_markdown(table) + "".join(f"\n{note}\n" for note in _notes(left_out)))
    write_text(folder / "table.csv", to_csv(table))
    write_json(folder / "table.json", {"schema": 1, "rows": to_record(table), "left_out": left_out})
    page_tables = [
        PageTable("Goals", GOALS, goal_rows(aims)),
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
    return shown


def draw_figures(workdir: StrPath, results: Sequence[Result]) -> list[PageImage]:
    """Writes the figures for which there is data; an image without a path stands for a missing one."""
    folder = Path(workdir, "figures")
    stored = {result.method: read_examples(result) for result in results}
    examples = {method: pairs for method, pairs in stored.items() if pairs is not None and pairs.keys}
    seeds = read_seed_stages(workdir, results)
    shots = [_shots(folder, points) for points in [read_shots(workdir)[0]] if points]
    return [
        _overlays(folder, examples, _of_first(results)),
        _distances(folder, results),
        _curves(folder, mean_curves(seeds), len(seeds)),
        *shots,
        _field(folder, results, examples),
        _training(folder, seeds[0], _of_first(results)),
    ]


def render_page(
    workdir: StrPath, results: Sequence[Result], pictures: Sequence[PageImage], lists: Sequence[PageTable]
) -> str:
    """The page as HTML without references to other files."""
    workdir = Path(workdir)
    table = build_table(results)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        tasks=_joined(result.task for result in results),
        summary=summary(results),
        warnings=[*mismatches(results), *_notes(_read_run_card(workdir).get("left_out", {}))],
        table=table,
        table_csv=_data_uri("text/csv", to_csv(table).encode()),
        lists=lists,
        pictures=pictures,
        definitions=[(result.label, _definition(result)) for result in results],
        run_card=_read_run_card(workdir),
        configuration=_read_configuration(workdir),
    )


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
    return sentences


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


def _of_first(results: Sequence[Result]) -> str:
    """A sentence for figures that show the first of several seeds; empty for a single seed."""
    seeds = next((result.seeds for result in results if len(result.seeds) > 1), ())
    return f" Of the first seed, {seeds[0]}." if seeds else ""


def _overlays(folder: Path, examples: dict[str, ExamplePairs], of_first: str) -> PageImage:
    title = "Registered pairs"
    if not examples or not set.intersection(*(set(pairs.keys) for pairs in examples.values())):
        return PageImage(title, "Left out: the results hold no example pairs that all methods share.")
    text = (
        "Each row is one test pair, each column one method. The warped moving image is magenta, the fixed "
        "image green: where they agree the sum is grey to white, a coloured fringe is an error."
    )
    if any(len(points) for pairs in examples.values() for points in pairs.fixed_landmarks):
        text += (
            f" Rings are landmarks of the fixed image (at most {figures.MAX_LANDMARKS} drawn); a line leads "
            "from each to a dot displaced by the error that remains, to scale: a dot in its middle is "
            "right. The number below is the mean error over all landmarks of the pair, in pixels."
        )
    path = figures.save_figure(figures.figure_overlays(examples), folder / "overlays.png")
    return PageImage(title, text + of_first, path)


def _distances(folder: Path, results: Sequence[Result]) -> PageImage:
    title = "Landmark distance of every pair"
    distances = {
        result.method: [score.distance_px for score in read_scores(result) if score.distance_px is not None]
        for result in results
    }
    distances = {method: values for method, values in distances.items() if values}
    if not distances:
        return PageImage(title, "Left out: no result holds landmark distances of single pairs.")
    text = (
        "One point per test pair: the mean distance of its landmarks after registration, in pixels of the "
        "fixed image; further left is better. Box: quartiles. Black line: median. Whiskers: to the last pair "
        "within 1.5 box lengths."
    )
    path = figures.save_figure(figures.figure_distances(distances), folder / "distances.png")
    return PageImage(title, text, path)


def _curves(folder: Path, shown: dict[str, list[dict[str, Any]]], seeds: int) -> PageImage:
    title = "Fine-tuning curves"
    if not shown:
        return PageImage(title, "Left out: no stage was evaluated on test pairs while it was fine-tuned.")
    text = (
        "Measures of the test pairs while the network is fine-tuned; epoch 0 is the initialisation. Landmark "
        "distance (pixels) and loss are better when lower, NCC (at most 1) when higher."
    )
    if seeds > 1:
        text += f" Lines: mean over {seeds} seeds; bands: from the lowest to the highest of them."
    if not any(line.get("test/distance_px") is not None for lines in shown.values() for line in lines):
        text += " Without landmarks there is no distance to show."
    path = figures.save_figure(figures.figure_curves(shown), folder / "curves.png")
    return PageImage(title, text, path)


def _shots(folder: Path, points: Sequence[ShotPoint]) -> PageImage:
    text = (
        "Mean landmark distance of the test pairs after fine-tuning on so many pairs of the target task, "
        "equally many gradient steps each; the pairs of a smaller number are among those of a larger one."
    )
    if any(point.over_seeds for point in points):
        text += " Bands: from the lowest to the highest mean of the seeds."
    path = figures.save_figure(figures.figure_shots(points), folder / "shots.png")
    return PageImage("Distance over the number of fine-tuning pairs", text, path)


def _field(folder: Path, results: Sequence[Result], examples: dict[str, ExamplePairs]) -> PageImage:
    title = "Deformation of one pair"
    method = figures.field_method(results, examples)
    if not method:
        return PageImage(title, "Left out: the results hold no displacement field.")
    pairs = examples[method]
    text = (
        f"Pair {pairs.keys[0]}, registered by {label(method)}. The orange mesh shows where a regular grid "
        "of the fixed image samples the moving image: warped(x) = moving(x + displacement(x)). Lines that "
        "cross would be folds. Right: length of the displacement in pixels."
    )
    path = figures.save_figure(figures.figure_field(pairs), folder / "field.png")
    return PageImage(title, text + _of_first(results), path)


def _training(folder: Path, stages: dict[str, list[dict[str, Any]]], of_first: str) -> PageImage:
    title = "Training"
    if not any(line.get("total") is not None for lines in stages.values() for line in lines):
        return PageImage(title, "Left out: no stage of this work directory logged its loss.")
    text = (
        "Loss terms (no unit) of every stage over its gradient or meta steps; pale: as logged, "
        "strong: running mean over a twentieth of the stage. Lower is better; total = similarity + weight × "
        "smoothness."
    )
    path = figures.save_figure(figures.figure_training(stages), folder / "training.png")
    return PageImage(title, text + of_first, path)


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


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _joined(names: Any) -> str:
    """The distinct names, comma-separated, in their order."""
    return ", ".join(dict.fromkeys(names))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
