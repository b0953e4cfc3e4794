"""The training stages and the rows of the paper's comparison.

Stages, each a folder of the work directory:

- `pretrain` and `reptile` as configured.
- `matched`, the control for `reptile`: joint training on the source tasks from the same start, with as many
  gradient steps and pairs in each, the optimizer and learning rate of the inner loop, annealed where either
  learning rate of the meta-training is, the same augmentation, and each task drawn equally often.
- `model_unseen`: joint training from random weights with as many gradient steps as `pretrain` and `reptile`
  together, on the schedule of `pretrain`; `model_seen`: the same with the fine-tuning pairs of the target in
  the pool. In these and in `pretrain`, each pair of the pool is drawn equally often.
- `fine_tune_10`, `ours_10`, `matched_10`, ...: fine-tuning, see `methods`.
"""

from __future__ import annotations

import dataclasses

from tfmetareg.config import Config, PretrainOptions
from tfmetareg.experiments.measurement import Measurement
from tfmetareg.methods import METHODS, SCRATCH, SHORT_EPOCHS, Method
from tfmetareg.modes.finetune import FineTuning
from tfmetareg.modes.pretrain import JointTraining, pretraining
from tfmetareg.modes.reptile import gradient_steps, meta_training
from tfmetareg.modes.stage import Stage
from tfmetareg.modes.workdir import Workdir

# Most evaluations in a long fine-tuning.
_LONG_EVALUATIONS = 40


def comparison_stages(workdir: Workdir) -> dict[str, Stage]:
    """Every stage of the comparison by name; none is trained."""
    config = workdir.config
    reptile, matched, whole = meta_training(workdir), matched_schedule(config), whole_schedule(config)
    stages: dict[str, Stage] = {
        "pretrain": pretraining(workdir),
        "reptile": reptile,
        "matched": JointTraining(workdir, "matched", matched, reptile.start, tasks_equally=True),
        "model_seen": JointTraining(workdir, "model_seen", whole, with_target=True),
        "model_unseen": JointTraining(workdir, "model_unseen", whole),
    }
    for method in METHODS:
        if method.start:
            stages[method.weights] = _fine_tuning(workdir, method, stages[method.start])
    return stages


def _fine_tuning(workdir: Workdir, method: Method, start: Stage) -> FineTuning:
    """The fine-tuning of a row; a long one is evaluated at most so many times."""
    options = workdir.config.finetune
    epochs = SHORT_EPOCHS if method.length == "short" else workdir.config.reproduce.long_epochs
    every = min(options.evaluate_every, epochs)
    if every and epochs > SHORT_EPOCHS:
        every = max(every, epochs // _LONG_EVALUATIONS)
    options = dataclasses.replace(
        options, init=method.start, name=method.weights, epochs=epochs, evaluate_every=every
    )
    return FineTuning(workdir, method.weights, options, start)


def matched_schedule(config: Config) -> PretrainOptions:
    """The control's joint training: start, gradient steps, batches and rates of the meta-training."""
    options = config.reptile
    return PretrainOptions(
        steps=gradient_steps(options),
        batch_size=options.inner_batch_size,
        optimizer=options.inner_optimizer,
        learning_rate=options.inner_learning_rate,
        annealing="linear" if "linear" in (options.inner_annealing, options.outer_annealing) else "none",
        augment=options.augment,
        init=options.init,
    )


def whole_schedule(config: Config) -> PretrainOptions:
    """Joint training from random weights with all gradient steps of pretraining and meta-training."""
    steps = config.pretrain.steps + gradient_steps(config.reptile)
    return dataclasses.replace(config.pretrain, steps=steps, init=SCRATCH)


def row_measurements(workdir: Workdir) -> dict[str, Measurement]:
    """The measurement behind every row of the comparison, by name; none is made."""
    stages = comparison_stages(workdir)
    return {
        method.name: Measurement(
            workdir,
            method.name,
            method.weights,
            stages[method.weights] if method.trained else None,
            pair_steps=workdir.config.reproduce.pair_steps if method.adapted else 0,
            optional=method.optional,
        )
        for method in METHODS
    }
