"""Stage 1: joint training on the pooled source tasks."""

from __future__ import annotations

from pathlib import Path

from tfmetareg.config import Config
from tfmetareg.data.tasks import mixed_pairs
from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.runs.run import Run, open_run
from tfmetareg.runs.stage import Training, plain_training, train_stage


def run(config: Config, workdir: Path) -> Path:
    """Pretrains in `workdir`; returns the path of the weights."""
    return pretrain(open_run(config, workdir))


def pretrain(run: Run) -> Path:
    """The stage itself, for a run that is open."""
    options, loss_fn = run.config.pretrain, run.loss_fn()
    if not run.sources:
        raise UserError(f"{run.records.root}: holds no source task; build one with --role source.")

    def build(model: RegistrationModel) -> Training:
        batches = mixed_pairs(run.records, run.sources, batch_size=options.batch_size, seed=run.config.seed)
        return plain_training(model, loss_fn, options, batches, updates=options.steps)

    return train_stage(
        run,
        "pretrain",
        "pretrain",
        build,
        tasks=run.sources,
        init=options.init,
        total_steps=options.steps,
        gradient_steps=options.steps,
    )
