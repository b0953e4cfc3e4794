"""Measures weights on a split of a task, into the work directory's results."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from tfmetareg.config import Config, Evaluate
from tfmetareg.data.records import damage_named, examples
from tfmetareg.errors import UserError
from tfmetareg.evaluation import Evaluator, Register, summary, to_csv, undeformed
from tfmetareg.files import published, write_json, write_text
from tfmetareg.models.weights import load_weights
from tfmetareg.report.page import mismatches, write_report
from tfmetareg.report.results import read_results
from tfmetareg.report.tables import build_table, to_markdown
from tfmetareg.runs.run import Run, open_run
from tfmetareg.steps import register_pair


def run(config: Config, workdir: Path) -> None:
    """Evaluates as `config.evaluate` says, draws the report and prints the table."""
    opened = open_run(config, workdir)
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


def evaluate(run: Run, options: Evaluate) -> Path:
    """Measures one method and writes `results/<method>.json`, `.csv` and `.examples.npz`.

    Args:
        run: work directory, configuration and data.
        options: weights, task, split, method and number of examples.

    Returns:
        Path of the JSON file.

    Raises:
        UserError: no such weights, task or split.
    """
    task = options.task or run.target
    if not task:
        raise UserError(f"{run.records.root}: holds no target task; name a task with `evaluate.task`.")
    pairs = examples(run.records, task, options.split)
    register = _register(run, options.weights)
    with damage_named(run.records, [task]):
        evaluator = Evaluator(register, pairs, run.loss_fn())
        results = evaluator()
    method = options.method or _method(options.weights)
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
        **summary(results),
        "per_pair": f"{method}.csv",
    }
    write_json(folder / f"{method}.json", result)
    return folder / f"{method}.json"


def _register(run: Run, weights: str) -> Register:
    """The registration that `weights` stands for."""
    if weights == "none":
        return undeformed
    path = run.weights(weights)
    model = run.model()
    load_weights(model, path)
    return functools.partial(register_pair, model)


def _origin(run: Run, weights: str) -> dict[str, Optional[int]]:
    """Seed and fine-tuning epochs behind the weights; null where a file does not tell."""
    if weights == "none":
        return {"seed": run.config.seed, "epochs": 0}
    decided = run.decided(weights)
    return {"seed": decided.get("seed"), "epochs": decided.get("finetune.epochs", 0) if decided else None}


def _method(weights: str) -> str:
    """A result's name after its weights: a stage's name, or a file's."""
    if weights == "none":
        return "not_deformed"
    path = Path(weights)
    if path.suffix != ".h5":
        return weights
    return path.parent.name if path.stem == "model" else path.stem
