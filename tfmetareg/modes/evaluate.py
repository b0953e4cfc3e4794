"""Measures weights on a split of a task, into the work directory's results."""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path
from typing import Optional

import numpy as np
import tensorflow as tf

from tfmetareg.config import Config, EvaluateOptions
from tfmetareg.data.records import damage_named, examples, realigned, unaligned
from tfmetareg.errors import UserError
from tfmetareg.evaluation.alignments import measured_alignments
from tfmetareg.evaluation.evaluator import (
    Evaluator,
    PairResult,
    RegisterFn,
    summary,
    to_csv,
    undeformed,
    with_alignment_time,
)
from tfmetareg.evaluation.peers import PEERS, peer
from tfmetareg.files import published, write_json, write_text
from tfmetareg.methods import UNTRAINED
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.models.weights import load_weights
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.registration.network import Adaptation, Registrar
from tfmetareg.report.page import mismatches, write_report
from tfmetareg.report.results import read_results
from tfmetareg.report.tables import build_table, to_markdown
from tfmetareg.training.steps import register_pair
from tfmetareg.types import PairBatch


def run(config: Config, workdir: Path) -> None:
    """Evaluates as `config.evaluate` says, draws the report and prints the table."""
    opened = open_workdir(config, workdir)
    if not (opened.workdir / "config.yaml").is_file():
        opened.begin()
    evaluate(opened, config.evaluate)
    show(workdir)


def show(workdir: Path) -> None:
    """Draws the report of a work directory and prints its table."""
    page = write_report(workdir)
    results = read_results(workdir)
    print(to_markdown(build_table(results)))
    for line in mismatches(results):
        print(line)
    print(f"\nReport: {page}")


def evaluate(run: Workdir, options: EvaluateOptions) -> Path:
    """Measures one method and writes `results/<method>.json`, `.csv` and `.examples.npz`.

    Args:
        run: work directory, configuration and data.
        options: weights, task, split, method and number of examples.

    Returns:
        Path of the JSON file.

    Raises:
        UserError: no such weights, task or split, nothing to adapt, or a peer that is not installed.
    """
    task = options.task or run.target
    if options.adapt_steps and options.weights in UNTRAINED:
        raise UserError(
            f"`evaluate.adapt_steps` ({options.adapt_steps}) must be 0: `evaluate.weights` "
            f"({options.weights}) has no weights to adapt."
        )
    if not task:
        raise UserError(f"{run.records.root}: holds no target task; name a task with `evaluate.task`.")
    with damage_named(run.records, [task]):
        evaluator, results = _measured(run, task, options)
    method = options.method or _method(options.weights) + ("_pair" if options.adapt_steps else "")
    folder = run.workdir / "results"
    write_text(folder / f"{method}.csv", to_csv(results))
    with published(folder / f"{method}.examples.npz") as temporary:
        np.savez_compressed(temporary, **evaluator.examples(options.examples))
    result = {
        "schema": 1,
        "method": method,
        "task": task,
        "split": options.split,
        **_origin(run, options.weights),
        **({"adapt_steps": options.adapt_steps} if options.adapt_steps else {}),
        **summary(results),
        "per_pair": f"{method}.csv",
    }
    write_json(folder / f"{method}.json", result)
    return folder / f"{method}.json"


def _measured(run: Workdir, task: str, options: EvaluateOptions) -> tuple[Evaluator, list[PairResult]]:
    """Every pair of the split; with the alignment, and its time, where that is part of the row."""
    register = _register(run, options)
    pairs = examples(run.records, task, options.split)
    compiled = options.weights not in PEERS and not options.adapt_steps
    if not _aligns(run, options.weights):
        evaluator = Evaluator(register, unaligned(pairs), run.loss_fn(), compiled=compiled)
        return evaluator, evaluator()
    alignments, seconds = measured_alignments(run.records, task, options.split, run.workdir / "results")
    if run.records.manifest.align == "none":
        pairs = realigned(pairs, alignments)
    evaluator = Evaluator(register, pairs, run.loss_fn(), compiled=compiled)
    return evaluator, with_alignment_time(evaluator(), seconds)


def _register(run: Workdir, options: EvaluateOptions) -> RegisterFn:
    """The registration that `evaluate.weights` stands for."""
    weights = options.weights
    if weights in ("none", "affine"):
        return undeformed
    if weights in PEERS:
        return peer(weights)
    path = run.weights(weights)
    model = run.starting_from(path).model()
    load_weights(model, path)
    if options.adapt_steps:
        adaptation = Adaptation(model, run.loss_fn(), options.adapt_learning_rate)
        return _adapting(model, adaptation, options.adapt_steps)
    return functools.partial(register_pair, model)


def _adapting(model: RegistrationModel, adaptation: Adaptation, steps: int) -> RegisterFn:
    """The registration by a network that is adapted to each pair alone, every time from the same weights."""
    start, registrar = model.get_weights(), Registrar(model)

    def register(pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
        images = tuple(image.numpy()[0, ..., 0] for image in pair)
        model.set_weights(start)
        try:
            adaptation(itertools.repeat(images, steps))
        except UserError as error:
            print(f"note: a pair is left as the weights have it: {error}", file=sys.stderr)
            model.set_weights(start)
        warped, displacement = registrar(*images)
        return tf.constant(warped[None, ..., None]), tf.constant(displacement[None])

    return register


def _aligns(run: Workdir, weights: str) -> bool:
    """Whether the alignment is part of the row: its own row, and of a network's on records that have one."""
    return weights == "affine" or (weights not in UNTRAINED and run.records.manifest.align != "none")


def _origin(run: Workdir, weights: str) -> dict[str, Optional[int]]:
    """Seed and fine-tuning epochs behind the weights; null where a file does not tell."""
    if weights in UNTRAINED:
        return {"seed": run.config.seed, "epochs": 0}
    decided = run.decided(weights)
    return {"seed": decided.get("seed"), "epochs": decided.get("finetune.epochs", 0) if decided else None}


def _method(weights: str) -> str:
    """A result's name after its weights: a stage's name, or a file's."""
    if weights in UNTRAINED:
        return UNTRAINED[weights].name
    path = Path(weights)
    if path.suffix != ".h5":
        return weights
    return path.parent.name if path.stem == "model" else path.stem
