"""What a comparison plans, and what of it is outdated."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tfmetareg.config import Config, DataOptions, ModelOptions, ReproduceOptions, ReptileOptions
from tfmetareg.errors import UserError
from tfmetareg.experiments import measurement
from tfmetareg.experiments.measurement import Measurement
from tfmetareg.experiments.plan import execute, outdated, plan, set_aside
from tfmetareg.experiments.rows import comparison_stages, row_measurements
from tfmetareg.experiments.shots import kept_shots, shot_counts, shot_measurements
from tfmetareg.files import write_json
from tfmetareg.methods import METHOD_NAMES, METHODS
from tfmetareg.modes.stage import Stage
from tfmetareg.modes.workdir import Workdir, open_workdir


@pytest.fixture
def workdir(records_root, tmp_path) -> Workdir:
    config = Config(
        data=DataOptions(root=str(records_root)),
        model=ModelOptions(features=[[4, 4], [4, 4, 4]]),
        reproduce=ReproduceOptions(shots=[2, "all", 100], long_epochs=12, pair_steps=7),
        deterministic=False,
    )
    return open_workdir(config, tmp_path / "work")


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Names of what is measured, in place of measuring it."""
    names = []

    def evaluate(workdir, options):
        names.append(options.method)
        write_json(workdir.path / "results" / f"{options.method}.json", {"method": options.method})

    monkeypatch.setattr(measurement, "evaluate", evaluate)
    return names


def names(planned) -> list[str]:
    return [f"train {job.name}" if isinstance(job, Stage) else f"measure {job.method}" for job in planned]


def test_stages_come_before_the_rows_that_need_them_each_once(workdir):
    rows = row_measurements(workdir)
    planned = plan([rows[name] for name in ("not_deformed", "ours_10", "transfer", "matched_long")])
    assert names(planned) == [
        "measure not_deformed",
        "train pretrain",
        "train reptile",
        "train ours_10",
        "measure ours_10",
        "measure transfer",
        "train matched",
        "train matched_long",
        "measure matched_long",
    ]
    assert not workdir.path.exists()


def test_a_meta_training_from_random_weights_needs_no_pretraining(workdir):
    config = dataclasses.replace(workdir.config, reptile=ReptileOptions(init="scratch"))
    rows = row_measurements(dataclasses.replace(workdir, config=config))
    assert names(plan([rows["ours_pair"]])) == ["train reptile", "measure ours_pair"]


def test_every_row_has_its_measurement_and_its_stage(workdir):
    rows, stages = row_measurements(workdir), comparison_stages(workdir)
    assert tuple(rows) == METHOD_NAMES
    for method in METHODS:
        row = rows[method.name]
        assert row.stage == (stages[method.weights] if method.trained else None)
        assert row.options.adapt_steps == (7 if method.name == "ours_pair" else 0)
    epochs = {name: stage.options.epochs for name, stage in stages.items() if stage.section == "finetune"}
    assert epochs == {
        **dict.fromkeys(["fine_tune_10", "ours_10", "matched_10"], 10),
        **dict.fromkeys(["fine_tune_long", "ours_long", "matched_long"], 12),
    }
    assert set(stages) - set(epochs) == {"pretrain", "reptile", "matched", "model_seen", "model_unseen"}


def test_shots_start_from_the_stages_of_the_rows(workdir):
    shots = shot_measurements(workdir)
    assert [shot.method for shot in shots] == [
        f"{kind}-{pairs}" for pairs in (2, 8) for kind in ("ours", "fine_tune", "matched", "scratch")
    ]
    planned = names(plan(shots[:1]))
    assert planned == ["train pretrain", "train reptile", "train ours-2", "measure ours-2"]
    assert shots[0].stage.options.init == str(workdir.path / "reptile" / "model.h5")
    assert shots[3].stage.options.init == "scratch" and shots[3].stage.start is None
    # Ten epochs of the eight pairs of the split, for every number of pairs.
    assert {shot.stage.total_steps for shot in shots} == {80}
    assert shot_counts([100, 5, "all", 2, 8], 8) == [2, 5, 8]


