"""Writes one task's records: spooled once in the source's order, then sharded in an order by hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from tfmetareg.files import sha256
from tfmetareg.schema import Shard, Split, encode_pair, shard_name
from tfmetareg.types import ImagePair
from tfrecords_builder.splits import hashed


class Spooled(NamedTuple):
    """Where a serialized pair lies in the spool, and whose it is."""

    key: str
    subject: str
    offset: int
    length: int


class Spool:
    """A temporary file of serialized pairs, so that memory holds only their names and places."""

    def __init__(self, path: Path):
        self._stream = open(path, "w+b")

    def close(self) -> None:
        """Frees the file."""
        self._stream.close()

    def add(self, pair: ImagePair) -> Spooled:
        """Appends a preprocessed pair."""
        serialized = encode_pair(pair)
        offset = self._stream.tell()
        self._stream.write(serialized)
        return Spooled(pair.key, pair.subject, offset, len(serialized))

    def read(self, members: Sequence[Spooled]) -> Iterator[bytes]:
        """The serialized pairs, in the order asked for."""
        for member in members:
            self._stream.seek(member.offset)
            yield self._stream.read(member.length)


def write_split(
    folder: Path, task: str, split: str, spool: Spool, members: Sequence[Spooled], *, shards: int, seed: int
) -> Split:
    """Writes the shards of one split.

    Pairs are ordered by a hash of seed and key and dealt to the shards in that
    order: read one after the other they are shuffled, whatever order the
    source had. The same pairs and seed give the same bytes.

    Args:
        folder: where the shards go.
        task, split: for the shards' names.
        spool: holds the pairs.
        members: the pairs of this split, at least one.
        shards: how many files; fewer if there are fewer pairs.
        seed: of the order.

    Returns:
        The manifest's entry.
    """
    ordered = sorted(members, key=lambda member: hashed(seed, member.key))
    count = min(shards, len(ordered))
    files = []
    for index in range(count):
        begin, end = index * len(ordered) // count, (index + 1) * len(ordered) // count
        path = folder / shard_name(task, split, index, count)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for serialized in spool.read(ordered[begin:end]):
                writer.write(serialized)
        files.append(Shard(path.name, end - begin, path.stat().st_size, sha256(path)))
    return Split(len(ordered), len({member.subject for member in ordered}), tuple(files))
