"""Publishes files and folders as a whole: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

StrPath = Union[str, os.PathLike]
# What a formula begins with, or a name that `to_cell` would else give the form of one that it has changed.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


@contextlib.contextmanager
def published(path: StrPath) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` if the block succeeds.

    The block writes a file or makes a folder there. A reader sees either the
    old or the complete new content; an error or a kill leaves the old content.
    A file may replace a file; a folder must not exist yet or be empty. The
    temporary path has the same suffix, for writers that choose a format by it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with published(Path(folder, "note.txt")) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     Path(folder, "note.txt").read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Publishes `text` (UTF-8) as `path`."""
    with published(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StrPath, value: Any) -> None:
    """Publishes `value` as indented JSON; refuses NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def to_cell(name: str) -> str:
    """A name as a cell of a CSV file: spreadsheets run what begins like a formula, so a quote goes ahead.

    >>> to_cell("=1+1"), to_cell("pair 1")
    ("'=1+1", 'pair 1')
    """
    return f"'{name}" if name.startswith(_FORMULA) else name


def from_cell(cell: str) -> str:
    """Inverse of `to_cell`."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def sha256(path: StrPath) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
