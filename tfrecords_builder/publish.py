"""Adds tasks to a records folder; at any moment a reader finds complete records there."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from tfmetareg.data.schema import MANIFEST, PER_TASK, SPLITS, Manifest, Task, note_origin
from tfmetareg.errors import UserError
from tfmetareg.files import sha256, write_text
from tfmetareg.lock import Lock
from tfrecords_builder.workers import WorkerKilledError

# Folder within a staging folder; holds the manifest of the tasks that are being published.
_PUBLISHED = "published"


@contextlib.contextmanager
def staging_folder(output: Path, tasks: Sequence[str] = (), identity: Optional[str] = None) -> Iterator[Path]:
    """A hidden folder in `output` for a build's unfinished work, removed at the end of the block.

    If the build is stopped from outside (killed, Ctrl-C, `WorkerKilledError`), the folder stays, with its
    content, for the next build of the same identity. A build of the same tasks but another identity removes
    it.

    Args:
        output: records folder; created if missing, and removed again if nothing is published in it.
        tasks: names of the tasks to build.
        identity: the build's `build_identity`; None for a build that cannot be continued.

    Raises:
        UserError: `output` cannot be written, or these tasks are being built by another process.
    """
    folder = _staging(output, tasks, identity or uuid.uuid4().hex)
    stops = (KeyboardInterrupt, WorkerKilledError) if identity else ()
    with writing(output), contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, _missing_parents(output))
        _make(output, output)
        stack.enter_context(_only_build(output, tasks))
        for other in set(output.glob(_staging(output, tasks, "*").name)) - {folder}:
            discard(other)
        _make(folder, output)
        try:
            yield folder
        except stops:
            raise
        except BaseException:
            discard(folder)
            raise
        discard(folder)


@contextlib.contextmanager
def _only_build(output: Path, tasks: Sequence[str]) -> Iterator[None]:
    """Context of the only build of these tasks; builds of others may run beside it."""
    named = ", ".join(f"`{name}`" for name in tasks)
    lock = Lock(
        output / f".{_digest(tasks)}.lock",
        f"builds {named or 'records'} in it",
        "this build is running already: wait for it to end, or stop it",
    )
    try:
        lock.acquire()
    except OSError as error:
        raise _unwritable(output, error) from None
    try:
        yield
    finally:
        lock.release()


def publishing(output: Path) -> contextlib.AbstractContextManager[None]:
    """Lets one build at a time change what the manifest names; the others wait."""
    return Lock(output / ".publish.lock", "publishes records", "wait").held(wait=True)


def _staging(output: Path, tasks: Sequence[str], identity: str) -> Path:
    return output / f".{_digest(tasks)}-{identity[:24]}.tmp"


def _digest(tasks: Sequence[str]) -> str:
    return hashlib.sha256(repr(sorted(tasks)).encode()).hexdigest()[:12]


def _make(folder: Path, output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; `--output` must be a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(output, error) from None


def discard(staging: Path) -> None:
    """Removes a staging folder; the sign that its content has been published is removed last."""
    for path in staging.iterdir():
        if path.name != _PUBLISHED:
            path.unlink()
    shutil.rmtree(staging)


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Context that turns the error of a full or read-only disk into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        raise _unwritable(output, error) from None


def _unwritable(output: Path, error: OSError) -> UserError:
    remedy = "free space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose"
    return UserError(f"{output}: cannot be written ({error.strerror}); {remedy} another `--output`.")


def _missing_parents(folder: Path) -> list[Path]:
    """The folder and its parents as far as they do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    for path in folders:
        with contextlib.suppress(OSError):  # Not empty: something has been published.
            path.rmdir()


