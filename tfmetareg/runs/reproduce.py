"""The paper's comparison: trains what each row needs, measures it, draws the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfmetareg.config import Config, Evaluate
from tfmetareg.runs.evaluate import evaluate, show
from tfmetareg.runs.finetune import finetune
from tfmetareg.runs.pretrain import pretrain
from tfmetareg.runs.reptile import meta_train
from tfmetareg.runs.run import Run, open_run

_SHORT = 10


def run(config: Config, workdir: Path) -> None:
    """Makes every row of `config.reproduce.rows` in `workdir`; finished stages are only measured again."""
    opened = open_run(config, workdir)
    for row in config.reproduce.rows:
        _ROWS[row](opened)
    show(workdir)


def _not_deformed(run: Run) -> None:
    evaluate(run, _row(run, "none", "not_deformed"))


def _transfer(run: Run) -> None:
    """The pretrained network as it is."""
    pretrain(run)
    evaluate(run, _row(run, "pretrain", "transfer"))


def _fine_tune(run: Run) -> None:
    """The pretrained network, fine-tuned."""
    pretrain(run)
    _fine_tuned(run, "pretrain", "fine_tune_10")


def _ours(run: Run) -> None:
    """The meta-trained network, fine-tuned."""
    meta_train(run)
    _fine_tuned(run, "reptile", "ours_10")


def _fine_tuned(run: Run, init: str, name: str) -> None:
    """Fine-tunes the stage `init` for the paper's 10 epochs into the stage `name`, and measures that."""
    every = min(run.config.finetune.evaluate_every, _SHORT)
    options = dataclasses.replace(
        run.config.finetune, init=init, name=name, epochs=_SHORT, evaluate_every=every
    )
    row = dataclasses.replace(run, config=dataclasses.replace(run.config, finetune=options))
    finetune(row)
    evaluate(row, _row(run, name, name))


def _row(run: Run, weights: str, method: str) -> Evaluate:
    return dataclasses.replace(run.config.evaluate, weights=weights, method=method, task="", split="test")


_ROWS = {
    "not_deformed": _not_deformed,
    "transfer": _transfer,
    "fine_tune_10": _fine_tune,
    "ours_10": _ours,
}
