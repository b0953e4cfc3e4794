from __future__ import annotations

import contextlib

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmetareg.files import sha256
from tfmetareg.schema import decode_pair
from tfmetareg.types import ImagePair
from tfrecords_builder.writer import Spool, write_split


def make_pair(number):
    image = np.full((4, 5), number, np.uint8)
    return ImagePair(f"pair{number}", f"eye{number // 2}", image, 255 - image, split="train")


def write(folder, numbers, *, shards=3, seed=0):
    folder.mkdir(parents=True)
    with contextlib.closing(Spool(folder / "spool")) as spool:
        members = [spool.add(make_pair(number)) for number in numbers]
        return write_split(folder, "octa", "train", spool, members, shards=shards, seed=seed)


def read(folder, split):
    return [
        [
            decode_pair(record)
            for record in tf.data.TFRecordDataset(str(folder / shard.file)).as_numpy_iterator()
        ]
        for shard in split.shards
    ]


def test_every_pair_comes_back_once_and_unchanged(tmp_path):
    split = write(tmp_path / "a", range(10))
    shards = read(tmp_path / "a", split)
    found = {pair.key: pair for shard in shards for pair in shard}
    assert sum(map(len, shards)) == len(found) == 10
    for number in range(10):
        np.testing.assert_array_equal(found[f"pair{number}"].moving, make_pair(number).moving)
        np.testing.assert_array_equal(found[f"pair{number}"].fixed, make_pair(number).fixed)
        assert found[f"pair{number}"].subject == f"eye{number // 2}"


def test_the_manifest_entry_is_true(tmp_path):
    split = write(tmp_path / "a", range(10))
    assert (split.pairs, split.subjects) == (10, 5)
    assert [shard.file for shard in split.shards] == [
        f"octa-train.tfrecord-{i:05d}-of-00003" for i in range(3)
    ]
    assert [shard.records for shard in split.shards] == [len(shard) for shard in read(tmp_path / "a", split)]
    for shard in split.shards:
        assert shard.bytes == (tmp_path / "a" / shard.file).stat().st_size
        assert shard.sha256 == sha256(tmp_path / "a" / shard.file)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(8)), pairs=st.integers(1, 8), shards=st.integers(1, 10))
def test_bytes_depend_on_pairs_and_seed_only(tmp_path_factory, order, pairs, shards):
    folder = tmp_path_factory.mktemp("writer")
    numbers = [number for number in order if number < pairs]
    split = write(folder / "a", numbers, shards=shards)
    assert split == write(folder / "b", sorted(numbers), shards=shards)
    assert len(split.shards) == min(shards, pairs)
    assert all(shard.records for shard in split.shards)


def test_order_is_shuffled_by_the_seed(tmp_path):
    orders = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(orders))
        split = write(folder, range(30), shards=1, seed=seed)
        orders.append([pair.key for pair in read(folder, split)[0]])
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=lambda key: int(key[4:]))
