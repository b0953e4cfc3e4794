"""The rows of the paper's comparison: the stages that stand behind them, each trained when it is needed.

Stages, each a folder of the work directory:

- `pretrain`: `pretrain.steps` gradient steps on the pooled source tasks.
- `reptile`: meta-training from there.
- `matched`, the control for `reptile`: joint training on the pooled source tasks from the same start, with
  exactly as many gradient steps and pairs in each, the inner loop's optimizer and rate, annealed as alpha is.
- `model_unseen`: one joint training from random weights with as many gradient steps as `pretrain` and
  `reptile` took together, on the schedule of `pretrain`; `model_seen`: the same with the target's
  fine-tuning pairs in the pool, each pair of which is equally likely.
- `fine_tune_10`, `ours_10`, `matched_10`: ten epochs on the target's fine-tuning pairs, after `pretrain`,
  `reptile` or `matched`; `fine_tune_long`, ...: `reproduce.long_epochs` epochs.

Rows: `transfer` is `pretrain` measured as it is, `not_deformed`, `affine`, `elastix` and `syn` need no
training, every other row is the stage of its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any, Optional

from tfmetareg.config import Config, Evaluate, Pretrain
from tfmetareg.device import resolve_precision
from tfmetareg.files import published, sha256, write_json
from tfmetareg.runs.evaluate import evaluate
from tfmetareg.runs.finetune import finetune
from tfmetareg.runs.pretrain import joint_training, pretrain
from tfmetareg.runs.reptile import meta_train
from tfmetareg.runs.run import Run

SHORT = 10
# The stage that each kind of row is fine-tuned from.
STARTS = {"fine_tune": "pretrain", "ours": "reptile", "matched": "matched", "scratch": "scratch"}
# What `evaluate` takes for the rows that are not a stage of their own name.
_WEIGHTS = {"not_deformed": "none", "transfer": "pretrain"}
UNTRAINED = ("not_deformed", "affine", "elastix", "syn")
_LONG_EVALUATIONS = 40


class Stages:
    """The stages of one work directory, each trained on first use, those of another configuration anew."""

    def __init__(self, run: Run):
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
            return joint_training(self.run, stage, matched_schedule(config))
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


def matched_schedule(config: Config) -> Pretrain:
    """The control's joint training: the meta-training's start, gradient steps, batches and rates."""
    options = config.reptile
    return Pretrain(
        steps=meta_gradient_steps(config),
        batch_size=options.inner_batch_size,
        optimizer=options.inner_optimizer,
        learning_rate=options.inner_learning_rate,
        annealing=options.outer_annealing,
        init=options.init,
    )


def whole_schedule(config: Config) -> Pretrain:
    """Joint training from random weights with all the gradient steps of pretraining and meta-training."""
    steps = config.pretrain.steps + meta_gradient_steps(config)
    return dataclasses.replace(config.pretrain, steps=steps, init="scratch")


def measure(stages: Stages, row: str) -> Path:
    """Makes `results/<row>.json` and its pairs, unless they are there and nothing they depend on changed."""
    weights = _WEIGHTS.get(row, row)
    path = None if row in UNTRAINED else stages.weights(weights)
    return measure_weights(stages.run, weights, row, path)


def measure_weights(run: Run, weights: str, method: str, path: Optional[Path], examples: int = 0) -> Path:
    """`measure` for any weights.

    Args:
        run: work directory, configuration and data.
        weights: as `evaluate.weights`.
        method: name of the result.
        path: the file behind `weights`, None where there is none.
        examples: pairs kept whole for the figures; 0 for as many as configured.
    """
    options = dataclasses.replace(run.config.evaluate, weights=weights, method=method, task="", split="test")
    if examples:
        options = dataclasses.replace(options, examples=examples)
    result = run.workdir / "results" / f"{method}.json"
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


def _is_of(result: Path, depends_on: str) -> bool:
    return result.is_file() and json.loads(result.read_text()).get("depends_on") == depends_on


def _copy_result(result: Path, place: Path) -> None:
    """Takes over what another seed measured without any training."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".csv", ".examples.npz", ".json"):
        with published(place.with_suffix(suffix)) as temporary:
            shutil.copyfile(result.with_suffix(suffix), temporary)


def _digest(run: Run, options: Evaluate, path: Optional[Path]) -> str:
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


def shot_epochs(config: Config, pairs: int, whole: int) -> int:
    """Epochs over `pairs` that make `reproduce.shot_steps` gradient steps, rounded up to whole epochs.

    Where that is 0, as many as ten epochs of all `whole` pairs.
    """
    batch = config.finetune.batch_size
    steps = config.reproduce.shot_steps or math.ceil(SHORT * whole / batch)
    return math.ceil(steps * batch / pairs)
