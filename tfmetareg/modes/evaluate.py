"""Measures weights on a split of a task, into the work directory's results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.config import Config, EvaluateOptions, ModelOptions
from tfmetareg.data.records import damage_named, examples, realigned, unaligned
from tfmetareg.data.schema import origin
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
    with_alignments,
)
from tfmetareg.evaluation.originals import find_originals
from tfmetareg.evaluation.peers import PEERS, peer
from tfmetareg.files import published, write_json, write_text
from tfmetareg.geometry.displacement import warp_image
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.preprocessing_file import preprocessing_differences
from tfmetareg.lock import run_in
from tfmetareg.methods import UNTRAINED
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.models.weights import load_weights
from tfmetareg.modes.configured import build_configured
from tfmetareg.modes.workdir import Workdir, open_workdir
from tfmetareg.registration.network import Adaptation, Registrar
from tfmetareg.report.page import report_warnings, write_report
from tfmetareg.report.pair_scores import pairs_to_show
from tfmetareg.report.results import before_and_after, prepared_otherwise, read_result, read_results
from tfmetareg.report.tables import build_table, to_markdown
from tfmetareg.training.steps import register_pair
from tfmetareg.types import PairBatch, nothing_found_line

_compiled_undeformed = tf.function(undeformed)
# Networks that are kept ready: the rows of one comparison have the same.
_KEPT_NETWORKS = 1


def run(config: Config, path: Path) -> None:
    """Evaluates as `config.evaluate` says, draws the report and prints the table, of each task in a list."""
    whole = open_workdir(config, path)
    by_workdir = rows(whole)
    for workdir, measured in by_workdir:
        for row in measured:
            _check(workdir, row)
    for workdir, measured in by_workdir:
        # The command has the lock of the whole work directory already.
        with contextlib.nullcontext() if workdir.path == whole.path else run_in(workdir.path, wait=True):
            if not (workdir.path / "config.yaml").is_file():
                workdir.begin()
            for row in measured:
                print(before_and_after(read_result(evaluate(workdir, row))))
            show(workdir.path)


def rows(workdir: Workdir) -> list[tuple[Workdir, list[EvaluateOptions]]]:
    """What `evaluate` asks for: measurements of one set of weights on one task, by work directory.

    Each of a list of tasks has a work directory of its own, `tasks/<task>` in the whole one.

    Raises:
        UserError: an empty list, one name for several results, the same task twice, no such weights.
    """
    options = workdir.config.evaluate
    weights, tasks = (
        [names] if isinstance(names, str) else names for names in (options.weights, options.task)
    )
    for key, names in (("weights", weights), ("task", tasks)):
        if not names:
            raise UserError(f"`evaluate.{key}` ([]) must name one at least.")
    if len({*tasks}) < len(tasks):
        raise UserError(f"`evaluate.task` ({', '.join(tasks)}) must name each task once.")
    methods = distinct_methods(weights)
    if options.method or options.adapt_steps:
        methods = [options.method or f"{method}_pair" for method in methods]
    if alike := [method for method in methods if methods.count(method) > 1]:
        raise UserError(
            f"`evaluate.weights`: several of them would be called {alike[0]}; measure those one at a time, "
            "each with an `evaluate.method` of its own."
        )
    if isinstance(options.task, str):
        return [(workdir, _rows(options, weights, methods))]
    weights = [one if one in UNTRAINED else str(workdir.weights(one)) for one in weights]
    return [
        (
            dataclasses.replace(workdir, path=workdir.path / "tasks" / task),
            _rows(dataclasses.replace(options, task=task), weights, methods),
        )
        for task in tasks
    ]


def _rows(options: EvaluateOptions, weights: list[str], methods: list[str]) -> list[EvaluateOptions]:
    return [dataclasses.replace(options, weights=one, method=method) for one, method in zip(weights, methods)]


def show(path: Path) -> None:
    """Draws the report of a work directory and prints its table."""
    page = write_report(path)
    results = read_results(path)
    print(to_markdown(build_table(results)))
    for line in report_warnings(results):
        print(f"warning: {line}")
    print(f"\nReport: {page}")


def _check(workdir: Workdir, options: EvaluateOptions) -> str:
    """Refuses what cannot be measured, before others are; returns the task.

    Raises:
        UserError: no such weights, task or split, nothing to adapt, or a peer that is not installed.
    """
    weights, task = str(options.weights), str(options.task) or workdir.target
    if options.adapt_steps and weights in UNTRAINED:
        raise UserError(
            f"`evaluate.adapt_steps` ({options.adapt_steps}) must be 0: `evaluate.weights` "
            f"({weights}) has no weights to adapt."
        )
    if options.images and not Path(options.images).is_dir():
        raise UserError(
            f"`evaluate.images` ({options.images}): no such folder; name the one that the records were built "
            "from (the builder's `--input`)."
        )
    if not task:
        raise UserError(f"{workdir.records.root}: holds no target task; name a task with `evaluate.task`.")
    workdir.records.shards(task, options.split)
    if weights in PEERS:
        peer(weights)
    elif weights not in UNTRAINED:
        workdir.weights(weights)
    return task


def evaluate(workdir: Workdir, options: EvaluateOptions) -> Path:
    """Measures one method and writes `results/<method>.json`, `.csv` and `.examples.npz`.

    Args:
        workdir: where weights are looked for and results are written, with the data.
        options: weights, task, split, method and number of examples; no lists.

    Returns:
        Path of the JSON file.

    Raises:
        UserError: no such weights, task or split, nothing to adapt, or a peer that is not installed.
    """
    weights, task = str(options.weights), _check(workdir, options)
    differences = _preprocessing_differences(workdir, task, weights)
    with damage_named(workdir.records, [task]):
        evaluator, results = _measured(workdir, task, options)
    method = options.method or _method(weights) + ("_pair" if options.adapt_steps else "")
    folder = workdir.path / "results"
    write_text(folder / f"{method}.csv", to_csv(results))
    with published(folder / f"{method}.examples.npz") as temporary:
        np.savez_compressed(temporary, **_examples(workdir, task, evaluator, results, options))
    result = {
        "schema": 1,
        "method": method,
        "task": task,
        "split": options.split,
        **_origin(workdir, weights),
        **({"adapt_steps": options.adapt_steps} if options.adapt_steps else {}),
        **({"preprocessing_differs": differences} if differences else {}),
        **summary(results),
        "per_pair": f"{method}.csv",
    }
    if result["unaligned"]:
        print(f"note: {method}: {nothing_found_line(result['unaligned'], len(results))}.", file=sys.stderr)
    write_json(folder / f"{method}.json", result)
    return folder / f"{method}.json"


def _measured(workdir: Workdir, task: str, options: EvaluateOptions) -> tuple[Evaluator, list[PairResult]]:
    """Results of all pairs of the split, with the alignment and its time where that is part of the row."""
    weights = str(options.weights)
    register = _register(workdir, weights, options)
    pairs = examples(workdir.records, task, options.split)
    align = workdir.records.manifest.align_of(task)
    if not _aligns(weights, align):
        evaluator = Evaluator(register, unaligned(pairs), workdir.loss_fn(), compiled=False)
        return evaluator, evaluator()
    alignments, seconds = measured_alignments(workdir.records, task, options.split, workdir.path / "results")
    if align == "none":
        pairs = realigned(pairs, alignments)
    evaluator = Evaluator(register, pairs, workdir.loss_fn(), compiled=False)
    return evaluator, with_alignments(with_alignment_time(evaluator(), seconds.tolist()), alignments)


def _examples(
    workdir: Workdir, task: str, evaluator: Evaluator, results: list[PairResult], options: EvaluateOptions
) -> dict[str, np.ndarray]:
    """Arrays of the pairs that figures show, with their original images if these are found."""
    manifest = workdir.records.manifest
    arrays = evaluator.examples(pairs_to_show(results, options.examples))
    arrays["intensity"] = np.array(manifest.preprocessing_of(task).get("intensity", ""))
    if options.comparison != "auto":
        arrays["comparison"] = np.array(options.comparison)
    folder = Path(options.images) if options.images else origin(workdir.records.root, task)
    if folder is None:
        return arrays
    preprocessing = Preprocessing.from_description(manifest.image_shape, manifest.preprocessing_of(task))
    missing = []
    for index, key in enumerate(arrays["key"].tolist()):
        recorded = [np.rint(255 * arrays[name][index]).astype(np.uint8) for name in ("moving", "fixed")]
        originals = find_originals(folder, key, (recorded[0], recorded[1]), preprocessing)
        if originals is None:
            missing.append(key)
            continue
        moving, fixed = originals
        warped = warp_image(moving, arrays["displacement"][index])
        for name, image in (("moving", moving), ("fixed", fixed), ("warped", warped)):
            arrays[f"original_{name}_{index}"] = image
    if missing and options.images:
        more = ", ..." if len(missing) > 1 else ""
        pairs = "pair" if len(missing) == 1 else "pairs"
        print(
            f"note: figures show the records' own images of {len(missing)} {pairs} ({missing[0]}{more}): "
            f"{options.images} has no images under these names that the records were made of.",
            file=sys.stderr,
        )
    return arrays


def _preprocessing_differences(workdir: Workdir, task: str, weights: str) -> dict[str, dict[str, Any]]:
    """In what the records were prepared otherwise than the images of the network; a line on stderr tells."""
    if weights in UNTRAINED:
        return {}
    path, manifest = workdir.weights(weights), workdir.records.manifest
    differences = preprocessing_differences(path, manifest.image_shape, manifest.preprocessing_of(task))
    if differences is None:
        print(f"note: {path}: nothing beside it tells how its images were prepared.", file=sys.stderr)
    elif differences:
        print(f"warning: {path}: {prepared_otherwise(differences)}", file=sys.stderr)
    return differences or {}


def _register(workdir: Workdir, weights: str, options: EvaluateOptions) -> RegisterFn:
    """The registration that `evaluate.weights` names."""
    if weights in ("none", "affine"):
        return _compiled_undeformed
    if weights in PEERS:
        return peer(weights)
    path = workdir.weights(weights)
    resolved = workdir.with_network_of(path).config.model
    model, register = _ready_network(
        json.dumps(dataclasses.asdict(resolved)), workdir.records.manifest.image_shape
    )
    load_weights(model, path)
    if options.adapt_steps:
        adaptation = Adaptation(model, workdir.loss_fn(), options.adapt_learning_rate)
        return _adapting(model, adaptation, options.adapt_steps)
    return register


@functools.lru_cache(maxsize=_KEPT_NETWORKS)
def _ready_network(options: str, image_shape: tuple[int, int]) -> tuple[RegistrationModel, RegisterFn]:
    """A network and its registration as a graph, for the weights of one row after the other.

    Building and tracing take seconds, loading other weights milliseconds.

    Args:
        options: the section `model`, resolved, as JSON.
        image_shape: (height, width).
    """
    model = build_configured(ModelOptions(**json.loads(options)), image_shape)
    return model, tf.function(functools.partial(register_pair, model))


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


def _aligns(weights: str, align: str) -> bool:
    """Whether the alignment is part of the row: `affine`, and every network on a task with an alignment."""
    return weights == "affine" or (weights not in UNTRAINED and align != "none")


def _origin(workdir: Workdir, weights: str) -> dict[str, Optional[int]]:
    """Seed and fine-tuning epochs of the weights; None where they are not known, as for a file."""
    if weights in UNTRAINED:
        return {"seed": workdir.config.seed, "epochs": 0}
    trained = workdir.stage_fingerprint(weights)
    return {"seed": trained.get("seed"), "epochs": trained.get("finetune.epochs", 0) if trained else None}


def distinct_methods(weights: Sequence[str]) -> list[str]:
    """Names of the results of several weights; where they are alike, with the folder that the file is from.

    >>> distinct_methods(["none", "seed-0/reptile/model.h5", "seed-1/reptile/model.h5"])
    ['not_deformed', 'reptile-seed-0', 'reptile-seed-1']
    """
    names = [_method(one) for one in weights]
    folders = [(path.parent if path.stem == "model" else path).parent.name for path in map(Path, weights)]
    return [
        f"{name}-{folder}" if folder and names.count(name) > 1 else name
        for name, folder in zip(names, folders)
    ]


def _method(weights: str) -> str:
    """A result's name after its weights: a stage's name, or a file's."""
    if weights in UNTRAINED:
        return UNTRAINED[weights].name
    path = Path(weights)
    if path.suffix != ".h5":
        return weights
    return path.parent.name if path.stem == "model" else path.stem
