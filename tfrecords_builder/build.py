"""Reads tasks from a source, preprocesses their pairs and publishes them as records."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import operator
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

from tfmetareg.data.schema import SPLITS, Manifest, Split, Task
from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.types import nothing_found_line
from tfrecords_builder.identity import build_identity
from tfrecords_builder.notes import note_lines
from tfrecords_builder.progress import BuildProgress
from tfrecords_builder.publish import finish_published, manifest_with, publish, staging_folder
from tfrecords_builder.sources.base import LazyPairs, Partition, SourceTask
from tfrecords_builder.splits import PairInfo, SplitFile, assign_splits, held_out_subjects
from tfrecords_builder.workers import Engine, RunJobs, local_workers
from tfrecords_builder.writer import Batch, BatchResult, ShardFile, SpooledPair, shard_files

DEFAULT_SHARDS = 4
# Pairs per job: a restarted build repeats at most the jobs that had not finished.
_PAIRS_PER_BATCH = 8
# A worker takes about as long to start as to prepare this many pairs.
_PAIRS_PER_WORKER = 32
# Names of pairs in one line, at most; `inspect` tells all.
_MOST_NAMES = 20

PrintLine = Callable[[str], None]


class SplitPlan(NamedTuple):
    """How pairs are split: by the file if there is one, else as the source prescribes, else by ratio."""

    test_fraction: float = 0.2
    seed: int = 0
    file: Optional[SplitFile] = None


def build(
    tasks: Sequence[SourceTask],
    output: Union[str, os.PathLike],
    *,
    preprocessing: Preprocessing,
    shards: int = DEFAULT_SHARDS,
    seed: int = 0,
    test_fraction: float = 0.2,
    splits: Optional[SplitFile] = None,
    overwrite: bool = False,
    problems: Optional[Problems] = None,
    inputs: Optional[Sequence[Path]] = None,
    origin: Optional[Path] = None,
    workers: int = 1,
    engine: Optional[Engine] = None,
    say: PrintLine = print,
) -> Manifest:
    """Adds tasks to the records in `output`, all of them or none.

    The bytes written do not depend on `workers` or `engine`.

    >>> import numpy as np, tempfile
    >>> from tfmetareg.types import ImagePair
    >>> rng = np.random.default_rng(0)
    >>> pairs = [ImagePair(f"p{i}", f"eye{i}", *rng.random((2, 20, 20)), split="train") for i in range(3)]
    >>> task = SourceTask("noise", "source", "synthetic", pairs)
    >>> with tempfile.TemporaryDirectory() as records:
    ...     manifest = build([task], records, preprocessing=Preprocessing((32, 32)), say=lambda line: None)
    >>> manifest.task("noise").splits["train"].pairs
    3

    Args:
        tasks: what to build; each process reads its pairs one at a time.
        output: records folder; created if missing.
        preprocessing: what is done to each image.
        shards: number of files per split, at most one per pair.
        seed: seed of the splits and of the order of pairs.
        test_fraction: share of the subjects to hold out where the source prescribes no split.
        splits: the split of every pair; takes precedence over the source's.
        overwrite: replace tasks that exist already.
        problems: collects mistakes in the tasks' input.
        inputs: all files and folders that the tasks are read from. If given, a
            stopped build can be continued, unless one of them has changed.
        origin: folder that the pairs' keys name files of; noted, so that figures can show these.
        workers: largest number of processes. Few pairs, and tasks whose pairs are
            not `LazyPairs`, are built in this process.
        engine: runs the jobs in place of `workers`.
        say: prints a line of the report.

    Returns:
        The manifest of `output`.

    Raises:
        UserError: the input has mistakes (`InputErrors` lists them all), a task
            exists already, the records in `output` were built with other
            settings, or `output` cannot be written. `output` is then unchanged.
    """
    output = Path(output)
    started = time.monotonic()
    problems = Problems() if problems is None else problems
    if not tasks:
        problems.raise_any()
    plan = SplitPlan(test_fraction, seed, splits)
    with problems.collected():
        _check_names(tasks)
    names = [task.name for task in tasks]
    identity = None
    if inputs is not None:
        identity = build_identity(tasks, inputs, output, preprocessing, plan, shards)
        if finish_published(output, names, identity, origin):
            say(f"{output}: built already by the run before, which was stopped as it ended.")
            return Manifest.read(output)
    planned = tuple(
        Task(task.name, task.role, task.modality, {}, two_contrasts=task.two_contrasts) for task in tasks
    )
    manifest = Manifest(preprocessing.image_size, preprocessing.describe(), planned)
    manifest_with(output, manifest, overwrite=overwrite)
    with staging_folder(output, names, identity) as staging, _engine(tasks, workers, engine, staging) as run:
        prepared, reused = _prepare(tasks, preprocessing, problems, run, staging)
        if reused:
            say(f"{output}: goes on with a build that was stopped: {reused} pairs were there already.")
        groups = _grouped(tasks, prepared, plan, problems, say)
        _check_split_file(plan, prepared, problems)
        problems.raise_any()
        written = _write(planned, groups, staging, shards, seed, run)
        manifest = dataclasses.replace(manifest, tasks=written)
        merged = publish(staging, output, manifest, overwrite=overwrite, origin=origin)
    _report(output, written, time.monotonic() - started, say)
    return merged


def _report(output: Path, written: Sequence[Task], seconds: float, say: PrintLine) -> None:
    count = 0
    for task in written:
        counts = ", ".join(f"{split.pairs} {name}" for name, split in task.splits.items())
        say(f"{output}: task `{task.name}` ({task.role}): {counts} pairs.")
        count += sum(split.pairs for split in task.splits.values())
    say(f"{output}: {count} pairs in {seconds:.1f} s, {count / seconds:.1f} pairs/s.")


def validate(
    tasks: Sequence[SourceTask],
    *,
    preprocessing: Preprocessing,
    seed: int = 0,
    test_fraction: float = 0.2,
    splits: Optional[SplitFile] = None,
    problems: Optional[Problems] = None,
    workers: int = 1,
    say: PrintLine = print,
) -> None:
    """Reads and preprocesses everything as `build` does, but writes nothing.

    Raises:
        UserError: `InputErrors` lists every problem.
    """
    problems = Problems() if problems is None else problems
    with problems.collected():
        _check_names(tasks)
    with _engine(tasks, workers) as run:
        prepared, _ = _prepare(tasks, preprocessing, problems, run)
    plan = SplitPlan(test_fraction, seed, splits)
    groups = _grouped(tasks, prepared, plan, problems, say)
    _check_split_file(plan, prepared, problems)
    problems.raise_any()
    for task, own in zip(tasks, groups):
        counts = ", ".join(f"{len(group)} {name}" for name, group in own.items())
        say(f"task `{task.name}` ({task.role}): {counts} pairs, no problems.")


def _engine(
    tasks: Sequence[SourceTask],
    workers: int,
    engine: Optional[Engine] = None,
    staging: Optional[Path] = None,
) -> contextlib.AbstractContextManager[RunJobs]:
    """`engine`, or local processes: at most `workers`, and no more than are worth their start-up time."""
    if not all(isinstance(task.pairs, LazyPairs) for task in tasks):
        return local_workers(1)
    if engine is not None and staging is not None:
        return engine(staging)
    pairs = sum(map(_expected_pairs, tasks))
    return local_workers(max(1, min(workers, pairs // _PAIRS_PER_WORKER)))


def _expected_pairs(task: SourceTask) -> int:
    """Number of pairs; where it is unknown, estimated at a volume's worth per partition."""
    known = operator.length_hint(task.pairs)
    if known or not isinstance(task.pairs, LazyPairs):
        return known
    return _PAIRS_PER_WORKER * len(task.pairs.partitions)


