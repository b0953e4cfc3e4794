"""Writes records in two steps: pairs are spooled in the source's order, then dealt to shards by hash.

Each step is cut into jobs. A job can be pickled, runs in any process that sees the same files, and leaves its
result in a file that appears whole or not at all; run again, it finds that file and is done.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import tensorflow as tf

from tfmetareg.data.schema import Shard, encode_pair, shard_name
from tfmetareg.errors import Problems
from tfmetareg.files import published, sha256, write_json
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_pair
from tfmetareg.types import ImagePair
from tfrecords_builder.sources.base import Part
from tfrecords_builder.splits import hashed


class Spooled(NamedTuple):
    """A serialized pair in a spool: what the splits are decided by, and where it lies, in bytes."""

    key: str
    subject: str
    split: Optional[str]
    spool: Optional[Path]
    offset: int
    length: int


class BatchResult(NamedTuple):
    """What a batch gave: its pairs, the problems known after it, and whether an earlier run had done it."""

    pairs: list[Spooled]
    problems: list[str]
    kept: bool = False


@dataclasses.dataclass(frozen=True)
class Batch:
    """The job of reading, preprocessing and spooling some parts of a task.

    Attributes:
        parts: what to read.
        preprocessing: what is done to each image.
        problems: where the parts report what is wrong with their input; pickled
            with them, so that a part's own reference is still to this one.
        spool: file to write; None only reads.
    """

    parts: Sequence[Part]
    preprocessing: Preprocessing
    problems: Problems
    spool: Optional[Path] = None

    def run(self) -> BatchResult:
        """Reads the parts, or finds that a run before has done so."""
        if self.spool is None:
            pairs = [_spooled(pair, None) for pair in self._pairs()]
            return BatchResult(pairs, self.problems.lines)
        return self._kept(self.spool) or self._spooled(self.spool)

    def _pairs(self) -> Iterator[ImagePair]:
        """The pairs that can become records, one at a time; the others go to `problems`."""
        for part in self.parts:
            with self.problems.collected():
                for pair in part():
                    with self.problems.collected():
                        yield prepare_pair(pair, self.preprocessing)

    def _spooled(self, spool: Path) -> BatchResult:
        pairs, digest, offset = [], hashlib.sha256(), 0
        with published(spool) as temporary, open(temporary, "wb") as stream:
            for pair in self._pairs():
                # With a problem nothing will be published: read on, to name them all.
                serialized = b"" if self.problems.lines else encode_pair(pair)
                digest.update(serialized)
                stream.write(serialized)
                pairs.append(_spooled(pair, spool, offset, len(serialized)))
                offset += len(serialized)
        if not self.problems.lines:
            rows = [pair._replace(spool=None) for pair in pairs]
            write_json(_index(spool), {"sha256": digest.hexdigest(), "pairs": rows})
        return BatchResult(pairs, self.problems.lines)

    def _kept(self, spool: Path) -> Optional[BatchResult]:
        index = _read_index(spool)
        if index is None:
            return None
        pairs = [Spooled(*row)._replace(spool=spool) for row in index["pairs"]]
        return BatchResult(pairs, self.problems.lines, kept=True)


def _spooled(pair: ImagePair, spool: Optional[Path], offset: int = 0, length: int = 0) -> Spooled:
    return Spooled(pair.key, pair.subject, pair.split, spool, offset, length)


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """The job of writing one shard.

    Attributes:
        path: of the shard.
        pairs: what goes into it, in order.
    """

    path: Path
    pairs: Sequence[Spooled]

    def run(self) -> Shard:
        """Writes the shard, or finds that a run before has done so."""
        index = _read_index(self.path)
        if index is None:
            with published(self.path) as temporary:
                _write_records(temporary, _read(self.pairs))
            index = {"sha256": sha256(self.path)}
            write_json(_index(self.path), index)
        return Shard(self.path.name, len(self.pairs), self.path.stat().st_size, index["sha256"])


def shard_files(
    folder: Path, task: str, split: str, pairs: Sequence[Spooled], *, shards: int, seed: int
) -> list[ShardFile]:
    """The shards of one split.

    Pairs are ordered by a hash of seed and key and dealt to the shards in that
    order: read one after the other they are shuffled, whatever order the
    source had. The same pairs and seed give the same bytes.

    Args:
        folder: where the shards go.
        task, split: for the shards' names.
        pairs: those of this split, at least one.
        shards: how many files; fewer if there are fewer pairs.
        seed: of the order.
    """
    ordered = sorted(pairs, key=lambda pair: hashed(seed, pair.key))
    count = min(shards, len(ordered))
    bounds = [index * len(ordered) // count for index in range(count + 1)]
    return [
        ShardFile(folder / shard_name(task, split, index, count), ordered[begin:end])
        for index, (begin, end) in enumerate(zip(bounds, bounds[1:]))
    ]


def _read(pairs: Sequence[Spooled]) -> Iterator[bytes]:
    for pair in pairs:
        with open(pair.spool, "rb") as stream:
            stream.seek(pair.offset)
            yield stream.read(pair.length)


def _write_records(path: Path, records: Iterator[bytes]) -> None:
    """Raises OSError where the disk is full, which TensorFlow tells in other words."""
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for serialized in records:
                writer.write(serialized)
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_index(path: Path) -> Optional[dict]:
    """What was noted when `path` was finished; None unless it is there, with the content it had then."""
    try:
        index = json.loads(_index(path).read_text())
        return index if sha256(path) == index["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
