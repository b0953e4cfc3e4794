"""Stage 2: meta-training over the source tasks."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import ClassVar

import tensorflow as tf

from tfmetareg.config import Config, ReptileOptions
from tfmetareg.data.tasks import episodes
from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.pretrain import pretraining
from tfmetareg.modes.stage import Stage, Training
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.reptile import Replica, reptile_step, reptile_step_side_by_side

# Largest stable outer step with momentum, in mean differences per task of the meta-batch: with 2.3 every run
# was stable at the default learning rates, with 3.5 none was (docs/study.md).
_LARGEST_STABLE_STEP = 2.6


def run(config: Config, path: Path) -> Path:
    """Meta-trains in a work directory, after pretraining if it has no such weights yet.

    Returns:
        Path of the weights.
    """
    stage = meta_training(open_workdir(config, path))
    stage.check()
    if stage.start and not stage.start.weights.is_file():
        stage.start.train()
    return stage.train()


@dataclasses.dataclass(frozen=True)
class MetaTraining(Stage):
    """Reptile, Eq. (2): outer updates towards what the inner loops arrive at."""

    options: ReptileOptions

    section: ClassVar[str] = "reptile"

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.workdir.sources

    @property
    def total_steps(self) -> int:
        return self.options.meta_steps

    @property
    def gradient_steps(self) -> int:
        return gradient_steps(self.options)

    def check(self) -> None:
        self.workdir.require_sources()
        m, sources = self.options.meta_batch_size, self.workdir.sources
        if m > len(sources):
            raise UserError(
                f"`reptile.meta_batch_size` ({m}) must be at most the number of source tasks "
                f"({len(sources)}: {', '.join(sources)})."
            )
        for task in sources:
            self.workdir.records.shards(task, "train")

    def _episodes(self) -> tf.data.Dataset:
        options, workdir = self.options, self.workdir
        return episodes(
            workdir.records,
            workdir.sources,
            meta_batch_size=options.meta_batch_size,
            inner_steps=options.inner_steps,
            batch_size=options.inner_batch_size,
            seed=workdir.config.seed,
            augment=options.augment,
        )

    def training(self, model: RegistrationModel) -> Training:
        options, loss_fn = self.options, self.workdir.loss_fn()
        momentum = options.outer_momentum if options.outer_optimizer == "sgd" else 0.0
        _note_large_steps(options, momentum)
        outer = build_optimizer(
            options.outer_optimizer,
            options.outer_learning_rate,
            model.trainable_variables,
            annealing=options.outer_annealing,
            updates=options.meta_steps,
            momentum=momentum,
        )
        if options.side_by_side:
            copies = [self.workdir.model() for _ in range(options.meta_batch_size)]
            replicas = [Replica(copy, self._inner_optimizer(copy)) for copy in copies]
            step = functools.partial(reptile_step_side_by_side, model, replicas, outer, loss_fn)
            return Training(step, self._episodes(), {"outer": outer})
        inner = self._inner_optimizer(model)
        step = functools.partial(reptile_step, model, inner, outer, loss_fn, reset_inner=options.reset_inner)
        return Training(step, self._episodes(), {"inner": inner, "outer": outer})

    def _inner_optimizer(self, model: RegistrationModel) -> tf.keras.optimizers.legacy.Optimizer:
        return build_optimizer(
            self.options.inner_optimizer,
            self.options.inner_learning_rate,
            model.trainable_variables,
            annealing=self.options.inner_annealing,
            updates=self.gradient_steps,
        )


def meta_training(workdir: Workdir) -> MetaTraining:
    """The meta-training as configured, after the pretraining if it starts from there."""
    options = workdir.config.reptile
    start = pretraining(workdir) if options.init == "pretrain" else None
    return MetaTraining(workdir, "reptile", options, start)


def gradient_steps(options: ReptileOptions) -> int:
    """Gradient steps on the source tasks that the meta-training takes in all.

    >>> gradient_steps(ReptileOptions(meta_steps=400, meta_batch_size=3, inner_steps=5))
    6000
    """
    return options.meta_steps * options.meta_batch_size * options.inner_steps


def _note_large_steps(options: ReptileOptions, momentum: float) -> None:
    """Prints a note where momentum makes the outer steps so large that training may diverge."""
    step = options.outer_learning_rate / (1 - momentum)
    if momentum and step > _LARGEST_STABLE_STEP * options.meta_batch_size:
        print(
            f"note: `reptile.outer_learning_rate` / (1 - `reptile.outer_momentum`) is {step:.3g}, prone to "
            f"diverge above {_LARGEST_STABLE_STEP * options.meta_batch_size:.3g} = {_LARGEST_STABLE_STEP} x "
            "`reptile.meta_batch_size`; lower the rate.",
            file=sys.stderr,
        )
