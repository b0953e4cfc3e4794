"""Reads tasks from a source, preprocesses their pairs and publishes them as records."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import operator
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

from tfmetareg.data.schema import SPLITS, Manifest, Split, Task
from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfrecords_builder.identity import build_identity
from tfrecords_builder.progress import BuildProgress
from tfrecords_builder.publish import finish_published, manifest_with, publish, staging_folder
from tfrecords_builder.sources.base import Lazy, Part, SourceTask
from tfrecords_builder.splits import Member, SplitFile, assign_splits, held_out_subjects
from tfrecords_builder.workers import Engine, RunJobs, available_cpus, local_workers
from tfrecords_builder.writer import Batch, BatchResult, ShardFile, Spooled, shard_files

DEFAULT_SHARDS = 4
# Pairs between two marks that a restart goes on from.
_PAIRS_PER_BATCH = 8
# A worker takes about as long to start.
_PAIRS_PER_WORKER = 32

Say = Callable[[str], None]


class SplitPlan(NamedTuple):
    """How the pairs of a task are divided: by the file, else as the source prescribes, else by ratio."""

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
    workers: int = 1,
    engine: Optional[Engine] = None,
    say: Say = print,
) -> Manifest:
    """Adds tasks to the records in `output`, all of them or none.

    The bytes written do not depend on `workers` or `engine`.

    Args:
        tasks: what to build; pairs are read one at a time by each process.
        output: records folder; made if missing.
        preprocessing: what is done to each image.
        shards: files per split, at most one per pair.
        seed: of the splits and of the order of pairs.
        test_fraction: share of the subjects to hold out where the source does not say.
        splits: says the split of every pair, whatever the source says.
        overwrite: replace tasks that are there already.
        problems: where the tasks report what is wrong with their input.
        inputs: every file and folder that the tasks are read from. With it, a
            build that was stopped goes on where it was, unless they have changed.
        workers: processes, at most; for few pairs, and for tasks that are not
            `Lazy`, this process does it all.
        engine: what runs the jobs in place of `workers`.
        say: gets one line for each thing worth telling.

    Returns:
        The manifest as it stands in `output`.

    Raises:
        UserError: the input has problems (`InputErrors` lists them all), a
            task is there already, or was built otherwise, or `output` cannot
            be written. Nothing in `output` has changed then.
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
        if finish_published(output, names, identity):
            say(f"{output}: built already by the run before, which was stopped as it ended.")
            return Manifest.read(output)
    planned = tuple(Task(task.name, task.role, task.modality, {}) for task in tasks)
    manifest = Manifest(preprocessing.image_size, preprocessing.describe(), planned)
    manifest_with(output, manifest, overwrite=overwrite)
    with staging_folder(output, names, identity) as staging, _engine(tasks, workers, engine, staging) as run:
        prepared, kept = _prepare(tasks, preprocessing, problems, run, staging)
        if kept:
            say(f"{output}: goes on with a build that was stopped: {kept} pairs were there already.")
        groups = _grouped(tasks, prepared, plan, problems, say)
        _check_split_file(plan, prepared, problems)
        problems.raise_any()
        written = _write(planned, groups, staging, shards, seed, run)
        manifest = dataclasses.replace(manifest, tasks=written)
        merged = publish(staging, output, manifest, overwrite=overwrite)
    _tell(output, written, time.monotonic() - started, say)
    return merged


