"""A stage of training, as a value: what decides on its weights, what state it is in, and how to train it."""

from __future__ import annotations

import abc
import dataclasses
import enum
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Optional, Union

import tensorflow as tf

from tfmetareg.cache import as_json, digest
from tfmetareg.config import FinetuneOptions, PretrainOptions, ReptileOptions
from tfmetareg.data.records import damage_named
from tfmetareg.device import accelerator, resolve_precision
from tfmetareg.errors import UserError
from tfmetareg.files import sha256
from tfmetareg.imaging.preprocessing_file import write_preprocessing
from tfmetareg.methods import SCRATCH
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.models.weights import load_weights, save_weights
from tfmetareg.modes.workdir import Workdir, numbered
from tfmetareg.training.checkpoint import Checkpoints, TrainState
from tfmetareg.training.log import MetricsLog, TrainingProgress
from tfmetareg.training.loop import OnMetrics, StepFn, run_loop
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import LossFn, gradient_step

StageOptions = Union[PretrainOptions, ReptileOptions, FinetuneOptions]
# Options that do not change the weights of a stage.
_WITHOUT_EFFECT = ("finetune.name", "finetune.evaluate_every", "model.module")


class State(enum.Enum):
    """How far a stage has come."""

    MISSING = "not begun"
    BEGUN = "begun with this configuration"
    FINISHED = "finished with this configuration"
    OUTDATED = "begun with another configuration"


class Training(NamedTuple):
    """The parts of a training run for one model.

    Attributes:
        step_fn: batch -> scalars by name.
        batches: endless, checkpointable.
        optimizers: by name in the checkpoint.
        watch: makes a further callback out of the log of the stage, if there is one.
    """

    step_fn: StepFn
    batches: tf.data.Dataset
    optimizers: dict[str, tf.keras.optimizers.legacy.Optimizer]
    watch: Optional[Callable[[MetricsLog], OnMetrics]] = None


