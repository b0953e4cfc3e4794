"""`--mode study`: schedules compared on source tasks left out in turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.test_reproduce import changed_files, decided, times
from tfmetareg.cli import main
from tfmetareg.report.results import read_metrics

SCHEDULES = {"plain": {}, "k1": {"reptile.inner_steps": 1, "reptile.meta_steps": 4}}
SMALL = [
    "--model.features=[[4,4],[4,4,4]]",
    "--pretrain.steps=3",
    "--reptile.meta_steps=2",
    "--reptile.inner_steps=2",
    "--reptile.meta_batch_size=2",
    "--finetune.pairs=2",
]


def study(records_root: Path, workdir: Path, *options: str, schedules=SCHEDULES) -> int:
    named = f"--study.schedules={json.dumps(schedules)}"
    return main(
        ["--mode=study", f"--data.root={records_root}", *SMALL, named, *options, f"--workdir={workdir}"]
    )


@pytest.fixture(scope="module")
def whole(records_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "whole"
    assert study(records_root, folder) == 0
    return folder


def outcomes(workdir: Path) -> list[dict]:
    return json.loads((workdir / "tables" / "study.json").read_text())["outcomes"]


def test_every_schedule_is_tried_on_every_task_left_out(whole):
    assert [(one["task"], one["schedule"]) for one in outcomes(whole)] == [
        (f"task_{letter}", schedule) for letter in "abc" for schedule in SCHEDULES
    ]
    assert {one["gradient_steps"] for one in outcomes(whole)} == {8}


def test_the_task_left_out_is_only_adapted_to(whole):
    found = list(whole.glob("task_b-0/*/*/checkpoints/config.json"))
    assert len(found) == 8
    for path in found:
        stage = path.parent.parent
        learnt = decided(stage.parent, stage.name)["data.tasks"]
        assert learnt == (["task_b"] if stage.name.endswith("_10") else ["task_a", "task_c"]), stage


def test_what_schedules_share_is_trained_once(whole):
    stages = sorted(path.parent.name for path in whole.glob("task_a-0/*/*/model.h5"))
    shared, own = ["fine_tune_10", "matched", "matched_10", "pretrain"], ["ours_10", "reptile"]
    assert stages == sorted([*shared, *own, *own])
    (start,) = whole.glob("task_a-0/start-*")
    before = {name: decided(whole / "task_a-0" / name, "reptile") for name in SCHEDULES}
    assert len({content["reptile.init (digest)"] for content in before.values()}) == 1
    assert (start / "pretrain" / "model.h5").is_file()


def test_the_losses_are_those_of_the_stages(whole):
    (one,) = [one for one in outcomes(whole) if (one["task"], one["schedule"]) == ("task_c", "k1")]
    lines = [line for line in read_metrics(whole / "task_c-0" / "k1" / "ours_10") if "test/total" in line]
    assert one["ours"] == {
        "before": lines[0]["test/total"],
        "after": lines[-1]["test/total"],
        "distance": lines[-1]["test/distance_px"],
    }
    assert (lines[0]["step"], lines[-1]["step"]) == (0, 20)
    assert one["ours"] != one["matched"] != one["pretrained"]


def test_a_further_schedule_trains_itself_alone(whole, records_root, capsys):
    before = times(whole)
    further = {**SCHEDULES, "faster": {"reptile.outer_learning_rate": 0.5}}
    assert study(records_root, whole, schedules=further) == 0
    assert changed_files(before, whole) == {
        f"task_{letter}-0/faster/{stage}/model.h5" for letter in "abc" for stage in ("reptile", "ours_10")
    }
    page = (whole / "tables" / "study.md").read_text()
    assert page.strip() in capsys.readouterr().out
    assert "* faster: `reptile.outer_learning_rate=0.5`" in page


def test_a_second_call_trains_nothing_whatever_the_schedules_change(records_root, tmp_path):
    schedules = {"calm": {"finetune.learning_rate": 1e-4}, "steps": {"pretrain.steps": 2}}
    only = "--study.left_out=[task_a]"
    assert study(records_root, tmp_path, only, schedules=schedules) == 0
    before = times(tmp_path)
    assert len(before) == 2 * 6
    assert study(records_root, tmp_path, only, schedules=schedules) == 0
    assert changed_files(before, tmp_path) == set() and not list(tmp_path.rglob("replaced"))


def test_what_diverges_is_a_result(records_root, tmp_path, capsys):
    wild = {"loss.smoothness_weight": 1e6}
    options = [f"--{key}={value}" for key, value in wild.items()] + ["--study.left_out=[task_a]"]
    hot = {"inner_optimizer": "sgd", "inner_learning_rate": 1.0, "inner_steps": 20}
    schedules = {
        "start": {"pretrain.optimizer": "sgd", "pretrain.learning_rate": 1.0, "pretrain.steps": 40},
        "inner": {f"reptile.{key}": value for key, value in hot.items()},
    }
    assert study(records_root, tmp_path, *options, schedules=schedules) == 0
    start, inner = outcomes(tmp_path)
    assert start["ours"] is start["matched"] is start["pretrained"] is None
    assert inner["ours"] is None and inner["pretrained"] is not None
    assert "training diverged at step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "schedules", "message"),
    [
        ([], {}, "`study.schedules` must name one schedule at least"),
        ([], {"a/b": {}}, "`study.schedules` must have plain names"),
        ([], {"start-a": {}}, "that do not begin with `start-`"),
        ([], {"a": {"reptile.inner_steps": None}}, "schedule `a`: `reptile.inner_steps` must have a value"),
        ([], {"a": {"reptile.init": "scratch"}}, "schedule `a`: `reptile.init` must be a key of pretrain"),
        ([], {"a": {"loss.window": 7}}, "schedule `a`: `loss.window` must be a key of pretrain or reptile"),
        (["--study.left_out=[task_a,task_a]"], SCHEDULES, "must name each task once"),
        ([], {"a": {"reptile.innersteps": 3}}, "did you mean `reptile.inner_steps`?"),
        ([], {"a": {"reptile.inner_steps": 0}}, "`reptile.inner_steps`: must be"),
        ([], {"a": {"reptile.meta_batch_size": 3}}, "schedule `a`: `reptile.meta_batch_size` (3) must be at"),
        (["--study.left_out=[target]"], SCHEDULES, "`study.left_out`: `target` is not a source"),
        (["--study.seeds=[1,1]"], SCHEDULES, "`study.seeds` ([1, 1]) must be a number or a list of"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    records_root, tmp_path, capsys, options, schedules, message
):
    assert study(records_root, tmp_path / "run", *options, schedules=schedules) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in error
    assert not (tmp_path / "run").exists()
