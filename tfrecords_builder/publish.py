"""Adds tasks to a records folder so that a reader always finds a whole one."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfmetareg.errors import UserError
from tfmetareg.files import sha256, write_text
from tfmetareg.schema import MANIFEST, Manifest, Task


@contextlib.contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A hidden folder on the same file system as `output`, gone when the block ends.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output}: is a file; `--output` must be a folder.")
        parent = output if output.is_dir() else output.absolute().parent
        folder = parent / f".{uuid.uuid4().hex[:8]}.tmp"
        made = _missing_parents(parent)
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror}); choose another `--output`."
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        for path in made:
            with contextlib.suppress(OSError):  # not empty: the build succeeded
                path.rmdir()


def _missing_parents(folder: Path) -> list[Path]:
    """Innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def manifest_with(output: Path, new: Manifest, *, overwrite: bool) -> Manifest:
    """The manifest of `output` once the tasks of `new` are in it.

    Raises:
        UserError: a task is there already and `overwrite` is not set, or the
            tasks that stay have another image shape or preprocessing.
    """
    if not (output / MANIFEST).exists():
        return new
    old = Manifest.read(output)
    added = {task.name: task for task in new.tasks}
    present = [task.name for task in old.tasks if task.name in added]
    if present and not overwrite:
        names = " and ".join(f"`{name}`" for name in present)
        raise UserError(
            f"{output / MANIFEST}: task {names} is there already; "
            "add `--overwrite`, or give `--task` another name."
        )
    if any(task.name not in added for task in old.tasks):
        _check_same(output, old, new)
    kept = [added.pop(task.name, task) for task in old.tasks]
    return dataclasses.replace(new, tasks=(*kept, *added.values()))


def _check_same(output: Path, old: Manifest, new: Manifest) -> None:
    ours, theirs = ({"image_shape": list(m.image_shape), **m.preprocessing} for m in (new, old))
    differences = [
        f"{name} {theirs.get(name)} there, {ours.get(name)} here"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise UserError(
            f"{output / MANIFEST}: its tasks were built otherwise ({'; '.join(differences)}); "
            "build alike, or into another `--output`."
        )


def publish(staging: Path, output: Path, new: Manifest, *, overwrite: bool) -> Manifest:
    """Moves the shards of `new` from `staging` into `output` and replaces its manifest.

    Shards come first, the manifest after them, and old shards go last: no
    manifest ever names a missing file. Where a shard of other content has the
    same name as a new one, the task leaves the manifest before its files are
    replaced: a kill in between leaves whole records without that task.

    Raises:
        UserError: as `manifest_with`; `output` cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with _locked(output):
            merged = manifest_with(output, new, overwrite=overwrite)
            replaced = _replaced_tasks(output, new)
            _withdraw(output, staging, replaced)
            for file in _files(new.tasks):
                os.replace(staging / file, output / file)
            write_text(output / MANIFEST, merged.to_json())
            for file in _files(replaced) - _files(merged.tasks):
                (output / file).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror}); choose another `--output`."
        ) from None
    return merged


def _replaced_tasks(output: Path, new: Manifest) -> list[Task]:
    if not (output / MANIFEST).exists():
        return []
    names = {task.name for task in new.tasks}
    return [task for task in Manifest.read(output).tasks if task.name in names]


def _withdraw(output: Path, staging: Path, replaced: Sequence[Task]) -> None:
    """Takes tasks out of the manifest whose files are about to get other content."""
    changing = {task.name for task in replaced if _changes(output, staging, task)}
    if changing:
        old = Manifest.read(output)
        tasks = tuple(task for task in old.tasks if task.name not in changing)
        write_text(output / MANIFEST, dataclasses.replace(old, tasks=tasks).to_json())


def _changes(output: Path, staging: Path, task: Task) -> bool:
    common = [file for file in _files([task]) if (staging / file).exists() and (output / file).exists()]
    return any(sha256(staging / file) != sha256(output / file) for file in common)


def _files(tasks: Sequence[Task]) -> set[str]:
    return {shard.file for task in tasks for split in task.splits.values() for shard in split.shards}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time changes a folder; the lock goes with the process and leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