def test_a_measurement_is_made_once_and_again_when_its_options_change(workdir, measured):
    row = row_measurements(workdir)["not_deformed"]
    assert not row.is_current()
    assert execute([row, row]) == {}
    assert measured == ["not_deformed"] and row.is_current()
    kept = json.loads(row.result.read_text())
    assert (kept["seed"], kept["depends_on"]) == (0, row.depends_on())
    config = dataclasses.replace(
        workdir.config, evaluate=dataclasses.replace(workdir.config.evaluate, examples=2)
    )
    other = row_measurements(dataclasses.replace(workdir, config=config))["not_deformed"]
    assert not other.is_current()
    other.make()
    assert measured == ["not_deformed", "not_deformed"] and other.is_current() and not row.is_current()


def test_a_row_whose_stage_is_not_finished_is_not_current(workdir, measured):
    row = row_measurements(workdir)["transfer"]
    write_json(row.result, {"depends_on": "abc"})
    assert not row.is_current()
    assert outdated([], [row]).measurements == [row]


def test_an_optional_row_that_cannot_be_made_is_left_out(workdir, monkeypatch, capsys):
    def refuse(workdir, options):
        raise UserError(f"no {options.method}")

    monkeypatch.setattr(measurement, "evaluate", refuse)
    rows = row_measurements(workdir)
    assert execute([rows["syn"], rows["affine"]]) == {"syn": "no syn", "affine": "no affine"}
    assert "syn: left out, no syn" in capsys.readouterr().err
    with pytest.raises(UserError, match="no not_deformed"):
        execute([rows["not_deformed"]])


def test_what_is_outdated_is_found_without_moving_it_and_then_set_aside(workdir, measured, capsys):
    rows = row_measurements(workdir)
    execute([rows["not_deformed"], rows["affine"]])
    write_json(rows["syn"].result, {"depends_on": "of another configuration"})
    shots = workdir.path / "shots"
    write_json(shots / "ours-3" / "checkpoints" / "config.json", {"seed": 5})
    write_json(shots / "results" / "ours-3.json", {"depends_on": "of another configuration"})
    write_json(shots / "results" / "mine-3.json", {})

    kept = kept_shots(workdir)
    assert [shot.method for shot in kept] == ["ours-3"]
    found = outdated([shot.stage for shot in kept], [*rows.values(), *kept])
    assert [stage.name for stage in found.stages] == ["ours-3"]
    assert [one.method for one in found.measurements] == ["syn", "ours-3"]
    assert (shots / "ours-3").is_dir() and rows["syn"].result.is_file()

    set_aside(found)
    assert (shots / "replaced" / "ours-3-1").is_dir()
    assert (shots / "replaced" / "results-1" / "ours-3.json").is_file()
    assert (workdir.path / "replaced" / "results-1" / "syn.json").is_file()
    assert rows["affine"].result.is_file() and (shots / "results" / "mine-3.json").is_file()
    assert "syn: not of this configuration, moved to" in capsys.readouterr().err
    assert outdated([shot.stage for shot in kept], [*rows.values(), *kept]) == ([], [])


def test_a_row_without_a_network_is_taken_from_another_seed(workdir, measured, tmp_path):
    result = {"method": "affine", "mean": 3}
    first, second = (
        row_measurements(
            dataclasses.replace(
                workdir,
                path=tmp_path / f"seed-{seed}",
                config=dataclasses.replace(workdir.config, seed=seed),
            )
        )["affine"]
        for seed in (0, 1)
    )
    write_json(first.result, {**result, "depends_on": first.depends_on(), "seed": 0})
    for suffix in (".csv", ".examples.npz"):
        first.result.with_suffix(suffix).write_text(suffix)
    second.make()
    assert measured == []
    assert json.loads(second.result.read_text()) == {
        **result,
        "seed": 1,
        "depends_on": first.depends_on(),
    }
    assert second.result.with_suffix(".csv").read_text() == ".csv"
    assert isinstance(second, Measurement)
