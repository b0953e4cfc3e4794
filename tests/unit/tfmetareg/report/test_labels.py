"""Labels in results, tables, figures and pages."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from tests.unit.tfmetareg.report.workdirs import SIZE, write_result
from tfmetareg.errors import UserError
from tfmetareg.methods import colours
from tfmetareg.report import figures
from tfmetareg.report.labels import draw_outlines, outlines
from tfmetareg.report.page import write_report
from tfmetareg.report.pooling import pool_results
from tfmetareg.report.results import read_examples, read_results, read_scores
from tfmetareg.report.tables import build_table, label_rows, to_csv

MEASURES = ("dice", "hd95_px", "hd95_mm", "assd_px", "assd_mm")


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "std": 0.05, "before_mean": 0.5}


def label_entry(dice: float, mm: bool = True, pairs: int = 2, lost: int = 0) -> dict:
    values = {"dice": dice, "hd95_px": 2.5, "hd95_mm": 1.25, "assd_px": 1.0, "assd_mm": 0.5}
    known = {name: spread(value) if mm or "mm" not in name else None for name, value in values.items()}
    return {"pairs": pairs, "lost": lost, **known}


def write_labelled(workdir, method: str, dice: float = 0.8, **changes) -> None:
    """A result whose pairs, example pairs and record have labels 3 and -70000."""
    labels = {"-70000": label_entry(dice), "3": label_entry(dice / 2, mm=False, lost=1)}
    overall = {name: spread(value) for name, value in zip(MEASURES, (dice, 2.5, 1.25, 1.0, 0.5))}
    write_result(workdir, method, **{**overall, "labels": labels, **changes})
    path = workdir / "results" / f"{method}.csv"
    rows = list(csv.DictReader(path.open()))
    with path.open("w", newline="") as stream:
        added = {"dice_before": 0.5, **{name: overall[name]["mean"] for name in MEASURES}}
        for label, share in (("-70000", 1), ("3", 0.5)):
            own = {name: share * overall[name]["mean"] for name in MEASURES}
            added.update({f"label_{label}_{name}": value for name, value in own.items()})
        writer = csv.DictWriter(stream, [*rows[0], *added])
        writer.writeheader()
        for row, change in zip(rows, (-0.1, 0.1)):
            writer.writerow({**row, **{name: value + change for name, value in added.items()}})
    path = path.with_suffix(".examples.npz")
    with np.load(path) as arrays:
        kept = dict(arrays)
    maps = np.zeros((3, SIZE, SIZE), np.int64)
    for index, each in enumerate(maps):
        each[4 + index : 20 + index, 6:20] = -70000
    kept.update(zip((f"{name}_labels_0" for name in ("fixed", "warped", "moving")), maps))
    np.savez(path, **kept)


def test_results_hold_the_measures_of_labels(tmp_path):
    write_labelled(tmp_path, "ours_10")
    write_result(tmp_path, "syn")
    plain, labelled = sorted(read_results(tmp_path), key=lambda result: result.method != "syn")
    assert (labelled.hd95_mm.mean, labelled.assd_px.mean) == (1.25, 1.0)
    assert (labelled.labels["3"].pairs, labelled.labels["3"].lost) == (2, 1)
    assert labelled.labels["3"].measures["hd95_mm"] is None
    assert labelled.labels["-70000"].measures["dice"].mean == 0.8
    assert (plain.dice, plain.hd95_px, plain.labels) == (None, None, {})
    assert [score.dice for score in read_scores(labelled)] == pytest.approx([0.7, 0.9])
    assert [score.dice for score in read_scores(plain)] == [None, None]


def test_a_damaged_entry_of_a_label_names_the_file(tmp_path):
    write_labelled(tmp_path, "ours_10", labels={"3": {"pairs": 2}})
    with pytest.raises(UserError, match=r"ours_10\.json lacks the key"):
        read_results(tmp_path)


def test_example_pairs_have_labels_where_there_are_some(tmp_path):
    write_labelled(tmp_path, "ours_10")
    (result,) = read_results(tmp_path)
    examples = read_examples(result)
    assert examples.fixed_labels[0].shape == (SIZE, SIZE) and examples.fixed_labels[1] is None
    assert (examples.warped_labels[0] != examples.fixed_labels[0]).sum() == 2 * 14
    with np.load(result.examples_path) as arrays:
        kept = dict(arrays)
    np.savez(result.examples_path, **{**kept, "warped_labels_0": np.zeros((3, 3))})
    with pytest.raises(UserError, match=r"`warped_labels_0` must have the shape \(32, 32\), got \(3, 3\)"):
        read_examples(result)


def test_distances_are_shown_in_mm_where_known_else_in_pixels(tmp_path):
    write_labelled(tmp_path, "transfer", hd95_mm=None, assd_mm=None)
    write_labelled(tmp_path, "ours_10")
    table = build_table(read_results(tmp_path))
    rows = [{column.heading: cell.text for column, cell in zip(table.columns, row)} for row in table.rows]
    shown = [[row[f"{name} ({unit})"] for name in ("HD95", "ASSD") for unit in ("px", "mm")] for row in rows]
    assert shown == [["2.50 ± 0.05", "–", "1.00 ± 0.05", "–"], ["–", "1.250 ± 0.050", "–", "0.500 ± 0.050"]]
    head, first, _ = to_csv(table).splitlines()
    values = dict(zip(head.split(","), first.split(",")))
    assert (values["hd95_px_mean"], values["hd95_mm_mean"], values["dice_mean"]) == ("2.5", "", "0.8")


def test_without_labels_there_are_no_such_columns_nor_rows(tmp_path):
    write_result(tmp_path, "ours_10")
    results = read_results(tmp_path)
    assert not any("HD95" in column.heading for column in build_table(results).columns)
    assert len(label_rows(results)[0]) == 1


def test_each_label_has_a_row_for_each_method(tmp_path):
    write_labelled(tmp_path, "transfer", dice=0.6)
    write_labelled(tmp_path, "ours_10")
    write_result(tmp_path, "syn")
    rows, methods = label_rows(read_results(tmp_path))
    assert methods == ["transfer", "ours_10"] * 2
    assert rows[0] == ("Label", "Method", "Pairs", "Dice", "HD95", "ASSD", "Lost")
    assert [row[:2] for row in rows[1:]] == [
        ("-70000", "Transfer"), ("-70000", "Ours (10)"), ("3", "Transfer"), ("3", "Ours (10)"),
    ]  # fmt: skip
    assert rows[2][2:] == ("2", "0.800 ± 0.050", "1.250 ± 0.050 mm", "0.500 ± 0.050 mm", "0")
    assert rows[4][2:] == ("2", "0.400 ± 0.050", "2.50 ± 0.05 px", "1.00 ± 0.05 px", "1")


def test_of_many_labels_those_of_the_most_pairs_are_shown(tmp_path):
    labels = {str(label): label_entry(0.5, pairs=label) for label in range(1, 31)}
    write_labelled(tmp_path, "ours_10", labels=labels)
    assert [int(row[0]) for row in label_rows(read_results(tmp_path))[0][1:]] == list(range(19, 31))


def test_seeds_are_pooled_label_by_label(tmp_path):
    folders = [tmp_path / f"seed-{seed}" for seed in (0, 1)]
    for number, folder in enumerate(folders):
        write_labelled(folder, "ours_10", dice=0.6 + 0.2 * number, seed=number)
    pool_results(folders, tmp_path)
    record = json.loads((tmp_path / "results" / "ours_10.json").read_text())
    label = record["labels"]["-70000"]
    assert (label["pairs"], label["lost"], record["labels"]["3"]["lost"]) == (2, 0, 2)
    assert label["dice"]["mean"] == pytest.approx(0.7)  # of 0.5, 0.7, 0.7, 0.9
    assert label["dice"]["std"] == pytest.approx(np.std([0.5, 0.7, 0.7, 0.9]))
    assert record["labels"]["3"]["hd95_mm"] is None
    assert record["labels"]["3"]["dice"]["mean"] == pytest.approx(0.35)
    assert record["hd95_mm"]["mean"] == pytest.approx(1.25)
    assert record["over_seeds"]["hd95_mm"]["means"] == [1.25, 1.25]
    (result,) = read_results(tmp_path)
    assert [score.dice for score in read_scores(result)] == pytest.approx([0.6, 0.8])


def test_a_measure_that_one_seed_lacks_is_not_pooled(tmp_path):
    folders = [tmp_path / f"seed-{seed}" for seed in (0, 1)]
    for number, folder in enumerate(folders):
        write_labelled(folder, "ours_10", seed=number, **({"hd95_mm": None} if number else {}))
    pool_results(folders, tmp_path)
    (result,) = read_results(tmp_path)
    assert result.assd_mm.mean == pytest.approx(0.5)
    assert "hd95_mm" not in json.loads((tmp_path / "results/ours_10.json").read_text())["over_seeds"]


def test_outlines_are_the_edges_of_the_pixels():
    labels = np.zeros((4, 5), int)
    labels[1, 2] = 7
    labels[1, 3] = 9
    edges = {frozenset(map(tuple, edge)) for edge in outlines(labels).tolist()}
    corners = {(x, y) for edge in edges for x, y in edge}
    assert corners == {(x, y) for x in (1.5, 2.5, 3.5) for y in (0.5, 1.5)}
    assert len(edges) == 7  # of two squares that share a side
    assert len(outlines(np.full((4, 5), 3))) == 0


def drawn(axis) -> list[LineCollection]:
    return [item for item in axis.collections if isinstance(item, LineCollection)]


def test_overlays_outline_the_labels_of_pairs_that_have_some(tmp_path):
    write_labelled(tmp_path, "ours_10")
    (result,) = read_results(tmp_path)
    examples = read_examples(result)
    before, after, *second = figures.figure_overlays({"ours_10": examples}, {"pair0": "a", "pair1": "b"}).axes
    _, fixed, _, warped = drawn(after)[-4:]
    np.testing.assert_array_equal(np.array(fixed.get_segments()), outlines(examples.fixed_labels[0]))
    np.testing.assert_array_equal(np.array(warped.get_segments()), outlines(examples.warped_labels[0]))
    assert fixed.get_color().tolist() != warped.get_color().tolist()
    moving = drawn(before)[-1]
    np.testing.assert_array_equal(np.array(moving.get_segments()), outlines(examples.moving_labels[0]))
    assert len(drawn(second[0])) == len(drawn(after)) - 4  # landmarks alone


def test_outlines_of_one_image_alone_are_drawn():
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    draw_outlines(axis, None, np.eye(3, dtype=int))
    assert [item.get_color()[0].tolist() for item in drawn(axis)] == [[0, 0, 0, 1], [1, 176 / 255, 0, 1]]


def test_dice_is_drawn_pair_by_pair():
    values = {"transfer": [0.9, 0.5, 0.7], "ours_10": [0.8, 0.6]}
    (axis,) = figures.figure_dice(values, colours(values)).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Transfer", "Ours (10)"]
    points = [item.get_offsets()[:, 0].tolist() for item in axis.collections if len(item.get_offsets()) > 1]
    assert [sorted(map(float, each)) for each in points] == [[0.5, 0.7, 0.9], [0.6, 0.8]]
    assert axis.get_xlim()[0] == 0


def test_the_page_shows_labels_where_there_are_some(tmp_path):
    write_labelled(tmp_path, "ours_10")
    write_labelled(tmp_path, "transfer", dice=0.6)
    page = write_report(tmp_path).read_text()
    assert (tmp_path / "figures" / "dice.png").is_file()
    for text in (
        "HD95 (mm)",
        "Overlap of the labels of every pair",
        "1.250 ± 0.050 mm",
        "Outlines are labels",
    ):
        assert text in page
    assert "| 3 " in (tmp_path / "tables" / "statistics.md").read_text()
    write_result(tmp_path / "plain", "ours_10")
    plain = write_report(tmp_path / "plain").read_text()
    assert not (tmp_path / "plain" / "figures" / "dice.png").exists()
    assert "Outlines are labels" not in plain and "HD95" not in plain
