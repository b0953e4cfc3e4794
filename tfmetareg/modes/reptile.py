"""Stage 2: meta-training over the source tasks."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import tensorflow as tf

from tfmetareg.config import Config, ReptileOptions
from tfmetareg.data.tasks import episodes
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.pretrain import pretrain
from tfmetareg.modes.stage import Training, train_stage
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.reptile import Replica, reptile_step, reptile_step_side_by_side


def run(config: Config, workdir: Path) -> Path:
    """Meta-trains in `workdir`, pretraining there first where needed; returns the path of the weights."""
    return meta_train(open_workdir(config, workdir))


# How many times the mean difference the outer update goes, in all, for each task that the mean is over: with
# 2.3 every run was steady at the default rates, with 3.5 none was (docs/study.md).
_LONGEST_STRIDE = 2.6


def _tell_long_strides(options: ReptileOptions, momentum: float) -> None:
    """Says so where momentum takes the outer update so far that it is prone to diverge."""
    stride = options.outer_learning_rate / (1 - momentum)
    if momentum and stride > _LONGEST_STRIDE * options.meta_batch_size:
        print(
            f"note: `reptile.outer_learning_rate` / (1 - `reptile.outer_momentum`) is {stride:.3g}, prone to "
            f"diverge above {_LONGEST_STRIDE * options.meta_batch_size:.3g} = {_LONGEST_STRIDE} x "
            "`reptile.meta_batch_size`; lower the rate.",
            file=sys.stderr,
        )


def meta_train(run: Workdir) -> Path:
    """The stage itself, for a run that is open."""
    options, loss_fn = run.config.reptile, run.loss_fn()
    gradient_steps = options.meta_steps * options.meta_batch_size * options.inner_steps
    # Made before anything is trained, so that a mistake shows at once.
    batches = episodes(
        run.records,
        run.sources,
        meta_batch_size=options.meta_batch_size,
        inner_steps=options.inner_steps,
        batch_size=options.inner_batch_size,
        seed=run.config.seed,
        augment=options.augment,
    )
    if options.init == "pretrain" and not run.stage_weights("pretrain").is_file():
        pretrain(run)
    run = run.starting_from(None if options.init == "scratch" else run.weights(options.init))

    def inner_optimizer(model: RegistrationModel) -> tf.keras.optimizers.legacy.Optimizer:
        return build_optimizer(
            options.inner_optimizer,
            options.inner_learning_rate,
            model.trainable_variables,
            annealing=options.inner_annealing,
            updates=gradient_steps,
        )

    def build(model: RegistrationModel) -> Training:
        momentum = options.outer_momentum if options.outer_optimizer == "sgd" else 0.0
        _tell_long_strides(options, momentum)
        outer = build_optimizer(
            options.outer_optimizer,
            options.outer_learning_rate,
            model.trainable_variables,
            annealing=options.outer_annealing,
            updates=options.meta_steps,
            momentum=momentum,
        )
        if options.side_by_side:
            copies = [run.model() for _ in range(options.meta_batch_size)]
            lanes = [Replica(copy, inner_optimizer(copy)) for copy in copies]
            step = functools.partial(reptile_step_side_by_side, model, lanes, outer, loss_fn)
            return Training(step, batches, {"outer": outer})
        inner = inner_optimizer(model)
        step = functools.partial(reptile_step, model, inner, outer, loss_fn, reset_inner=options.reset_inner)
        return Training(step, batches, {"inner": inner, "outer": outer})

    return train_stage(
        run,
        "reptile",
        "reptile",
        build,
        tasks=run.sources,
        init=options.init,
        total_steps=options.meta_steps,
        gradient_steps=gradient_steps,
    )