def manifest_with(output: Path, new: Manifest, *, overwrite: bool) -> Manifest:
    """The manifest of `output` after the tasks of `new` have been added.

    Raises:
        UserError: a task exists already and `overwrite` is not set, or the
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
        new = _beside(old, new)
        added = {task.name: task for task in new.tasks}
    kept = [added.pop(task.name, task) for task in old.tasks]
    return dataclasses.replace(new, tasks=(*kept, *added.values()))


def _beside(old: Manifest, new: Manifest) -> Manifest:
    """The new tasks under the preprocessing of those that stay, with what was done to them otherwise."""
    own = {name: new.preprocessing[name] for name in PER_TASK if name in new.preprocessing}
    own = {name: value for name, value in own.items() if value != old.preprocessing.get(name)}
    preprocessing = {**new.preprocessing, **{name: old.preprocessing.get(name) for name in own}}
    if new.preprocessing.get("colour") is None:
        preprocessing = old.preprocessing
    tasks = tuple(dataclasses.replace(task, preprocessing=own) for task in new.tasks)
    return dataclasses.replace(new, preprocessing=preprocessing, tasks=tasks)


def _check_same(output: Path, old: Manifest, new: Manifest) -> None:
    """Refuses different settings, but for `PER_TASK`, and `colour` if one of the two has read no colour."""
    ours, theirs = ({"image_shape": list(m.image_shape), **m.preprocessing} for m in (new, old))
    differences = [
        f"{name} {theirs.get(name)} there, {ours.get(name)} here"
        for name in sorted({*ours, *theirs}.difference(PER_TASK))
        if ours.get(name) != theirs.get(name)
        and not (name == "colour" and None in (ours.get(name), theirs.get(name)))
    ]
    if differences:
        raise UserError(
            f"{output / MANIFEST}: its tasks were built otherwise ({'; '.join(differences)}); "
            "build alike, or into another `--output`."
        )


def publish(
    staging: Path, output: Path, new: Manifest, *, overwrite: bool, origin: Optional[Path] = None
) -> Manifest:
    """Moves the shards of `new` from `staging` into `output` and replaces its manifest.

    New shards are moved first, then the manifest is replaced, then old shards
    are removed: no manifest ever names a missing file. If an old shard has the
    name of a new one but other content, its task is removed from the manifest
    before the file is replaced: a kill in between leaves complete records
    without that task.

    Args:
        staging: the build's `staging_folder`.
        output: records folder.
        new: manifest of the tasks to add.
        overwrite: replace tasks that exist already.
        origin: folder that the tasks' keys name files of, noted beside the manifest.

    Raises:
        UserError: as `manifest_with`; `output` cannot be written.
    """
    try:
        with publishing(output):
            merged = manifest_with(output, new, overwrite=overwrite)
            names = {task.name for task in new.tasks}
            new = dataclasses.replace(
                merged, tasks=tuple(task for task in merged.tasks if task.name in names)
            )
            _withdraw(output, staging, _replaced_tasks(output, new))
            write_text(staging / _PUBLISHED / MANIFEST, new.to_json())
            for file in _files(new.tasks):
                os.replace(staging / file, output / file)
            _replace_manifest(output, staging, merged)
            _note_origin(output, new, origin)
            _sweep(output, merged, new)
    except OSError as error:
        raise _unwritable(output, error) from None
    return merged


def finish_published(
    output: Path, tasks: Sequence[str], identity: str, origin: Optional[Path] = None
) -> bool:
    """Cleans up after an earlier run of this build that was killed after it had published.

    Args:
        output: records folder.
        tasks: names of the tasks to build.
        identity: the build's `build_identity`.
        origin: as for `publish`.

    Returns:
        Whether there was such a run.
    """
    staging = _staging(output, tasks, identity)
    if not (staging / _PUBLISHED / MANIFEST).exists() or not (output / MANIFEST).exists():
        return False
    with _only_build(output, tasks), publishing(output):
        merged, new = Manifest.read(output), Manifest.read(staging / _PUBLISHED)
        if not all(task in merged.tasks for task in new.tasks):
            return False
        _note_origin(output, new, origin)
        _sweep(output, merged, new)
        discard(staging)
    return True


def _note_origin(output: Path, new: Manifest, origin: Optional[Path]) -> None:
    if origin:
        with contextlib.suppress(OSError):  # It serves figures alone.
            note_origin(output, [task.name for task in new.tasks], origin)


def _replace_manifest(output: Path, staging: Path, manifest: Manifest) -> None:
    """Replaces the manifest, by way of `staging`: a kill leaves no temporary file in `output`."""
    (staging / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    os.replace(staging / MANIFEST, output / MANIFEST)


def _sweep(output: Path, merged: Manifest, new: Manifest) -> None:
    """Removes outdated shards of the new tasks, left by an earlier build or by one that was killed."""
    named = _files(merged.tasks)
    for task in new.tasks:
        pattern = rf"{re.escape(task.name)}-({'|'.join(SPLITS)})\.tfrecord-\d{{5}}-of-\d{{5}}"
        for path in output.iterdir():
            if path.name not in named and re.fullmatch(pattern, path.name):
                path.unlink(missing_ok=True)


def _replaced_tasks(output: Path, new: Manifest) -> list[Task]:
    if not (output / MANIFEST).exists():
        return []
    names = {task.name for task in new.tasks}
    return [task for task in Manifest.read(output).tasks if task.name in names]


def _withdraw(output: Path, staging: Path, replaced: Sequence[Task]) -> None:
    """Removes from the manifest the tasks whose files are about to get other content."""
    changing = {task.name for task in replaced if _changes(output, staging, task)}
    if changing:
        old = Manifest.read(output)
        tasks = tuple(task for task in old.tasks if task.name not in changing)
        _replace_manifest(output, staging, dataclasses.replace(old, tasks=tasks))


def _changes(output: Path, staging: Path, task: Task) -> bool:
    common = [file for file in _files([task]) if (staging / file).exists() and (output / file).exists()]
    return any(sha256(staging / file) != sha256(output / file) for file in common)


def _files(tasks: Sequence[Task]) -> set[str]:
    return {shard.file for task in tasks for split in task.splits.values() for shard in split.shards}
