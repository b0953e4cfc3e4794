"""Reads tasks from a source, preprocesses their pairs and publishes them as records."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union

from tfmetareg.errors import UserError
from tfmetareg.schema import SPLITS, Manifest, Task
from tfmetareg.types import ImagePair
from tfrecords_builder.preprocess import Preprocessing, prepare_pair
from tfrecords_builder.progress import progress
from tfrecords_builder.publish import manifest_with, publish, staging_folder
from tfrecords_builder.sources.base import Problems, SourceTask
from tfrecords_builder.splits import Member, assign_splits
from tfrecords_builder.writer import Spool, Spooled, write_split

DEFAULT_SHARDS = 4

Say = Callable[[str], None]


class SplitPlan(NamedTuple):
    """How the pairs of a task are divided where the source does not prescribe it."""

    test_fraction: float = 0.2
    seed: int = 0


def build(
    tasks: Sequence[SourceTask],
    output: Union[str, os.PathLike],
    *,
    preprocessing: Preprocessing,
    shards: int = DEFAULT_SHARDS,
    seed: int = 0,
    test_fraction: float = 0.2,
    overwrite: bool = False,
    problems: Optional[Problems] = None,
    say: Say = print,
) -> Manifest:
    """Adds tasks to the records in `output`, all of them or none.

    Args:
        tasks: what to build; pairs are read one at a time.
        output: records folder; made if missing.
        preprocessing: what is done to each image.
        shards: files per split, at most one per pair.
        seed: of the splits and of the order of pairs.
        test_fraction: share of the subjects to hold out where the source does not say.
        overwrite: replace tasks that are there already.
        problems: where the tasks report what is wrong with their input.
        say: gets one line for each thing worth telling.

    Returns:
        The manifest as it stands in `output`.

    Raises:
        UserError: the input has problems (`InputErrors` lists them all), a
            task is there already, or was built otherwise, or `output` cannot
            be written. Nothing in `output` has changed then.
    """
    output = Path(output)
    problems = Problems() if problems is None else problems
    if not tasks:
        problems.raise_any()
    plan = SplitPlan(test_fraction, seed)
    planned = tuple(Task(task.name, task.role, task.modality, {}) for task in tasks)
    manifest = Manifest(preprocessing.image_size, preprocessing.describe(), planned)
    with problems.collected():
        _check_names(tasks)
    manifest_with(output, manifest, overwrite=overwrite)
    with staging_folder(output) as staging:
        written = [
            _write_task(task, index, staging, preprocessing, plan, shards, problems, say)
            for index, task in enumerate(tasks)
        ]
        problems.raise_any()
        manifest = Manifest(manifest.image_shape, manifest.preprocessing, tuple(written))
        merged = publish(staging, output, manifest, overwrite=overwrite)
    for task in written:
        counts = ", ".join(f"{split.pairs} {name}" for name, split in task.splits.items())
        say(f"{output}: task `{task.name}` ({task.role}): {counts} pairs.")
    return merged


def validate(
    tasks: Sequence[SourceTask],
    *,
    preprocessing: Preprocessing,
    seed: int = 0,
    test_fraction: float = 0.2,
    problems: Optional[Problems] = None,
    say: Say = print,
) -> None:
    """Reads and preprocesses everything as `build` does, and writes nothing.

    Raises:
        UserError: `InputErrors` lists every problem.
    """
    problems = Problems() if problems is None else problems
    with problems.collected():
        _check_names(tasks)
    for task in tasks:
        members = [
            Member(pair.key, pair.subject, pair.split)
            for pair in prepared_pairs(task, preprocessing, problems)
        ]
        splits = _splits(task, members, SplitPlan(test_fraction, seed), problems, say)
        counts = ", ".join(
            f"{list(splits.values()).count(name)} {name}" for name in SPLITS if name in splits.values()
        )
        if not problems.lines:
            say(f"task `{task.name}` ({task.role}): {counts} pairs, no problems.")
    problems.raise_any()


def build_embedded(
    output: Union[str, os.PathLike],
    *,
    image_size: tuple[int, int] = (128, 128),
    seed: int = 0,
    overwrite: bool = False,
    say: Say = print,
    **counts: int,
) -> Manifest:
    """Builds the embedded tasks into `output`: what `build --source embedded` does.

    Args:
        output: records folder.
        image_size: (height, width).
        seed: of the images, splits and order.
        overwrite: replace tasks that are there already.
        say: gets one line for each thing worth telling.
        counts: `source_pairs`, `source_test_pairs`, `target_finetune`, `target_test`.

    Returns:
        The manifest as it stands in `output`.
    """
    from tfrecords_builder.sources.embedded import embedded_tasks

    tasks = embedded_tasks(image_size=image_size, seed=seed, **counts)
    return build(
        tasks, output, preprocessing=Preprocessing(image_size), seed=seed, overwrite=overwrite, say=say
    )


def prepared_pairs(task: SourceTask, preprocessing: Preprocessing, problems: Problems) -> Iterator[ImagePair]:
    """The task's pairs that can become records, one at a time; the others go to `problems`."""
    keys = set()
    with problems.collected():
        for pair in progress(task.pairs, task.name):
            with problems.collected():
                if pair.key in keys:
                    raise UserError(f"task `{task.name}`: pair {pair.key} is there twice; remove one.")
                keys.add(pair.key)
                yield prepare_pair(pair, preprocessing)


def _write_task(
    task: SourceTask,
    index: int,
    staging: Path,
    preprocessing: Preprocessing,
    plan: SplitPlan,
    shards: int,
    problems: Problems,
    say: Say,
) -> Task:
    with contextlib.closing(Spool(staging / f"{index}.spool")) as spool:
        members: list[Member] = []
        places: dict[str, Spooled] = {}
        for pair in prepared_pairs(task, preprocessing, problems):
            members.append(Member(pair.key, pair.subject, pair.split))
            if not problems.lines:  # with one, nothing will be published
                places[pair.key] = spool.add(pair)
        splits = _splits(task, members, plan, problems, say)
        if problems.lines:
            return Task(task.name, task.role, task.modality, {})
        grouped = {name: [places[key] for key in splits if splits[key] == name] for name in SPLITS}
        written = {
            name: write_split(staging, task.name, name, spool, group, shards=shards, seed=plan.seed)
            for name, group in grouped.items()
            if group
        }
    return Task(task.name, task.role, task.modality, written)


def _splits(
    task: SourceTask, members: list[Member], plan: SplitPlan, problems: Problems, say: Say
) -> dict[str, str]:
    if not members and not problems.lines:
        problems.add(f"task `{task.name}`: no pairs; the input must hold at least one.")
    with problems.collected():
        splits = assign_splits(members, task.role, test_fraction=plan.test_fraction, seed=plan.seed)
        if plan.test_fraction and len({member.subject for member in members}) == 1 and not members[0].split:
            say(f"note: task `{task.name}` has a single subject, so nothing is held out for testing.")
        return splits
    return {}


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
