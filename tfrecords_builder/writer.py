"""Writes records in two steps: pairs to spool files in the source's order, then shards in a shuffled order.

Each step consists of jobs. A job can be pickled and runs in any process that sees the same files. It
publishes its result as a whole file. When it runs again, it finds that file and does nothing.
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
from tfmetareg.types import ImagePair, Note, is_aligned
from tfrecords_builder.sources.base import Partition
from tfrecords_builder.splits import shuffle_key


class SpooledPair(NamedTuple):
    """A serialized pair: what its split depends on, its place in a spool file, in bytes, and notes on it.

    `aligned` is whether it has an alignment other than the identity.
    """

    key: str
    subject: str
    split: Optional[str]
    spool: Optional[Path]
    offset: int
    length: int
    notes: Sequence[Note] = ()
    aligned: bool = False


class BatchResult(NamedTuple):
    """The pairs of a batch, all problems known after it, and whether an earlier run had spooled it."""

    pairs: list[SpooledPair]
    problems: list[str]
    reused: bool = False


@dataclasses.dataclass(frozen=True)
class Batch:
    """The job of reading, preprocessing and spooling some partitions of a task.

    Attributes:
        partitions: what to read.
        preprocessing: what is done to each image.
        problems: collects mistakes in the input. It is pickled together with the
            partitions, so that in a worker process they still share one object.
        spool: file to write; None only reads.
    """

    partitions: Sequence[Partition]
    preprocessing: Preprocessing
    problems: Problems
    spool: Optional[Path] = None

    def run(self) -> BatchResult:
        """Reads the partitions, or reuses the spool file of an earlier run."""
        if self.spool is None:
            pairs = [_spooled_pair(pair, None) for pair in self._pairs()]
            return BatchResult(pairs, self.problems.lines)
        return self._reuse(self.spool) or self._write(self.spool)

    def _pairs(self) -> Iterator[ImagePair]:
        """Yields the pairs that can become records; mistakes in the others go to `problems`."""
        for partition in self.partitions:
            with self.problems.collected():
                for pair in partition():
                    with self.problems.collected():
                        yield prepare_pair(pair, self.preprocessing)

    def _write(self, spool: Path) -> BatchResult:
        pairs, digest, offset = [], hashlib.sha256(), 0
        with published(spool) as temporary, open(temporary, "wb") as stream:
            for pair in self._pairs():
                # After a mistake nothing is published; reading goes on only to name all mistakes.
                serialized = b"" if self.problems.lines else encode_pair(pair)
                digest.update(serialized)
                stream.write(serialized)
                pairs.append(_spooled_pair(pair, spool, offset, len(serialized)))
                offset += len(serialized)
        if not self.problems.lines:
            rows = [pair._replace(spool=None) for pair in pairs]
            write_json(_index(spool), {"sha256": digest.hexdigest(), "pairs": rows})
        return BatchResult(pairs, self.problems.lines)

    def _reuse(self, spool: Path) -> Optional[BatchResult]:
        index = _read_index(spool)
        if index is None:
            return None
        rows = [SpooledPair(*row) for row in index["pairs"]]
        pairs = [row._replace(spool=spool, notes=tuple(Note(*note) for note in row.notes)) for row in rows]
        return BatchResult(pairs, self.problems.lines, reused=True)


def _spooled_pair(pair: ImagePair, spool: Optional[Path], offset: int = 0, length: int = 0) -> SpooledPair:
    aligned = is_aligned(pair.alignment)
    return SpooledPair(pair.key, pair.subject, pair.split, spool, offset, length, pair.notes, aligned)


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """The job of writing one shard.

    Attributes:
        path: the shard's file.
        pairs: its pairs, in order.
    """

    path: Path
    pairs: Sequence[SpooledPair]

    def run(self) -> Shard:
        """Writes the shard, or reuses the file of an earlier run."""
        index = _read_index(self.path)
        if index is None:
            with published(self.path) as temporary:
                _write_records(temporary, _read(self.pairs))
            index = {"sha256": sha256(self.path)}
            write_json(_index(self.path), index)
        return Shard(self.path.name, len(self.pairs), self.path.stat().st_size, index["sha256"])


def shard_files(
    folder: Path, task: str, split: str, pairs: Sequence[SpooledPair], *, shards: int, seed: int
) -> list[ShardFile]:
    """The shards of one split.

    Pairs are sorted by a hash of seed and key and distributed to the shards in
    that order, so that reading the shards one after the other gives shuffled
    pairs. The same pairs and seed give the same bytes.

    Args:
        folder: folder of the shards.
        task, split: names that the shards' names begin with.
        pairs: pairs of this split, at least one.
        shards: number of files, at most one per pair.
        seed: seed of the order.
    """
    ordered = sorted(pairs, key=lambda pair: shuffle_key(seed, pair.key))
    count = min(shards, len(ordered))
    bounds = [index * len(ordered) // count for index in range(count + 1)]
    return [
        ShardFile(folder / shard_name(task, split, index, count), ordered[begin:end])
        for index, (begin, end) in enumerate(zip(bounds, bounds[1:]))
    ]


def _read(pairs: Sequence[SpooledPair]) -> Iterator[bytes]:
    for pair in pairs:
        if pair.spool is None:
            raise ValueError(f"pair {pair.key} has no spool file: it was only validated.")
        with open(pair.spool, "rb") as stream:
            stream.seek(pair.offset)
            yield stream.read(pair.length)


def _write_records(path: Path, records: Iterator[bytes]) -> None:
    """Writes a TFRecord file.

    Raises:
        OSError: the disk is full, for which TensorFlow has an error of its own.
    """
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for serialized in records:
                writer.write(serialized)
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_index(path: Path) -> Optional[dict]:
    """The index written after `path` was finished; None if `path` is missing or has changed since."""
    try:
        index = json.loads(_index(path).read_text())
        return index if sha256(path) == index["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
