"""Stage 3: adaptation to the target task."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Optional

import numpy as np
import tensorflow as tf

from tfmetareg.config import Config, FinetuneOptions
from tfmetareg.data.records import examples
from tfmetareg.data.tasks import task_pairs
from tfmetareg.errors import UserError
from tfmetareg.evaluation.evaluator import Evaluator
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.stage import Training, plain_training, train_stage
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.training.log import MetricsLog
from tfmetareg.training.loop import DivergedError, OnMetrics
from tfmetareg.training.steps import register_pair


def run(config: Config, workdir: Path) -> Path:
    """Fine-tunes in `workdir`; returns the path of the weights."""
    return finetune(open_workdir(config, workdir))


def finetune(run: Workdir, options: Optional[FinetuneOptions] = None, *, steps: int = 0) -> Path:
    """The stage itself, for a run that is open.

    Args:
        run: work directory, configuration and data.
        options: stand in for the configuration's.
        steps: gradient steps, in place of `options.epochs`; 0 for those epochs.
    """
    options, loss_fn = options or run.config.finetune, run.loss_fn()
    if not run.target:
        raise UserError(f"{run.records.root}: holds no target task; build one with --role target.")
    split = run.records.learning_split(run.target)
    pairs = run.records.pair_count(run.target, split)
    pairs = min(options.pairs or pairs, pairs)
    steps_per_epoch = pairs / options.batch_size
    total_steps = steps or math.ceil(options.epochs * steps_per_epoch)

    def build(model: RegistrationModel) -> Training:
        def watch(log: MetricsLog) -> OnMetrics:
            evaluator = Evaluator(functools.partial(register_pair, model), _tests(run), loss_fn)
            return _Watch(evaluator, log, options.evaluate_every * steps_per_epoch, total_steps)

        batches = task_pairs(
            run.records,
            run.target,
            split,
            batch_size=options.batch_size,
            seed=run.config.seed,
            limit=pairs,
        )
        watched = options.evaluate_every and run.records.pair_count(run.target, "test")
        return plain_training(
            model, loss_fn, options, batches, updates=total_steps, watch=watch if watched else None
        )

    return train_stage(
        run,
        options.name,
        "finetune",
        build,
        tasks=[run.target],
        init=options.init,
        total_steps=total_steps,
        gradient_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        options=options,
        further={"steps": steps} if steps else {},
    )


def _tests(run: Workdir) -> tf.data.Dataset:
    return examples(run.records, run.target, "test")


class _Watch:
    """Measures the test split before the first step, then every so many steps and at the end (Fig. 3)."""

    def __init__(self, evaluator: Evaluator, log: MetricsLog, every: float, last: int):
        self._evaluator, self._log, self._every, self._last = evaluator, log, every, last
        if log.start == 0:
            self._evaluate(0)

    def __call__(self, step: int, metrics: dict[str, tf.Tensor]) -> None:
        if step == self._last or step // self._every > (step - 1) // self._every:
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        results = self._evaluator()
        if not all(math.isfinite(result.loss) for result in results):
            raise DivergedError(step)
        distances = [result.distance_px for result in results if result.distance_px is not None]
        self._log.write(
            step,
            {
                "test/distance_px": float(np.mean(distances)) if distances else None,
                "test/ncc": float(np.mean([result.ncc for result in results])),
                "test/total": float(np.mean([result.loss for result in results])),
            },
        )
        pair = self._evaluator.examples(1)
        panels = [pair[name][0][..., None] for name in ("moving", "fixed", "warped")]
        self._log.image(step, "moving, fixed, warped", panels)
