"""A training stage from start weights to `model.h5`: the frame that all three stages share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import tensorflow as tf

from tfmetareg.config import FinetuneOptions, PretrainOptions
from tfmetareg.data.records import damage_named
from tfmetareg.device import accelerator, resolve_precision
from tfmetareg.files import sha256
from tfmetareg.imaging.preprocessing_file import write_preprocessing
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.models.weights import load_weights, save_weights
from tfmetareg.modes.workdir import NotTrainedError, Workdir
from tfmetareg.training.checkpoint import Checkpoints, TrainState
from tfmetareg.training.log import MetricsLog, TrainingProgress
from tfmetareg.training.loop import OnMetrics, StepFn, run_loop
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import LossFn, gradient_step


class Training(NamedTuple):
    """What makes one stage differ from another.

    Attributes:
        step_fn: batch -> scalars by name.
        batches: endless, checkpointable.
        optimizers: by name in the checkpoint.
        watch: makes a callback out of the stage's log, if the stage wants one.
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
    """One gradient step on each batch: what pretraining and fine-tuning have in common."""
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


def train_stage(
    run: Workdir,
    name: str,
    section: str,
    build: Callable[[RegistrationModel], Training],
    *,
    tasks: Sequence[str],
    init: str,
    total_steps: int,
    gradient_steps: int,
    steps_per_epoch: Optional[float] = None,
    options: Optional[Union[PretrainOptions, FinetuneOptions]] = None,
    further: Optional[dict[str, Any]] = None,
) -> Path:
    """Trains a stage to its end, resuming where an earlier run stopped.

    Args:
        run: work directory, configuration and data.
        name: the stage's folder.
        section: its section of the configuration.
        build: makes the stage's parts for a model.
        tasks: what it learns from.
        init: "scratch", a finished stage or an .h5 file.
        total_steps: calls of the step function.
        gradient_steps: gradient steps in all, for the run card.
        steps_per_epoch: for the epochs in the log.
        options: stand in for the section of the configuration.
        further: what decides on the weights beside the configuration.

    Returns:
        Path of the stage's `model.h5`. A finished stage is left as it is.

    Raises:
        UserError: the start weights are missing or do not fit, or the stage was
            begun with another configuration and `run.replaces` is not set.
        NotTrainedError: `run.trains` is not set and the stage not finished.
    """
    start_weights = None if init == "scratch" else run.weights(init)
    run = run.starting_from(start_weights)
    fingerprint = {
        **_fingerprint(run, section, options or getattr(run.config, section), tasks, start_weights),
        **(further or {}),
    }
    if run.replaces:
        run.set_aside(name, unless=fingerprint)
    checkpoints = Checkpoints(run.workdir / name / "checkpoints", fingerprint, run.config.checkpoint_seconds)
    finished = run.stage_weights(name)
    if finished.is_file():
        if run.trains:
            print(f"{name}: finished already, {finished}", file=sys.stderr)
        return finished
    if not run.trains:
        raise NotTrainedError(name)
    run.begin()
    model = run.model()
    if start_weights:
        load_weights(model, start_weights)
    training = build(model)
    state = TrainState(model, training.optimizers, training.batches)
    start = checkpoints.restore(state)
    log = MetricsLog(
        run.workdir / name, every=run.config.log_every, start=start, steps_per_epoch=steps_per_epoch
    )
    progress = TrainingProgress(name, total=total_steps, start=start, every=run.config.log_every)
    began = time.monotonic()
    try:
        with damage_named(run.records, run.tasks):
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
        run.note_stage(
            name,
            seconds=time.monotonic() - began,
            steps=done,
            gradient_steps=gradient_steps * done // max(total_steps, 1),
        )
    manifest = run.records.manifest
    write_preprocessing(finished, manifest.image_shape, manifest.preprocessing)
    save_weights(model, finished)
    return finished


# Options of a stage that do not decide on its weights.
_UNDECISIVE = ("finetune.name", "finetune.evaluate_every", "model.module")


def _fingerprint(
    run: Workdir, section: str, options: Any, tasks: Sequence[str], start_weights: Optional[Path]
) -> dict[str, Any]:
    """The keys and values that decide on a stage's result; data and start weights by their content."""
    keys = dataclasses.replace(run.config, **{section: options}).flat("model", "loss", section)
    if Path(options.init).suffix == ".h5":
        keys[f"{section}.init"] = Path(options.init).name  # Wherever it lies: its content decides.
    content = [dataclasses.asdict(run.records.manifest.task(name)) for name in tasks]
    known = start_weights is not None and start_weights.is_file()
    return {
        **{key: value for key, value in keys.items() if key not in _UNDECISIVE},
        "model.precision": resolve_precision(run.config.model.precision),
        "seed": run.config.seed,
        "deterministic": run.config.deterministic,
        "data.tasks": list(tasks),
        "data (digest)": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
        f"{section}.init (digest)": sha256(start_weights)[:16] if known else None,
    }