def _tell(output: Path, written: Sequence[Task], seconds: float, say: Say) -> None:
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
    say: Say = print,
) -> None:
    """Reads and preprocesses everything as `build` does, and writes nothing.

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


def build_embedded(
    output: Union[str, os.PathLike],
    *,
    image_size: tuple[int, int] = (128, 128),
    align: str = "none",
    share: float = 1.0,
    seed: int = 0,
    overwrite: bool = False,
    workers: Optional[int] = None,
    say: Say = print,
    **counts: int,
) -> Manifest:
    """Builds the embedded tasks into `output`: what `build --source embedded` does.

    Args:
        output: records folder.
        image_size: (height, width).
        align: "none", "rigid" or "affine".
        share: of the pairs that is made.
        seed: of the images, splits and order.
        overwrite: replace tasks that are there already.
        workers: processes; None for as many as there are processors. With more
            than one, a script that calls this must guard its own start by
            `if __name__ == "__main__":`.
        say: gets one line for each thing worth telling.
        counts: `source_pairs`, `source_test_pairs`, `target_finetune`, `target_test`.

    Returns:
        The manifest as it stands in `output`.
    """
    from tfrecords_builder.sources.embedded import embedded_tasks

    return build(
        embedded_tasks(image_size=image_size, share=share, seed=seed, **counts),
        output,
        preprocessing=Preprocessing(image_size, align=align, colour=None),
        seed=seed,
        overwrite=overwrite,
        inputs=(),
        workers=workers or available_cpus(),
        say=say,
    )


def _engine(
    tasks: Sequence[SourceTask],
    workers: int,
    engine: Optional[Engine] = None,
    staging: Optional[Path] = None,
) -> contextlib.AbstractContextManager[RunJobs]:
    """`engine`, or as many of `workers` as are worth the seconds that they take to start."""
    if not all(isinstance(task.pairs, Lazy) for task in tasks):
        return local_workers(1)
    if engine is not None and staging is not None:
        return engine(staging)
    pairs = sum(map(_expected_pairs, tasks))
    return local_workers(max(1, min(workers, pairs // _PAIRS_PER_WORKER)))


def _expected_pairs(task: SourceTask) -> int:
    """Where only reading tells, a part is taken for a volume of many."""
    return operator.length_hint(task.pairs) or _PAIRS_PER_WORKER * len(task.pairs.parts)


def _prepare(
    tasks: Sequence[SourceTask],
    preprocessing: Preprocessing,
    problems: Problems,
    run: RunJobs,
    staging: Optional[Path] = None,
) -> tuple[list[list[Spooled]], int]:
    """The pairs of each task that can become records, spooled where there is `staging`.

    Returns:
        Them, and how many of them an earlier run had spooled.
    """
    batches = [
        [
            Batch(parts, preprocessing, problems, staging and staging / f"{index}-{number:06d}.spool")
            for number, parts in enumerate(_batches(task))
        ]
        for index, task in enumerate(tasks)
    ]
    results = run(itertools.chain.from_iterable(batches))
    collected = [
        _collected(task, itertools.islice(results, len(own)), problems) for task, own in zip(tasks, batches)
    ]
    return [pairs for pairs, _ in collected], sum(kept for _, kept in collected)


def _batches(task: SourceTask) -> list[Sequence[Part]]:
    if not isinstance(task.pairs, Lazy):
        return [(functools.partial(iter, task.pairs),)]
    parts = task.pairs.parts
    size = max(1, _PAIRS_PER_BATCH * len(parts) // max(1, _expected_pairs(task)))
    return [parts[first : first + size] for first in range(0, len(parts), size)]


def _collected(
    task: SourceTask, results: Iterable[BatchResult], problems: Problems
) -> tuple[list[Spooled], int]:
    pairs: dict[str, Spooled] = {}
    kept = 0
    with contextlib.closing(BuildProgress(task.name, operator.length_hint(task.pairs) or None)) as bar:
        for prepared in results:
            for line in prepared.problems:
                problems.add(line)
            for pair in prepared.pairs:
                if pairs.setdefault(pair.key, pair) is not pair:
                    problems.add(f"task `{task.name}`: pair {pair.key} is there twice; remove one.")
            kept += len(prepared.pairs) if prepared.kept else 0
            bar.advance(len(prepared.pairs))
    return list(pairs.values()), kept


def _grouped(
    tasks: Sequence[SourceTask],
    prepared: Sequence[Sequence[Spooled]],
    plan: SplitPlan,
    problems: Problems,
    say: Say,
) -> list[dict[str, list[Spooled]]]:
    """The pairs of each task by split; nothing where that cannot be decided."""
    members = [_prescribed(pairs, plan, problems) for pairs in prepared]
    held_out = held_out_subjects(members, test_fraction=plan.test_fraction, seed=plan.seed)
    groups = []
    for task, pairs, own in zip(tasks, prepared, members):
        if not pairs and not problems.lines:
            problems.add(f"task `{task.name}`: no pairs; the input must hold at least one.")
        splits: dict[str, str] = {}
        with problems.collected():
            splits = assign_splits(own, task.role, held_out)
            _note_nothing_held_out(task, own, held_out, plan, say)
        by_split = {name: [pair for pair in pairs if splits.get(pair.key) == name] for name in SPLITS}
        groups.append({name: group for name, group in by_split.items() if group})
    return groups


def _prescribed(pairs: Sequence[Spooled], plan: SplitPlan, problems: Problems) -> list[Member]:
    """Members with the splits of the file, where there is one; without those that it leaves out."""
    members = [_member(pair) for pair in pairs]
    if plan.file is None:
        return members
    with problems.collected():
        plan.file.check_complete(members)
    return plan.file.prescribe(members)


def _note_nothing_held_out(
    task: SourceTask, members: Sequence[Member], held_out: Set[str], plan: SplitPlan, say: Say
) -> None:
    subjects = {member.subject for member in members}
    if not plan.test_fraction or subjects & held_out or any(member.split for member in members):
        return
    if len(subjects) == 1:
        say(f"note: task `{task.name}` has a single subject, so nothing is held out for testing.")
    elif subjects:
        say(
            f"note: task `{task.name}` shares its subjects with other tasks, which could not learn without "
            "them, so nothing is held out for testing."
        )


def _member(pair: Spooled) -> Member:
    return Member(pair.key, pair.subject, pair.split)


def _check_split_file(plan: SplitPlan, prepared: Sequence[Sequence[Spooled]], problems: Problems) -> None:
    if plan.file is None:
        return
    members = [_member(pair) for pairs in prepared for pair in pairs]
    with problems.collected():
        plan.file.check_used(members, all_read=not problems.lines)


def _write(
    tasks: Sequence[Task],
    groups: Sequence[dict[str, list[Spooled]]],
    staging: Path,
    shards: int,
    seed: int,
    run: RunJobs,
) -> tuple[Task, ...]:
    """Writes the shards of every task into `staging`; the manifest's entries."""
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


def _split(pairs: Sequence[Spooled], files: Sequence[ShardFile], results: Iterator) -> Split:
    subjects = {pair.subject for pair in pairs}
    return Split(len(pairs), len(subjects), tuple(itertools.islice(results, len(files))))


def _check_names(tasks: Sequence[SourceTask]) -> None:
    """Task names are parts of file names."""
    wrong = [task.name for task in tasks if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", task.name)]
    if wrong:
        raise UserError(
            "\n".join(
                f"task name `{name}`: letters, digits, `.`, `_`, `-` only; rename it, or give `--task NAME`."
                for name in wrong
            )
        )
