"""Stages as values: their state, what is planned, and what training leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FEATURES
from tfmetareg.config import (
    Config,
    DataOptions,
    FinetuneOptions,
    LossOptions,
    ModelOptions,
    PretrainOptions,
    ReptileOptions,
)
from tfmetareg.errors import UserError
from tfmetareg.files import sha256
from tfmetareg.models.weights import load_weights
from tfmetareg.modes import stage as stage_module
from tfmetareg.modes.finetune import FineTuning
from tfmetareg.modes.pretrain import JointTraining, pretraining
from tfmetareg.modes.reptile import gradient_steps, meta_training
from tfmetareg.modes.stage import Stage, State, plan
from tfmetareg.modes.workdir import Workdir, open_workdir, read_card


def configured(records_root: Path, **sections) -> Config:
    small = {
        "data": DataOptions(root=str(records_root)),
        "model": ModelOptions(features=FEATURES),
        "pretrain": PretrainOptions(steps=2),
        "reptile": ReptileOptions(meta_steps=1, meta_batch_size=2, inner_steps=2),
        "finetune": FinetuneOptions(epochs=1, batch_size=4, evaluate_every=0),
    }
    return Config(deterministic=False, **{**small, **sections})


@pytest.fixture
def workdir(records_root, tmp_path) -> Workdir:
    return open_workdir(configured(records_root), tmp_path / "work")


def changed(workdir: Workdir, **sections) -> Workdir:
    """The same work directory under another configuration."""
    return dataclasses.replace(workdir, config=dataclasses.replace(workdir.config, **sections))


def three_stages(workdir: Workdir) -> list[Stage]:
    """Pretraining, meta-training and fine-tuning from there."""
    reptile = meta_training(workdir)
    options = workdir.config.finetune
    return [reptile.start, reptile, FineTuning(workdir, "finetune", options, reptile)]


def states(stages: list[Stage]) -> list[State]:
    return [stage.state() for stage in stages]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_plan_has_each_stage_once_after_its_start_and_does_nothing(workdir):
    pretrain, reptile, finetune = three_stages(workdir)
    matched = JointTraining(workdir, "matched", PretrainOptions(init="pretrain"), pretrain)
    planned = plan([finetune, matched, reptile])
    assert [stage.name for stage in planned] == ["pretrain", "reptile", "finetune", "matched"]
    assert states(planned) == [State.MISSING] * 4
    assert not workdir.path.exists()


def test_what_the_plan_holds_is_trained_and_then_finished(workdir, capsys):
    stages = three_stages(workdir)
    for stage in plan(stages):
        stage.make()
    assert states(stages) == [State.FINISHED] * 3
    assert states(three_stages(workdir)) == [State.FINISHED] * 3
    steps = {name: entry["gradient_steps"] for name, entry in read_card(workdir.path)["stages"].items()}
    assert steps == {"pretrain": 2, "reptile": gradient_steps(workdir.config.reptile), "finetune": 2}

    before, _ = {path: path.stat().st_mtime_ns for path in workdir.path.rglob("*")}, capsys.readouterr()
    for stage in plan(stages):
        stage.make()
    assert {path: path.stat().st_mtime_ns for path in workdir.path.rglob("*")} == before
    assert capsys.readouterr().err.splitlines() == [
        f"{stage.name}: finished already, {workdir.path / stage.name / 'model.h5'}" for stage in stages
    ]


def test_a_stage_starts_from_the_weights_of_its_start(workdir):
    start = pretraining(workdir)
    start.train()
    options = PretrainOptions(steps=0, init="pretrain")
    path = JointTraining(workdir, "further", options, start).train()
    models = [workdir.model() for _ in range(2)]
    for model, file in zip(models, (start.weights, path)):
        load_weights(model, file)
    for one, other in zip(*(model.get_weights() for model in models)):
        np.testing.assert_array_equal(one, other)


def test_another_configuration_makes_a_stage_outdated_with_all_that_start_from_it(workdir):
    for stage in three_stages(workdir):
        stage.train()
    longer = changed(workdir, reptile=dataclasses.replace(workdir.config.reptile, inner_steps=3))
    assert states(three_stages(longer)) == [State.FINISHED, State.OUTDATED, State.OUTDATED]
    loss = changed(workdir, loss=LossOptions(window=7))
    assert states(three_stages(loss)) == [State.OUTDATED] * 3


@pytest.mark.parametrize(
    ("section", "option"),
    [("finetune", {"evaluate_every": 1}), ("finetune", {"name": "other"}), ("model", {"module": ""})],
)
def test_options_without_effect_on_the_weights_leave_a_stage_finished(workdir, section, option):
    three_stages(workdir)[0].train()
    stage = FineTuning(workdir, "finetune", dataclasses.replace(workdir.config.finetune, init="pretrain"))
    stage.train()
    other = changed(workdir, **{section: dataclasses.replace(getattr(workdir.config, section), **option)})
    options = dataclasses.replace(other.config.finetune, init="pretrain")
    assert FineTuning(other, "finetune", options).state() is State.FINISHED


def test_an_interrupted_stage_is_begun_and_can_be_finished(workdir, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    stage = pretraining(workdir)
    monkeypatch.setattr(stage_module, "save_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.train()
    assert stage.state() is State.BEGUN
    assert meta_training(workdir).state() is State.MISSING
    monkeypatch.undo()
    assert stage.train() == stage.weights and stage.state() is State.FINISHED


def test_training_refuses_an_outdated_stage_and_names_what_differs(workdir):
    pretraining(workdir).train()
    longer = changed(workdir, pretrain=PretrainOptions(steps=3))
    before = files(workdir.path)
    with pytest.raises(UserError, match="another configuration .*`pretrain.steps` was 2, is 3"):
        pretraining(longer).train()
    assert files(workdir.path) == before


def test_making_an_outdated_stage_sets_it_aside_first(workdir, capsys):
    pretraining(workdir).train()
    old = sha256(workdir.path / "pretrain" / "model.h5")
    stage = pretraining(changed(workdir, pretrain=PretrainOptions(steps=3)))
    stage.make()
    assert stage.state() is State.FINISHED and sha256(stage.weights) != old
    assert sha256(workdir.path / "replaced" / "pretrain-1" / "model.h5") == old
    assert "pretrain: begun with another configuration, moved to" in capsys.readouterr().err
    assert read_card(workdir.path)["stages"]["pretrain"]["steps"] == 3


def test_a_stage_whose_start_is_gone_is_outdated(workdir):
    stages = three_stages(workdir)
    for stage in stages:
        stage.train()
    stages[1].weights.unlink()
    assert states(stages) == [State.FINISHED, State.BEGUN, State.OUTDATED]
    by_name = FineTuning(workdir, "finetune", workdir.config.finetune)
    assert by_name.state() is State.OUTDATED
    with pytest.raises(UserError, match="run `--mode reptile"):
        by_name.train()


def test_the_fingerprint_is_that_of_earlier_versions(workdir):
    """Keys as revision 129a493 wrote them, so that its work directories are recognised."""
    pretrain = pretraining(workdir)
    pretrain.train()
    options = FinetuneOptions(init=str(pretrain.weights), epochs=3)
    stage = FineTuning(workdir, "mine", options, pretrain, steps=2)
    stage.train()
    kept = json.loads((stage.folder / "checkpoints" / "config.json").read_text())
    assert kept == json.loads(json.dumps(stage.fingerprint()))
    assert set(kept) == {
        *("model.name", "model.features", "model.options", "model.precision"),
        *("loss.window", "loss.smoothness_weight", "loss.similarity"),
        *("finetune.epochs", "finetune.pairs", "finetune.batch_size", "finetune.learning_rate"),
        *("finetune.annealing", "finetune.init", "finetune.init (digest)"),
        *("seed", "deterministic", "data.tasks", "data (digest)", "steps"),
    }
    assert kept["finetune.init"] == "model.h5"
    assert kept["finetune.init (digest)"] == sha256(pretrain.weights)[:16]
    assert kept["data.tasks"] == ["target"] and kept["steps"] == 2
    assert kept["model.options"] == {"convolutions_per_level": 1, "use_probs": False}


def test_a_stage_checks_the_records_before_anything_is_trained(workdir):
    with pytest.raises(UserError, match="holds no source task"):
        pretraining(dataclasses.replace(workdir, sources=())).check()
    with pytest.raises(UserError, match=r"`reptile.meta_batch_size` \(9\) must be at most .* \(3: task_a,"):
        meta_training(changed(workdir, reptile=ReptileOptions(meta_batch_size=9))).check()
    with pytest.raises(UserError, match="holds no target task"):
        FineTuning(dataclasses.replace(workdir, target=""), "finetune", FinetuneOptions()).check()
