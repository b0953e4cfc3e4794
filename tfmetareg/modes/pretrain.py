"""Stage 1: joint training on the pooled source tasks; some rows of the comparison are trained so, too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from tfmetareg.config import Config, PretrainOptions
from tfmetareg.data.tasks import mixed_pairs
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.stage import Stage, Training, plain_training
from tfmetareg.modes.workdir import Workdir, open_workdir


def run(config: Config, path: Path) -> Path:
    """Pretrains in a work directory; returns the path of the weights."""
    stage = pretraining(open_workdir(config, path))
    stage.check()
    return stage.train()


@dataclasses.dataclass(frozen=True)
class JointTraining(Stage):
    """Gradient steps on batches that mix the source tasks.

    Attributes:
        with_target: whether the fine-tuning pairs of the target join the pool.
        tasks_equally: whether each task, in place of each pair, is drawn equally often.
    """

    options: PretrainOptions
    with_target: bool = False
    tasks_equally: bool = False

    section: ClassVar[str] = "pretrain"

    @property
    def tasks(self) -> list[str]:
        return [*self.workdir.sources, *([self.workdir.target] if self.with_target else [])]

    @property
    def total_steps(self) -> int:
        return self.options.steps

    @property
    def further_values(self) -> dict[str, Any]:
        return {"tasks_equally": True} if self.tasks_equally else {}

    def check(self) -> None:
        self.workdir.require_sources()
        records, target = self.workdir.records, self.workdir.target
        for task in self.workdir.sources:
            records.shards(task, "train")
        if self.with_target:
            records.shards(target, records.learning_split(target))

    def training(self, model: RegistrationModel) -> Training:
        options, workdir = self.options, self.workdir
        batches = mixed_pairs(
            workdir.records,
            workdir.sources,
            batch_size=options.batch_size,
            seed=workdir.config.seed,
            target=workdir.target if self.with_target else "",
            tasks_equally=self.tasks_equally,
            augment=options.augment,
        )
        return plain_training(
            model,
            workdir.loss_fn(),
            options,
            batches,
            updates=options.steps,
            optimizer_name=options.optimizer,
        )


def pretraining(workdir: Workdir) -> JointTraining:
    """The pretraining as configured."""
    return JointTraining(workdir, "pretrain", workdir.config.pretrain)
