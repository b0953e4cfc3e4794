"""Stage 3: adaptation to the target task."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfmetareg.config import Config, FinetuneOptions
from tfmetareg.data.records import examples
from tfmetareg.data.tasks import task_pairs
from tfmetareg.evaluation.evaluator import Evaluator
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.stage import Stage, Training, plain_training
from tfmetareg.modes.workdir import open_workdir
from tfmetareg.training.log import MetricsLog
from tfmetareg.training.loop import DivergedError, OnMetrics
from tfmetareg.training.steps import register_pair


def run(config: Config, path: Path) -> Path:
    """Fine-tunes in a work directory; returns the path of the weights."""
    workdir = open_workdir(config, path)
    stage = FineTuning(workdir, config.finetune.name, config.finetune)
    stage.check()
    return stage.train()


@dataclasses.dataclass(frozen=True)
class FineTuning(Stage):
    """Gradient steps on the fine-tuning pairs of the target task.

    Attributes:
        steps: their number, in place of `options.epochs`; 0 for those epochs.
    """

    options: FinetuneOptions
    steps: int = 0

    section: ClassVar[str] = "finetune"

    @property
    def tasks(self) -> list[str]:
        return [self.workdir.target]

    @property
    def total_steps(self) -> int:
        return self.steps or math.ceil(self.options.epochs * self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> float:
        return self.pairs / self.options.batch_size

    @property
    def pairs(self) -> int:
        """Number of pairs that it learns from."""
        there = self.workdir.records.pair_count(self.workdir.target, self._split)
        return min(self.options.pairs or there, there)

    @property
    def _split(self) -> str:
        return self.workdir.records.learning_split(self.workdir.target)

    @property
    def further_values(self) -> dict[str, Any]:
        return {"steps": self.steps} if self.steps else {}

    def check(self) -> None:
        self.workdir.require_target()
        self.workdir.records.shards(self.workdir.target, self._split)

    def training(self, model: RegistrationModel) -> Training:
        options, workdir, loss_fn = self.options, self.workdir, self.workdir.loss_fn()

        def watch(log: MetricsLog) -> OnMetrics:
            pairs = examples(workdir.records, workdir.target, "test")
            evaluator = Evaluator(functools.partial(register_pair, model), pairs, loss_fn)
            return _Watch(evaluator, log, options.evaluate_every * self.steps_per_epoch, self.total_steps)

        batches = task_pairs(
            workdir.records,
            workdir.target,
            self._split,
            batch_size=options.batch_size,
            seed=workdir.config.seed,
            limit=self.pairs,
        )
        watched = options.evaluate_every and workdir.records.pair_count(workdir.target, "test")
        return plain_training(
            model, loss_fn, options, batches, updates=self.total_steps, watch=watch if watched else None
        )


class _Watch:
    """Measures the test split before the first step, at regular intervals and at the end (Fig. 3)."""

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
        pair = self._evaluator.examples([0])
        panels = [pair[name][0][..., None] for name in ("moving", "fixed", "warped")]
        self._log.image(step, "moving, fixed, warped", panels)
