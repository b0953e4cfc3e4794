"""The outer loop, interrupted and not."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from tfmetareg.data.tasks import episodes, mixed_pairs
from tfmetareg.errors import UserError
from tfmetareg.training.checkpoint import Checkpoints, TrainState
from tfmetareg.training.loop import run_loop
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.reptile import reptile_step
from tfmetareg.training.steps import gradient_step

TASKS = ["task_a", "task_b", "task_c"]


class Stage:
    """A training stage over the small records, and what became of it."""

    def __init__(self, kind: str, records, make_model):
        self.model = make_model()
        variables = self.model.trainable_variables
        self.losses, self.traces = [], 0
        inner = build_optimizer("adam", 1e-2, variables)
        inner.epsilon = 1e-3  # With the usual one, a vanishing gradient's rounding becomes a full step.
        if kind == "reptile":
            outer = build_optimizer("sgd", 0.1, variables, annealing="linear", updates=9, momentum=0.9)
            self.optimizers = {"inner": inner, "outer": outer}
            self._step = lambda episode: reptile_step(self.model, inner, outer, registration_loss, episode)
            sizes = {"meta_batch_size": 2, "inner_steps": 3, "batch_size": 2}
            batches = episodes(records, TASKS, **sizes, seed=5, augment=True)
        else:
            self.optimizers = {"optimizer": inner}
            self._step = lambda pair: gradient_step(self.model, inner, registration_loss, pair)._asdict()
            batches = mixed_pairs(records, TASKS, batch_size=2, seed=5, augment=True)
        self.state = TrainState(self.model, self.optimizers, batches)

    def step(self, batch):
        self.traces += 1
        return self._step(batch)

    def log(self, step, metrics):
        self.losses.append((step, float(metrics["total"])))

    def run(self, total_steps, **options):
        run_loop(self.step, self.state, total_steps=total_steps, on_metrics=[self.log], **options)

    def everything(self) -> list[np.ndarray]:
        slots = [
            variable.numpy()
            for name in sorted(self.optimizers)
            for variable in self.optimizers[name].variables()
        ]
        return [variable.numpy() for variable in self.model.variables] + slots + [self.state.step.numpy()]


@pytest.fixture
def make_stage(records, small_model):
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(0)
    yield lambda kind: Stage(kind, records, small_model)
    disable_op_determinism()


@pytest.mark.parametrize("kind", ["reptile", "pretrain"])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(make_stage, tmp_path, kind):
    whole = make_stage(kind)
    whole.run(9)

    parts = []
    for until in (2, 7, 9):
        part = make_stage(kind)
        checkpoints = Checkpoints(tmp_path, {"seed": 5}, every_seconds=0)
        checkpoints.restore(part.state)
        part.run(until, checkpoints=checkpoints)
        parts.append(part)

    assert [step for part in parts for step, _ in part.losses] == list(range(1, 10))
    assert [loss for part in parts for loss in part.losses] == whole.losses
    for one, other in zip(whole.everything(), parts[-1].everything()):
        assert np.array_equal(one, other)


def test_the_step_is_traced_once(make_stage):
    stage = make_stage("reptile")
    stage.run(4)
    assert stage.traces == 1


@pytest.mark.long
def test_a_step_for_an_accelerator_is_one_xla_program_with_the_same_numbers(make_stage):
    disable_op_determinism()  # XLA has no such gradient of max pooling.
    plain, compiled = make_stage("reptile"), make_stage("reptile")
    plain.run(3)
    compiled.run(3, accelerator="CPU:0")
    assert compiled.traces == 1
    np.testing.assert_allclose(
        *[[loss for _, loss in stage.losses] for stage in (plain, compiled)], rtol=1e-5
    )
    for one, other in zip(plain.model.get_weights(), compiled.model.get_weights()):
        np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.long
def test_it_is_xla_that_compiles_for_an_accelerator_and_its_refusal_is_shown(make_stage):
    """XLA has no strings."""
    stage = make_stage("pretrain")

    def by_way_of_a_string(pair):
        return {"total": tf.strings.to_number(tf.strings.as_string(tf.reduce_max(pair.moving)))}

    run_loop(by_way_of_a_string, stage.state, total_steps=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="AsString"):
        run_loop(by_way_of_a_string, stage.state, total_steps=2, accelerator="CPU:0")


def ask_to_stop(stage: Stage, number: int, checkpoints: Checkpoints, **options) -> None:
    """Runs a stage of 9 steps that gets a signal in the third."""

    def on_metrics(step, metrics):
        if step == 3:
            os.kill(os.getpid(), number)

    run_loop(
        stage.step, stage.state, total_steps=9, on_metrics=[on_metrics], checkpoints=checkpoints, **options
    )


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_stop_request_takes_effect_after_the_step_and_is_saved(make_stage, tmp_path, number, raised):
    stage = make_stage("pretrain")
    with pytest.raises(raised):
        ask_to_stop(stage, number, Checkpoints(tmp_path, {}, every_seconds=1000))
    resumed = make_stage("pretrain")
    assert Checkpoints(tmp_path, {}, every_seconds=1000).restore(resumed.state) == 3
    assert all(np.array_equal(a, b) for a, b in zip(stage.everything(), resumed.everything()))


@pytest.mark.long
def test_a_batch_fetched_ahead_for_an_accelerator_is_used_before_stopping(make_stage, tmp_path):
    disable_op_determinism()
    whole, stopped, resumed = (make_stage("pretrain") for _ in range(3))
    whole.run(9, accelerator="CPU:0")
    with pytest.raises(KeyboardInterrupt):
        ask_to_stop(
            stopped, signal.SIGINT, Checkpoints(tmp_path, {}, every_seconds=1000), accelerator="CPU:0"
        )
    assert Checkpoints(tmp_path, {}, every_seconds=1000).restore(resumed.state) == 4
    resumed.run(9, accelerator="CPU:0")
    assert resumed.losses == whole.losses[4:]
    assert all(np.array_equal(a, b) for a, b in zip(whole.everything(), resumed.everything()))


def test_a_checkpoint_of_another_configuration_is_refused_naming_the_keys(make_stage, tmp_path):
    stage = make_stage("pretrain")
    Checkpoints(tmp_path / "stage", {"seed": 5, "loss.window": 9}, every_seconds=0).save(stage.state)
    with pytest.raises(UserError, match="`loss.window` was 9, is 7") as refusal:
        Checkpoints(tmp_path / "stage", {"seed": 5, "loss.window": 7}, every_seconds=0)
    assert "seed" not in str(refusal.value)
    Checkpoints(tmp_path / "stage", {"seed": 5, "loss.window": 9}, every_seconds=0)
