"""Goals: their values from the results, met or not."""

from __future__ import annotations

import json

import pytest

from tests.unit.tfmetareg.report.workdirs import evaluation_line, write_result
from tfmetareg.report.goals import goal_rows, goals
from tfmetareg.report.page import write_tables
from tfmetareg.report.results import read_results
from tfmetareg.report.shots import read_shots, shot_rows
from tfmetareg.report.statistics import comparisons

DISTANCES = {"not_deformed": 4.0, "fine_tune_10": 2.0, "ours_10": 1.8, "matched_10": 2.0, "model_seen": 1.8}


@pytest.fixture
def results(tmp_path):
    for method, distance in DISTANCES.items():
        write_result(tmp_path, method, distance=distance)
    return read_results(tmp_path)


def test_goals_are_computed_from_the_results(results):
    curves = {
        "ours_10": [evaluation_line(n, n, 4.0 - n) for n in range(11)],
        "fine_tune_10": [
            evaluation_line(n, n, d) for n, d in ((0, 4.0), (2, 1.9), (4, 2.1), (5, 2), (10, 2))
        ],
    }
    rows = goal_rows(goals(results, comparisons(results), curves))[1:]
    assert rows == [
        ("Ours (10) ≤ 0.50 × Not deformed", "0.450", "met", "0.50"),
        ("Ours (10) ≤ 0.86 × Fine-tune (10)", "0.900", "not met", "0.86"),
        ("Ours (10) ≤ 1.00 × Model-Seen", "1.000", "met", "0.91"),
        ("Ours (10) − Matched (10): 95 % interval below 0 px", "-0.200 … -0.200 px", "met", "–"),
        (
            "Epochs of Ours (10) until it stays within Fine-tune (10)'s final distance, ≤ 0.4 of its own",
            "0.40 (epoch 2 against 5)",
            "met",
            "–",
        ),
    ]


def test_a_curve_that_never_gets_there_says_so(results):
    curves = {"ours_10": [evaluation_line(0, 0, 4.0)], "fine_tune_10": [evaluation_line(10, 10, 2.0)]}
    assert goal_rows(goals(results, [], curves))[-1][1:3] == ("never", "not met")


def test_a_curve_that_gets_no_better_than_its_start_is_no_measure(results):
    curves = {"ours_10": [evaluation_line(0, 0, 1.0)], "fine_tune_10": [evaluation_line(0, 0, 2.0)]}
    value, met = goal_rows(goals(results, [], curves))[-1][1:3]
    assert value.startswith("not comparable") and met == "–"


def test_few_pairs_have_goals_of_their_own(tmp_path, results):
    for name, distance in (("ours-5", 1.5), ("matched-5", 2.0), ("ours-10", 2.0), ("matched-10", 1.5)):
        write_result(tmp_path / "shots", name, distance=distance)
    write_tables(tmp_path, results)
    found = json.loads((tmp_path / "tables" / "statistics.json").read_text())["goals"]
    assert [(goal["text"], goal["met"]) for goal in found if "pairs" in goal["text"]] == [
        ("Ours (5 pairs) − Matched (5 pairs): 95 % interval below 0 px", True),
        ("Ours (10 pairs) − Matched (10 pairs): 95 % interval below 0 px", False),
    ]


def test_nothing_is_said_of_what_was_not_measured(tmp_path):
    write_result(tmp_path, "ours_10", distance=None)
    write_result(tmp_path, "not_deformed", distance=None)
    assert goals(read_results(tmp_path), [], {}) == []


def test_elastix_is_what_a_user_would_pick_instead(tmp_path):
    write_result(tmp_path, "ours_pair", distance=1.0, seconds_per_pair={"median": 2.0})
    write_result(tmp_path, "elastix", distance=1.25, seconds_per_pair={"median": 1.6})
    write_result(
        tmp_path, "ours_10", seconds_per_pair={"median": 0.17, "alignment_median": 0.15}, distance=1.0
    )
    rows = goal_rows(goals(read_results(tmp_path), [], {}))[1:]
    assert [row[1:3] for row in rows] == [
        ("0.75, 1.00, 1.25 against 1.00, 1.25, 1.50 px", "met"),
        ("1.250 (2.000 s against 1.60 s)", "not met"),
        ("0.106 (0.170 s against 1.60 s)", "not met"),
        ("0.013 (0.020 s against 1.60 s)", "met"),
    ]
    write_result(tmp_path, "ours_pair", distance=1.26)
    assert goal_rows(goals(read_results(tmp_path), [], {}))[1][2] == "not met"


def test_shots_are_a_row_for_every_number_of_pairs(tmp_path):
    for name, distance in (("ours-5", 1.5), ("ours-10", 1.25), ("matched-5", 2.0), ("mine", 1.0)):
        write_result(tmp_path / "shots", name, distance=distance)
    points, found = read_shots(tmp_path)
    assert [(point.start, point.pairs, point.distance) for point in points] == [
        ("ours", 5, 1.5),
        ("ours", 10, 1.25),
        ("matched", 5, 2.0),
    ]
    assert shot_rows(points) == [
        ("Pairs", "Ours", "Matched"),
        ("5", "1.50 ± 0.50", "2.00 ± 0.50"),
        ("10", "1.25 ± 0.50", "–"),
    ]
    assert [(one.method, one.other, one.difference) for one in found] == [("ours-5", "matched-5", -0.5)]