def _prepare(
    tasks: Sequence[SourceTask],
    preprocessing: Preprocessing,
    problems: Problems,
    run: RunJobs,
    staging: Optional[Path] = None,
) -> tuple[list[list[SpooledPair]], int]:
    """Preprocesses the pairs of each task and, if there is a `staging` folder, spools them.

    Returns:
        The pairs of each task that can become records, and how many of them an earlier run had spooled.
    """
    batches = [
        [
            Batch(partitions, preprocessing, problems, staging and staging / f"{index}-{number:06d}.spool")
            for number, partitions in enumerate(_batches(task))
        ]
        for index, task in enumerate(tasks)
    ]
    results = run(itertools.chain.from_iterable(batches))
    collected = [
        _collected(task, itertools.islice(results, len(own)), problems) for task, own in zip(tasks, batches)
    ]
    prepared = [pairs for pairs, _ in collected]
    for line in note_lines(note for pairs in prepared for pair in pairs for note in pair.notes):
        print(line, file=sys.stderr)
    if preprocessing.align != "none":
        for task, pairs in zip(tasks, prepared):
            _note_nothing_found(task, pairs)
    return prepared, sum(reused for _, reused in collected)


def _note_nothing_found(task: SourceTask, pairs: Sequence[SpooledPair]) -> None:
    unaligned = [pair.key for pair in pairs if not pair.aligned]
    if unaligned:
        line = nothing_found_line(unaligned, len(pairs), most=_MOST_NAMES)
        print(f"note: task `{task.name}`: {line}.", file=sys.stderr)


