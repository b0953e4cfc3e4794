"""The table of a study: means, differences and which schedule comes first."""

from __future__ import annotations

import json

import pytest

from tfmetareg.report.study import (
    AdaptationLoss,
    Outcome,
    distance_rows,
    schedule_rows,
    task_rows,
    write_study,
)


def outcome(schedule: str, task: str, ours: float, matched: float, seed: int = 0) -> Outcome:
    return Outcome(
        schedule,
        task,
        seed,
        60,
        AdaptationLoss(-0.1, ours),
        AdaptationLoss(-0.2, matched),
        AdaptationLoss(-0.15, -0.3),
    )


OUTCOMES = [
    outcome("one", "brain", -0.50, -0.45),
    outcome("one", "eye", -0.40, -0.41),
    outcome("other", "brain", -0.60, -0.45),
    outcome("other", "eye", -0.50, -0.41),
]


def test_the_schedule_that_adapts_best_comes_first_with_its_means():
    _, first, second = schedule_rows(OUTCOMES)
    assert first[:7] == ("other", "60", "-0.1000", "-0.5500", "-0.2000", "-0.4300", "-0.3000")
    assert (first[7], first[9]) == ("-0.1200", "2 of 2")
    assert (second[0], second[7], second[9]) == ("one", "-0.0200", "1 of 2")
    low, high = (float(value) for value in second[8].split(" … "))
    assert (low, high) == pytest.approx((-0.05, 0.01))


def test_a_schedule_that_diverged_once_comes_last_and_has_no_mean():
    failed = OUTCOMES[2]._replace(ours=None)
    rows = schedule_rows([*OUTCOMES[:2], failed, OUTCOMES[3]])
    assert rows[2][:7] == ("other", "60", *["diverged"] * 2, "-0.2000", "-0.4300", "-0.3000")
    assert rows[2][7:] == ("–", "–", "1 of 2")
    assert task_rows([failed, OUTCOMES[3]])[1] == ("other", "–", "-0.0900")


def test_a_single_case_has_no_interval():
    assert schedule_rows(OUTCOMES[:1])[1][8] == "–"


def test_each_task_has_the_mean_of_its_seeds():
    more = [outcome("one", "brain", -0.50, -0.43, seed=1)]
    assert task_rows([*OUTCOMES, *more]) == [
        ("Schedule", "brain", "eye"),
        ("one", "-0.0600", "+0.0100"),
        ("other", "-0.1500", "-0.0900"),
    ]


def test_distances_are_shown_of_the_tasks_that_have_landmarks(tmp_path):
    near, far = OUTCOMES[1], OUTCOMES[1]._replace(seed=1)
    near = near._replace(**{kind: AdaptationLoss(0, 0, 1.0) for kind in ("ours", "matched", "pretrained")})
    far = far._replace(ours=AdaptationLoss(0, 0, 2.0), matched=None, pretrained=AdaptationLoss(0, 0, 4.0))
    assert distance_rows([OUTCOMES[0], near, far]) == [
        ("Schedule", "eye: Ours", "eye: Matched", "eye: Pretrained only"),
        ("one", "1.500", "–", "2.500"),
    ]
    assert "eye: Ours" in write_study(tmp_path, [near, far], {"one": {}})


def test_the_files_hold_what_the_page_says(tmp_path):
    page = write_study(tmp_path, OUTCOMES, {"one": {}, "other": {"reptile.inner_steps": 5}})
    assert (tmp_path / "tables" / "study.md").read_text() == page
    assert "* one: nothing" in page and "* other: `reptile.inner_steps=5`" in page
    record = json.loads((tmp_path / "tables" / "study.json").read_text())
    assert record["outcomes"][2]["ours"] == {"before": -0.1, "after": -0.6, "distance": None}
    assert "Landmark distance" not in page
    assert "over 2 cases" in page and "seeds" not in page.split("\n\n")[1]
