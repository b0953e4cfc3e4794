"""Stage 1: joint training on the pooled source tasks; the controls of `reproduce` train so too."""

from __future__ import annotations

from pathlib import Path

from tfmetareg.config import Config, PretrainOptions
from tfmetareg.data.tasks import mixed_pairs
from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.stage import Training, plain_training, train_stage
from tfmetareg.modes.workdir import Workdir, open_workdir


def run(config: Config, workdir: Path) -> Path:
    """Pretrains in `workdir`; returns the path of the weights."""
    return pretrain(open_workdir(config, workdir))


def pretrain(run: Workdir) -> Path:
    """The stage itself, for a run that is open."""
    return joint_training(run, "pretrain", run.config.pretrain)


def joint_training(
    run: Workdir, name: str, options: PretrainOptions, *, target: str = "", tasks_equally: bool = False
) -> Path:
    """Trains on the pooled source tasks as the stage `name`; returns the path of the weights.

    Args:
        run: work directory, configuration and data.
        name: the stage's folder.
        options: its schedule.
        target: a task whose fine-tuning pairs join the pool; none where empty.
        tasks_equally: each task, in place of each pair, is drawn equally often.
    """
    if not run.sources:
        raise UserError(f"{run.records.root}: holds no source task; build one with --role source.")

    def build(model: RegistrationModel) -> Training:
        batches = mixed_pairs(
            run.records,
            run.sources,
            batch_size=options.batch_size,
            seed=run.config.seed,
            target=target,
            tasks_equally=tasks_equally,
            augment=options.augment,
        )
        return plain_training(
            model,
            run.loss_fn(),
            options,
            batches,
            updates=options.steps,
            optimizer_name=options.optimizer,
        )

    return train_stage(
        run,
        name,
        "pretrain",
        build,
        tasks=[*run.sources, *([target] if target else [])],
        init=options.init,
        total_steps=options.steps,
        gradient_steps=options.steps,
        options=options,
        further={"tasks_equally": True} if tasks_equally else {},
    )