def _batches(task: SourceTask) -> list[Sequence[Partition]]:
    if not isinstance(task.pairs, LazyPairs):
        return [(functools.partial(iter, task.pairs),)]
    partitions = task.pairs.partitions
    size = max(1, _PAIRS_PER_BATCH * len(partitions) // max(1, _expected_pairs(task)))
    return [partitions[first : first + size] for first in range(0, len(partitions), size)]


def _collected(
    task: SourceTask, results: Iterable[BatchResult], problems: Problems
) -> tuple[list[SpooledPair], int]:
    pairs: dict[str, SpooledPair] = {}
    reused = 0
    with contextlib.closing(BuildProgress(task.name, operator.length_hint(task.pairs) or None)) as bar:
        for batch in results:
            for line in batch.problems:
                problems.add(line)
            for pair in batch.pairs:
                if pairs.setdefault(pair.key, pair) is not pair:
                    problems.add(f"task `{task.name}`: pair {pair.key} is there twice; remove one.")
            reused += len(batch.pairs) if batch.reused else 0
            bar.advance(len(batch.pairs))
    return list(pairs.values()), reused


def _grouped(
    tasks: Sequence[SourceTask],
    prepared: Sequence[Sequence[SpooledPair]],
    plan: SplitPlan,
    problems: Problems,
    say: PrintLine,
) -> list[dict[str, list[SpooledPair]]]:
    """The pairs of each task by split; no pairs where the splits have mistakes."""
    infos = [_prescribed(pairs, plan, problems) for pairs in prepared]
    held_out = held_out_subjects(infos, test_fraction=plan.test_fraction, seed=plan.seed)
    groups = []
    for task, pairs, own in zip(tasks, prepared, infos):
        if not pairs and not problems.lines:
            problems.add(f"task `{task.name}`: no pairs; the input must hold at least one.")
        splits: dict[str, str] = {}
        with problems.collected():
            splits = assign_splits(own, task.role, held_out)
            _note_nothing_held_out(task, own, held_out, plan, say)
        by_split = {name: [pair for pair in pairs if splits.get(pair.key) == name] for name in SPLITS}
        groups.append({name: group for name, group in by_split.items() if group})
    return groups


def _prescribed(pairs: Sequence[SpooledPair], plan: SplitPlan, problems: Problems) -> list[PairInfo]:
    """The pairs with their prescribed splits; if there is a split file, only the pairs that it names."""
    infos = [_info(pair) for pair in pairs]
    if plan.file is None:
        return infos
    with problems.collected():
        plan.file.check_complete(infos)
    return plan.file.prescribe(infos)


def _note_nothing_held_out(
    task: SourceTask, pairs: Sequence[PairInfo], held_out: Set[str], plan: SplitPlan, say: PrintLine
) -> None:
    subjects = {pair.subject for pair in pairs}
    if not plan.test_fraction or subjects & held_out or any(pair.split for pair in pairs):
        return
    if len(subjects) == 1:
        say(f"note: task `{task.name}` has a single subject, so nothing is held out for testing.")
    elif subjects:
        say(
            f"note: task `{task.name}` shares its subjects with other tasks, which could not learn without "
            "them, so nothing is held out for testing."
        )


def _info(pair: SpooledPair) -> PairInfo:
    return PairInfo(pair.key, pair.subject, pair.split)


def _check_split_file(plan: SplitPlan, prepared: Sequence[Sequence[SpooledPair]], problems: Problems) -> None:
    if plan.file is None:
        return
    infos = [_info(pair) for pairs in prepared for pair in pairs]
    with problems.collected():
        plan.file.check_used(infos, all_read=not problems.lines)


def _write(
    tasks: Sequence[Task],
    groups: Sequence[dict[str, list[SpooledPair]]],
    staging: Path,
    shards: int,
    seed: int,
    run: RunJobs,
) -> tuple[Task, ...]:
    """Writes the shards of every task into `staging`; returns the tasks' entries for the manifest."""
    files = [
        {
            name: shard_files(staging, task.name, name, group, shards=shards, seed=seed)
            for name, group in own.items()
        }
        for task, own in zip(tasks, groups)
    ]
    results = run([file for own in files for split in own.values() for file in split])
    return tuple(
        dataclasses.replace(
            task, splits={name: _split(group, files_of[name], results) for name, group in own.items()}
        )
        for task, own, files_of in zip(tasks, groups, files)
    )


def _split(pairs: Sequence[SpooledPair], files: Sequence[ShardFile], results: Iterator) -> Split:
    subjects = {pair.subject for pair in pairs}
    return Split(len(pairs), len(subjects), tuple(itertools.islice(results, len(files))))


def _check_names(tasks: Sequence[SourceTask]) -> None:
    """Refuses task names that cannot be part of a file name."""
    wrong = [task.name for task in tasks if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", task.name)]
    if wrong:
        raise UserError(
            "\n".join(
                f"task name `{name}`: letters, digits, `.`, `_`, `-` only; rename it, or give `--task NAME`."
                for name in wrong
            )
        )
