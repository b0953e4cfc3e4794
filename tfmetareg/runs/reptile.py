"""Stage 2: meta-training over the source tasks."""

from __future__ import annotations

from pathlib import Path

from tfmetareg.config import Config
from tfmetareg.data.tasks import episodes
from tfmetareg.meta.reptile import reptile_step
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.optim import build_optimizer
from tfmetareg.runs.pretrain import pretrain
from tfmetareg.runs.run import Run, open_run
from tfmetareg.runs.stage import Training, train_stage


def run(config: Config, workdir: Path) -> Path:
    """Meta-trains in `workdir`, pretraining there first where needed; returns the path of the weights."""
    return meta_train(open_run(config, workdir))


def meta_train(run: Run) -> Path:
    """The stage itself, for a run that is open."""
    options, loss_fn = run.config.reptile, run.loss_fn()
    # Made before anything is trained, so that a mistake shows at once.
    batches = episodes(
        run.records,
        run.sources,
        meta_batch_size=options.meta_batch_size,
        inner_steps=options.inner_steps,
        batch_size=options.inner_batch_size,
        seed=run.config.seed,
    )
    if options.init == "pretrain" and not run.stage_weights("pretrain").is_file():
        pretrain(run)

    def build(model: RegistrationModel) -> Training:
        variables = model.trainable_variables
        inner = build_optimizer(options.inner_optimizer, options.inner_learning_rate, variables)
        outer = build_optimizer(
            options.outer_optimizer,
            options.outer_learning_rate,
            variables,
            annealing=options.outer_annealing,
            updates=options.meta_steps,
        )
        return Training(
            lambda episode: reptile_step(
                model, inner, outer, loss_fn, episode, reset_inner=options.reset_inner
            ),
            batches,
            {"inner": inner, "outer": outer},
        )

    return train_stage(
        run,
        "reptile",
        "reptile",
        build,
        tasks=run.sources,
        init=options.init,
        total_steps=options.meta_steps,
        gradient_steps=options.meta_steps * options.meta_batch_size * options.inner_steps,
    )
