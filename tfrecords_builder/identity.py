"""Tells whether a build that was stopped is the one that runs now."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tfmetareg
import tfrecords_builder
from tfrecords_builder.sources.base import Lazy, SourceTask


def build_identity(tasks: Sequence[SourceTask], inputs: Iterable[Path], output: Path, *settings: Any) -> str:
    """SHA-256 over everything that the bytes of a build depend on.

    Args:
        tasks: whose pairs are `Lazy`; what their parts hold is part of it.
        inputs: files and folders that the pairs are read from, each file taken
            as its path, size and time of change.
        output: left out where it lies in an input folder.
        settings: whatever else decides the bytes, told by its `repr`.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for package in (tfmetareg, tfrecords_builder):
        for path in sorted(Path(package.__file__).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    for task in tasks:
        digest.update(repr((task.name, task.role, task.modality)).encode())
        if isinstance(task.pairs, Lazy):
            digest.update(pickle.dumps(task.pairs.parts))
    for path in inputs:
        for state in sorted(_states(path, output)):
            digest.update(state)
    return digest.hexdigest()


def _states(path: Path, output: Path) -> Iterator[bytes]:
    if not path.is_dir():
        yield _state(path)
        return
    seen = {_place(output)} if output.is_dir() else set()
    for folder, folders, files in os.walk(path, followlinks=True):
        seen.add(_place(folder))
        # A link to a folder above would lead round in circles.
        folders[:] = [name for name in folders if _place(os.path.join(folder, name)) not in seen]
        yield from (_state(os.path.join(folder, name)) for name in files)


def _state(path: str | os.PathLike) -> bytes:
    try:
        status = os.stat(path)
    except OSError:  # a broken link, say: reading it will tell
        return f"{path}\0missing\n".encode(errors="surrogateescape")
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")


def _place(folder: str | os.PathLike) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
