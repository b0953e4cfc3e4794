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


def run(config: Config, path: Path) -> None:
    """Evaluates as `config.evaluate` says, draws the report and prints the table."""
    workdir = open_workdir(config, path)
    if not (workdir.path / "config.yaml").is_file():
        workdir.begin()
    evaluate(workdir, config.evaluate)
    show(workdir.path)


def show(path: Path) -> None:
    """Draws the report of a work directory and prints its table."""
    page = write_report(path)
    results = read_results(path)
    print(to_markdown(build_table(results)))
    for line in mismatches(results):
        print(line)
    print(f"\nReport: {page}")


def evaluate(workdir: Workdir, options: EvaluateOptions) -> Path:
    """Measures one method and writes `results/<method>.json`, `.csv` and `.examples.npz`.

    Args:
        workdir: where weights are looked for and results are written, with the data.
        options: weights, task, split, method and number of examples.

    Returns:
        Path of the JSON file.

    Raises:
        UserError: no such weights, task or split, nothing to adapt, or a peer that is not installed.
    """
    task = options.task or workdir.target
    if options.adapt_steps and options.weights in UNTRAINED:
        raise UserError(
            f"`evaluate.adapt_steps` ({options.adapt_steps}) must be 0: `evaluate.weights` "
            f"({options.weights}) has no weights to adapt."
        )
    if not task:
        raise UserError(f"{workdir.records.root}: holds no target task; name a task with `evaluate.task`.")
    with damage_named(workdir.records, [task]):
        evaluator, results = _measured(workdir, task, options)
    method = options.method or _method(options.weights) + ("_pair" if options.adapt_steps else "")
    folder = workdir.path / "results"
    write_text(folder / f"{method}.csv", to_csv(results))
    with published(folder / f"{method}.examples.npz") as temporary:
        np.savez_compressed(temporary, **evaluator.examples(options.examples))
    result = {
        "schema": 1,
        "method": method,
        "task": task,
        "split": options.split,
        **_origin(workdir, options.weights),
        **({"adapt_steps": options.adapt_steps} if options.adapt_steps else {}),
        **summary(results),
        "per_pair": f"{method}.csv",
    }
    write_json(folder / f"{method}.json", result)
    return folder / f"{method}.json"


def _measured(workdir: Workdir, task: str, options: EvaluateOptions) -> tuple[Evaluator, list[PairResult]]:
    """Results of all pairs of the split, with the alignment and its time where that is part of the row."""
    register = _register(workdir, options)
    pairs = examples(workdir.records, task, options.split)
    compiled = options.weights not in PEERS and not options.adapt_steps
    if not _aligns(workdir, options.weights):
        evaluator = Evaluator(register, unaligned(pairs), workdir.loss_fn(), compiled=compiled)
        return evaluator, evaluator()
    alignments, seconds = measured_alignments(workdir.records, task, options.split, workdir.path / "results")
    if workdir.records.manifest.align == "none":
        pairs = realigned(pairs, alignments)
    evaluator = Evaluator(register, pairs, workdir.loss_fn(), compiled=compiled)
    return evaluator, with_alignment_time(evaluator(), seconds.tolist())


def _register(workdir: Workdir, options: EvaluateOptions) -> RegisterFn:
    """The registration that `evaluate.weights` names."""
    weights = options.weights
    if weights in ("none", "affine"):
        return undeformed
    if weights in PEERS:
        return peer(weights)
    path = workdir.weights(weights)
    model = workdir.with_network_of(path).model()
    load_weights(model, path)
    if options.adapt_steps:
        adaptation = Adaptation(model, workdir.loss_fn(), options.adapt_learning_rate)
        return _adapting(model, adaptation, options.adapt_steps)
    return functools.partial(register_pair, model)


def _adapting(model: RegistrationModel, adaptation: Adaptation, steps: int) -> RegisterFn:
    """Registration by a network that is adapted to each pair alone, always from the same weights."""
    start, registrar = model.get_weights(), Registrar(model)

    def register(pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
        moving, fixed = (np.asarray(image)[0, ..., 0] for image in pair)
        model.set_weights(start)
        try:
            adaptation(itertools.repeat((moving, fixed), steps))
        except UserError as error:
            print(f"note: a pair is left as the weights have it: {error}", file=sys.stderr)
            model.set_weights(start)
        warped, displacement = registrar(moving, fixed)
        return tf.constant(warped[None, ..., None]), tf.constant(displacement[None])

    return register


def _aligns(workdir: Workdir, weights: str) -> bool:
    """Whether the alignment is part of the row: `affine`, and every network on records with an alignment."""
    return weights == "affine" or (weights not in UNTRAINED and workdir.records.manifest.align != "none")


def _origin(workdir: Workdir, weights: str) -> dict[str, Optional[int]]:
    """Seed and fine-tuning epochs of the weights; None where they are not known, as for a file."""
    if weights in UNTRAINED:
        return {"seed": workdir.config.seed, "epochs": 0}
    trained = workdir.stage_fingerprint(weights)
    return {"seed": trained.get("seed"), "epochs": trained.get("finetune.epochs", 0) if trained else None}


def _method(weights: str) -> str:
    """A result's name after its weights: a stage's name, or a file's."""
    if weights in UNTRAINED:
        return UNTRAINED[weights].name
    path = Path(weights)
    if path.suffix != ".h5":
        return weights
    return path.parent.name if path.stem == "model" else path.stem
