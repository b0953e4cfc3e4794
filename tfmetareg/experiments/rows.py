"""The rows of the paper's comparison: the stages that stand behind them, each trained when it is needed.

Stages, each a folder of the work directory:

- `pretrain`: `pretrain.steps` gradient steps on the pooled source tasks.
- `reptile`: meta-training from there.
- `matched`, the control for `reptile`: joint training on the pooled source tasks from the same start, with
  exactly as many gradient steps and pairs in each, the inner loop's optimizer and rate, annealed where either
  rate of the meta-training is, the same augmentation, and each task drawn equally often, as in the
  meta-training.
- `model_unseen`: one joint training from random weights with as many gradient steps as `pretrain` and
  `reptile` took together, on the schedule of `pretrain`; `model_seen`: the same with the target's
  fine-tuning pairs in the pool. In these and in `pretrain`, each pair of the pool is drawn equally often.
- `fine_tune_10`, `ours_10`, `matched_10`: ten epochs on the target's fine-tuning pairs, after `pretrain`,
  `reptile` or `matched`; `fine_tune_long`, ...: `reproduce.long_epochs` epochs.

Rows: `transfer` is `pretrain` measured as it is, `ours_pair` is `reptile` adapted to each test pair alone by
`reproduce.pair_steps` gradient steps; `not_deformed`, `affine`, `elastix` and `syn` need no training, every
other row is the stage of its name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

from tfmetareg.config import Config, EvaluateOptions, PretrainOptions
from tfmetareg.device import resolve_precision
from tfmetareg.errors import UserError
from tfmetareg.files import published, sha256, write_json
from tfmetareg.methods import METHOD_NAMES
from tfmetareg.modes.evaluate import evaluate
from tfmetareg.modes.finetune import finetune
from tfmetareg.modes.pretrain import joint_training, pretrain
from tfmetareg.modes.reptile import meta_train
from tfmetareg.modes.workdir import NotTrainedError, Workdir, unused

SHORT = 10
# The stage that each kind of row is fine-tuned from.
STARTS = {"fine_tune": "pretrain", "ours": "reptile", "matched": "matched", "scratch": "scratch"}
# What `evaluate` takes for the rows that are not a stage of their own name.
_WEIGHTS = {"not_deformed": "none", "transfer": "pretrain", "ours_pair": "reptile"}
UNTRAINED = ("not_deformed", "affine", "elastix", "syn")
_LONG_EVALUATIONS = 40
# A result's files; the one that stands for it last.
_RESULT_FILES = (".csv", ".examples.npz", ".json")


class Stages:
    """The stages of one work directory, each trained on first use, those of another configuration anew."""

    def __init__(self, run: Workdir):
        self.run = dataclasses.replace(run, replaces=True)
        self._trained: dict[str, Path] = {}

    def weights(self, stage: str) -> Path:
        """The stage's weights, after whatever training is still missing."""
        if stage not in self._trained:
            self._trained[stage] = self._train(stage)
        return self._trained[stage]

    def _train(self, stage: str) -> Path:
        config = self.run.config
        if stage == "pretrain":
            return pretrain(self.run)
        if stage in ("reptile", "matched") and config.reptile.init == "pretrain":
            self.weights("pretrain")
        if stage == "reptile":
            return meta_train(self.run)
        if stage == "matched":
            return joint_training(self.run, stage, matched_schedule(config), tasks_equally=True)
        if stage in ("model_seen", "model_unseen"):
            target = self.run.target if stage == "model_seen" else ""
            return joint_training(self.run, stage, whole_schedule(config), target=target)
        kind, length = stage.rsplit("_", 1)
        epochs = SHORT if length == str(SHORT) else config.reproduce.long_epochs
        return self._fine_tune(STARTS[kind], stage, epochs)

    def _fine_tune(self, init: str, name: str, epochs: int) -> Path:
        options = self.run.config.finetune
        every = min(options.evaluate_every, epochs)
        if every and epochs > SHORT:
            every = max(every, epochs // _LONG_EVALUATIONS)
        self.weights(init)
        options = dataclasses.replace(options, init=init, name=name, epochs=epochs, evaluate_every=every)
        return finetune(self.run, options)


def meta_gradient_steps(config: Config) -> int:
    """Gradient steps on the source tasks that the meta-training takes."""
    options = config.reptile
    return options.meta_steps * options.meta_batch_size * options.inner_steps


def matched_schedule(config: Config) -> PretrainOptions:
    """The control's joint training: the meta-training's start, gradient steps, batches and rates."""
    options = config.reptile
    return PretrainOptions(
        steps=meta_gradient_steps(config),
        batch_size=options.inner_batch_size,
        optimizer=options.inner_optimizer,
        learning_rate=options.inner_learning_rate,
        annealing="linear" if "linear" in (options.inner_annealing, options.outer_annealing) else "none",
        augment=options.augment,
        init=options.init,
    )


def whole_schedule(config: Config) -> PretrainOptions:
    """Joint training from random weights with all the gradient steps of pretraining and meta-training."""
    steps = config.pretrain.steps + meta_gradient_steps(config)
    return dataclasses.replace(config.pretrain, steps=steps, init="scratch")


def measure(stages: Stages, row: str) -> Path:
    """Makes `results/<row>.json` and its pairs, unless they are there and nothing they depend on changed."""
    weights = _WEIGHTS.get(row, row)
    path = None if row in UNTRAINED else stages.weights(weights)
    return measure_weights(stages.run, weights, row, path)


def measure_weights(run: Workdir, weights: str, method: str, path: Optional[Path], examples: int = 0) -> Path:
    """`measure` for any weights.

    Args:
        run: work directory, configuration and data.
        weights: as `evaluate.weights`.
        method: name of the result.
        path: the file behind `weights`, None where there is none.
        examples: pairs kept whole for the figures; 0 for as many as configured.
    """
    options = _measuring(run, weights, method, examples)
    result = _result(run, method)
    depends_on = _digest(run, options, path)
    if _is_of(result, depends_on):
        return result
    result.unlink(missing_ok=True)  # Its pairs are about to be others.
    others = run.workdir.parent.glob(f"seed-*/results/{method}.json")
    same = next((other for other in others if path is None and _is_of(other, depends_on)), None)
    if same:
        _copy_result(same, result)
    else:
        evaluate(run, options)
    content = {**json.loads(result.read_text()), "seed": run.config.seed, "depends_on": depends_on}
    write_json(result, content)
    return result


def set_aside_outdated(run: Workdir) -> None:
    """Moves stages and rows of another configuration to `replaced/`, whether they were asked for or not.

    The report is drawn from all that a work directory holds: what stays is of one configuration.
    """
    stages = Stages(dataclasses.replace(run, trains=False))
    rows = METHOD_NAMES
    paths = {
        stage: weights_if_current(run, stage, functools.partial(stages.weights, stage))
        for stage in ("pretrain", "reptile", *rows)
        if run.decided(stage)
    }
    outdated = []
    for row in rows:
        weights = _WEIGHTS.get(row, row)
        path = paths.get(weights)
        if (path is None and row not in UNTRAINED) or not is_measured(run, weights, row, path):
            outdated.append(row)
    set_aside_results(run, outdated)


def weights_if_current(run: Workdir, stage: str, find: Callable[[], Path]) -> Optional[Path]:
    """The weights of a stage of `run` if it is finished; one of another configuration is set aside.

    Args:
        run: work directory of the stage.
        stage: its name.
        find: trains it, for a run that does not train.
    """
    try:
        return find()
    except UserError as error:
        # Begun as configured, it can still be finished; unless what it starts from is not there any more.
        if not isinstance(error, NotTrainedError) or error.stage != stage:
            run.set_aside(stage)
        return None


def is_measured(run: Workdir, weights: str, method: str, path: Optional[Path], examples: int = 0) -> bool:
    """Whether `measure_weights` would find its result there."""
    options = _measuring(run, weights, method, examples)
    return _is_of(_result(run, method), _digest(run, options, path))


def set_aside_results(run: Workdir, methods: Iterable[str]) -> None:
    """Moves the results of these names that there are to a new folder in `replaced/`."""
    found = [method for method in methods if _result(run, method).is_file()]
    if not found:
        return
    place = unused(run.workdir / "replaced" / "results")
    place.mkdir(parents=True)
    for method in found:
        for suffix in reversed(_RESULT_FILES):
            path = _result(run, method).with_suffix(suffix)
            if path.is_file():
                path.rename(place / path.name)
    print(f"{', '.join(found)}: not of this configuration, moved to {place}", file=sys.stderr)


def _result(run: Workdir, method: str) -> Path:
    return run.workdir / "results" / f"{method}.json"


def _measuring(run: Workdir, weights: str, method: str, examples: int) -> EvaluateOptions:
    """How a row is measured."""
    options = dataclasses.replace(run.config.evaluate, weights=weights, method=method, task="", split="test")
    if method == "ours_pair":
        options = dataclasses.replace(options, adapt_steps=run.config.reproduce.pair_steps)
    else:  # The rate decides on nothing then.
        unadapted = EvaluateOptions()
        options = dataclasses.replace(
            options,
            adapt_steps=unadapted.adapt_steps,
            adapt_learning_rate=unadapted.adapt_learning_rate,
        )
    return dataclasses.replace(options, examples=examples) if examples else options


def _is_of(result: Path, depends_on: str) -> bool:
    return result.is_file() and json.loads(result.read_text()).get("depends_on") == depends_on


def _copy_result(result: Path, place: Path) -> None:
    """Takes over what another seed measured without any training."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for suffix in _RESULT_FILES:
        with published(place.with_suffix(suffix)) as temporary:
            shutil.copyfile(result.with_suffix(suffix), temporary)


def _digest(run: Workdir, options: EvaluateOptions, path: Optional[Path]) -> str:
    """Digest of all that decides on a row: the weights' content, the test pairs, how they are measured."""
    manifest = run.records.manifest
    keys: dict[str, Any] = {
        **dataclasses.replace(run.config, evaluate=options).flat("model", "loss", "evaluate"),
        "model.precision": resolve_precision(run.config.model.precision),
        "evaluate.weights": sha256(path) if path else options.weights,
        "records": [manifest.image_shape, manifest.preprocessing],
        "test pairs": dataclasses.asdict(manifest.task(run.target)),
    }
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]


def shot_steps(config: Config, whole: int) -> int:
    """Gradient steps of every point: `reproduce.shot_steps`, or as many as ten epochs of `whole` pairs."""
    return config.reproduce.shot_steps or math.ceil(SHORT * whole / config.finetune.batch_size)