def plain_training(
    model: RegistrationModel,
    loss_fn: LossFn,
    options: Union[PretrainOptions, FinetuneOptions],
    batches: tf.data.Dataset,
    *,
    updates: int,
    optimizer_name: str = "adam",
    watch: Optional[Callable[[MetricsLog], OnMetrics]] = None,
) -> Training:
    """One gradient step on each batch, as in pretraining and fine-tuning."""
    optimizer = build_optimizer(
        optimizer_name,
        options.learning_rate,
        model.trainable_variables,
        annealing=options.annealing,
        updates=updates,
    )
    return Training(
        lambda pair: gradient_step(model, optimizer, loss_fn, pair)._asdict(),
        batches,
        {"optimizer": optimizer},
        watch,
    )


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
    """A stage of training in a work directory, from its start weights to its `model.h5`.

    Attributes:
        workdir: where it lies, with the configuration and the data.
        name: its folder in there.
        options: its schedule, in place of that section of the configuration.
        start: the stage that `options.init` names, if that is to be trained first where it is missing.
    """

    workdir: Workdir
    name: str
    options: StageOptions
    start: Optional[Stage] = None

    section: ClassVar[str]  # of the configuration, for which `options` stand in

    @property
    @abc.abstractmethod
    def tasks(self) -> Sequence[str]:
        """Names of the tasks that it learns from."""

    @property
    @abc.abstractmethod
    def total_steps(self) -> int:
        """Calls of the step function in all."""

    @property
    def gradient_steps(self) -> int:
        """Gradient steps in all, for the run card."""
        return self.total_steps

    @property
    def steps_per_epoch(self) -> Optional[float]:
        """Steps in a pass over the pairs; None for a stage without epochs."""
        return None

    @property
    def further_values(self) -> dict[str, Any]:
        """What decides on the weights beside the configuration, the data and the start weights."""
        return {}

    @abc.abstractmethod
    def check(self) -> None:
        """Refuses what would stop the training, before anything is trained.

        Raises:
            UserError: the records lack what the stage needs.
        """

    @abc.abstractmethod
    def training(self, model: RegistrationModel) -> Training:
        """The parts of its training, for a model with the start weights."""

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.workdir.path / self.name

    @property
    def weights(self) -> Path:
        """The file in which it leaves its weights when it is finished."""
        return self.folder / "model.h5"

    def start_weights(self) -> Optional[Path]:
        """The file of its start weights; None for random ones.

        Raises:
            UserError: `options.init` names no file and no finished stage.
        """
        return None if self.options.init == SCRATCH else self.workdir.weights(self.options.init)

    def fingerprint(self) -> dict[str, Any]:
        """The keys and values that decide on its weights; data and start weights by their content.

        Raises:
            UserError: the start weights are missing or hold no known network.
        """
        start_weights = self.start_weights()
        workdir = self.workdir.with_network_of(start_weights)
        options, section = self.options, self.section
        schedule: dict[str, Any] = {section: options}
        keys = dataclasses.replace(workdir.config, **schedule).flat("model", "loss", section)
        if Path(options.init).suffix == ".h5":
            keys[f"{section}.init"] = Path(options.init).name  # Its content counts, not its place.
        manifest = workdir.records.manifest
        content = [manifest.task(name).describe() for name in self.tasks]
        there = start_weights is not None and start_weights.is_file()
        return {
            **{key: value for key, value in keys.items() if key not in _WITHOUT_EFFECT},
            "model.precision": resolve_precision(workdir.config.model.precision),
            "seed": workdir.config.seed,
            "deterministic": workdir.config.deterministic,
            "data.tasks": list(self.tasks),
            "data (digest)": digest(content, sort_keys=False),
            f"{section}.init (digest)": sha256(start_weights)[:16] if start_weights and there else None,
            **self.further_values,
        }

    def state(self) -> State:
        """How far it has come; a stage is outdated where the one that it starts from is not finished."""
        kept = self.workdir.stage_fingerprint(self.name)
        if kept and not self._is_current(kept):
            return State.OUTDATED
        if self.weights.is_file():
            return State.FINISHED
        return State.BEGUN if kept else State.MISSING

    def _is_current(self, kept: dict[str, Any]) -> bool:
        if self.start and self.start.state() is not State.FINISHED:
            return False
        try:
            return kept == as_json(self.fingerprint())
        except UserError:  # Its start weights are not there any more.
            return False

    def make(self) -> None:
        """Trains what is missing; a stage of another configuration is set aside first.

        Raises:
            UserError: as `train`.
        """
        stage = self._with_network()
        if stage.state() is State.OUTDATED:
            stage.set_aside()
        stage.train()

    def set_aside(self) -> None:
        """Moves its folder to `replaced/`."""
        place = numbered(self.workdir.path / "replaced" / self.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.folder.rename(place)
        self.workdir.forget_stage(self.name)
        print(f"{self.name}: begun with another configuration, moved to {place}", file=sys.stderr)

    def train(self) -> Path:
        """Trains to the end, from where an earlier run stopped; a finished stage is left as it is.

        Returns:
            Path of its weights.

        Raises:
            UserError: the start weights are missing or do not fit, or the stage was begun with another
                configuration.
            DivergedError: the loss is no longer a number.
        """
        return self._with_network()._train()

    def _with_network(self) -> Stage:
        """The stage with the options of the network filled in from its start weights."""
        return dataclasses.replace(self, workdir=self.workdir.with_network_of(self.start_weights()))

    def _train(self) -> Path:
        workdir = self.workdir
        checkpoints = Checkpoints(
            self.folder / "checkpoints", self.fingerprint(), workdir.config.checkpoint_seconds
        )
        if self.weights.is_file():
            print(f"{self.name}: finished already, {self.weights}", file=sys.stderr)
            return self.weights
        self.check()
        workdir.begin()
        model = workdir.model()
        start_weights = self.start_weights()
        if start_weights:
            load_weights(model, start_weights)
        self._run_loop(self.training(model), model, checkpoints)
        manifest = workdir.records.manifest
        write_preprocessing(self.weights, manifest.image_shape, manifest.preprocessing_of(*self.tasks))
        save_weights(model, self.weights)
        return self.weights

    def _run_loop(self, training: Training, model: RegistrationModel, checkpoints: Checkpoints) -> None:
        """Runs the steps that are left, with log, progress and checkpoints; notes them on the run card."""
        workdir, total_steps = self.workdir, self.total_steps
        every = workdir.config.log_every
        state = TrainState(model, training.optimizers, training.batches)
        first = checkpoints.restore(state)
        log = MetricsLog(self.folder, every=every, start=first, steps_per_epoch=self.steps_per_epoch)
        progress = TrainingProgress(self.name, total=total_steps, start=first, every=every)
        began = time.monotonic()
        try:
            with damage_named(workdir.records, workdir.tasks):
                watch = [training.watch(log)] if training.watch else []
                run_loop(
                    training.step_fn,
                    state,
                    total_steps=total_steps,
                    on_metrics=[log, progress, *watch],
                    checkpoints=checkpoints,
                    accelerator=accelerator(),
                )
        finally:
            progress.close()
            done = int(state.step.numpy())
            workdir.note_stage(
                self.name,
                seconds=time.monotonic() - began,
                steps=done,
                gradient_steps=self.gradient_steps * done // max(total_steps, 1),
            )


def plan(stages: Iterable[Stage]) -> list[Stage]:
    """The stages with all that they start from: starts first, each once. Nothing is trained or written."""
    planned: dict[Path, Stage] = {}
    for stage in stages:
        chain = [stage]
        while chain[-1].start:
            chain.append(chain[-1].start)
        for one in reversed(chain):
            planned.setdefault(one.folder, one)
    return list(planned.values())
