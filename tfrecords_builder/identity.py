"""The identity of a build: whether a build that was stopped is the one that runs now."""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tfmetareg
import tfrecords_builder
from tfrecords_builder.sources.base import LazyPairs, SourceTask

# The code of the library that makes records, files and folders of `tfmetareg`. The builder may import these,
# and besides them only `errors`, `files` and `lock`, on which no byte of a record depends. `_compat` hands on
# what the pinned packages compute.
RECORD_CODE = ("data/schema.py", "geometry", "imaging", "types.py")


def build_identity(tasks: Sequence[SourceTask], inputs: Iterable[Path], output: Path, *settings: Any) -> str:
    """SHA-256 over everything that the bytes of a build depend on: code, tasks, input files and settings.

    Args:
        tasks: what is built. Of `LazyPairs`, the partitions are part of the identity.
        inputs: files and folders that the pairs are read from; each file counts
            by its path, size and time of change.
        output: records folder; skipped where it lies in an input folder.
        settings: other values that decide the bytes; each counts by its `repr`.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for path in code_files():
        digest.update(path.read_bytes())
    for task in tasks:
        digest.update(repr((task.name, task.role, task.modality, task.two_contrasts)).encode())
        if isinstance(task.pairs, LazyPairs):
            digest.update(pickle.dumps(task.pairs.partitions))
    for path in inputs:
        for state in sorted(_states(path, output)):
            digest.update(state)
    return digest.hexdigest()


def code_files() -> list[Path]:
    """The Python files that make records: the whole builder, and of the library `RECORD_CODE`."""
    library = Path(inspect.getfile(tfmetareg)).parent
    roots = [Path(inspect.getfile(tfrecords_builder)).parent, *(library / name for name in RECORD_CODE)]
    return [file for root in roots for file in (sorted(root.rglob("*.py")) if root.is_dir() else [root])]


def _states(path: Path, output: Path) -> Iterator[bytes]:
    """The state of a file, or of every file in a folder and below; links are followed."""
    if not path.is_dir():
        yield _state(path)
        return
    visited = {_inode(output)} if output.is_dir() else set()
    for folder, folders, files in os.walk(path, followlinks=True):
        visited.add(_inode(folder))
        # A link to a parent folder would lead round in circles.
        folders[:] = [name for name in folders if _inode(os.path.join(folder, name)) not in visited]
        yield from (_state(os.path.join(folder, name)) for name in files)


def _state(path: str | os.PathLike) -> bytes:
    try:
        status = os.stat(path)
    except OSError:  # For instance a broken link: reading the input reports it.
        return f"{path}\0missing\n".encode(errors="surrogateescape")
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")


def _inode(folder: str | os.PathLike) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
