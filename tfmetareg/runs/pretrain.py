"""Stage 1: joint training on the pooled source tasks."""

from __future__ import annotations

from pathlib import Path

from tfmetareg.config import Config
from tfmetareg.data.tasks import mixed_pairs
from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.optim import build_optimizer
from tfmetareg.runs.run import Run, open_run
from tfmetareg.runs.stage import Training, train_stage
from tfmetareg.steps import gradient_step


def run(config: Config, workdir: Path) -> Path:
    """Pretrains in `workdir`; returns the path of the weights."""
    return pretrain(open_run(config, workdir))


def pretrain(run: Run) -> Path:
    """The stage itself, for a run that is open."""
    options, loss_fn = run.config.pretrain, run.loss_fn()
    if not run.sources:
        raise UserError(f"{run.records.root}: holds no source task; build one with --role source.")

    def build(model: RegistrationModel) -> Training:
        optimizer = build_optimizer(
            "adam",
            options.learning_rate,
            model.trainable_variables,
            annealing=options.annealing,
            updates=options.steps,
        )
        return Training(
            lambda pair: gradient_step(model, optimizer, loss_fn, pair)._asdict(),
            mixed_pairs(run.records, run.sources, batch_size=options.batch_size, seed=run.config.seed),
            {"optimizer": optimizer},
        )

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
