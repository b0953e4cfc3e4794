from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmetareg.data.schema import decode_pair
from tfmetareg.errors import Problems, UserError
from tfmetareg.files import sha256
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_pair
from tfmetareg.types import ImagePair, Note
from tfrecords_builder.writer import Batch, shard_files

PREPROCESSING = Preprocessing((16, 16))


@functools.lru_cache
def make_pair(number):
    image = np.random.default_rng(number).random((16, 16))
    return ImagePair(
        f"pair{number}",
        f"eye{number // 2}",
        image,
        image.T.copy(),
        split="train",
        notes=(Note(f"{number}.nii", "is read"),),
    )


def batch(spool, numbers, problems=None):
    parts = [functools.partial(iter, [make_pair(number)]) for number in numbers]
    return Batch(parts, PREPROCESSING, problems or Problems(), spool)


def write(folder, numbers, *, shards=3, seed=0):
    folder.mkdir(parents=True)
    pairs = batch(folder / "0.spool", numbers).run().pairs
    files = shard_files(folder, "octa", "train", pairs, shards=shards, seed=seed)
    return [file.run() for file in files]


def read(folder, shards):
    return [
        [
            decode_pair(record)
            for record in tf.data.TFRecordDataset(str(folder / shard.file)).as_numpy_iterator()
        ]
        for shard in shards
    ]


def test_every_pair_comes_back_once_and_as_it_was_prepared(tmp_path):
    shards = read(tmp_path / "a", write(tmp_path / "a", range(10)))
    found = {pair.key: pair for shard in shards for pair in shard}
    assert sum(map(len, shards)) == len(found) == 10
    for number in range(10):
        prepared = prepare_pair(make_pair(number), PREPROCESSING)
        np.testing.assert_array_equal(found[f"pair{number}"].moving, prepared.moving)
        np.testing.assert_array_equal(found[f"pair{number}"].fixed, prepared.fixed)
        assert found[f"pair{number}"].subject == f"eye{number // 2}"


def test_the_manifest_entries_are_true(tmp_path):
    shards = write(tmp_path / "a", range(10))
    assert [shard.file for shard in shards] == [f"octa-train.tfrecord-{i:05d}-of-00003" for i in range(3)]
    assert [shard.records for shard in shards] == [len(shard) for shard in read(tmp_path / "a", shards)]
    for shard in shards:
        assert shard.bytes == (tmp_path / "a" / shard.file).stat().st_size
        assert shard.sha256 == sha256(tmp_path / "a" / shard.file)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(8)), pairs=st.integers(1, 8), shards=st.integers(1, 10))
def test_bytes_depend_on_pairs_and_seed_only(tmp_path_factory, order, pairs, shards):
    folder = tmp_path_factory.mktemp("writer")
    numbers = [number for number in order if number < pairs]
    written = write(folder / "a", numbers, shards=shards)
    assert written == write(folder / "b", sorted(numbers), shards=shards)
    assert len(written) == min(shards, pairs)
    assert all(shard.records for shard in written)


def test_order_is_shuffled_by_the_seed(tmp_path):
    orders = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(orders))
        shards = write(folder, range(30), shards=1, seed=seed)
        orders.append([pair.key for pair in read(folder, shards)[0]])
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=lambda key: int(key[4:]))


def never_read():
    raise AssertionError("read again")


def test_a_finished_batch_is_not_read_again(tmp_path):
    first = batch(tmp_path / "0.spool", range(4)).run()
    again = Batch([never_read], PREPROCESSING, Problems(), tmp_path / "0.spool").run()
    assert again == first._replace(reused=True)
    assert not first.reused


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no index", "broken index"])
def test_a_damaged_batch_is_read_again(tmp_path, damage):
    spool, index = tmp_path / "0.spool", tmp_path / "0.spool.json"
    first = batch(spool, range(4)).run()
    content = spool.read_bytes()
    {
        "cut": lambda: spool.write_bytes(content[:-1]),
        "changed": lambda: spool.write_bytes(b"x" + content[1:]),
        "missing": spool.unlink,
        "no index": index.unlink,
        "broken index": lambda: index.write_text("{"),
    }[damage]()
    assert batch(spool, range(4)).run() == first
    assert spool.read_bytes() == content


def test_a_finished_shard_is_not_written_again_but_a_damaged_one_is(tmp_path):
    first = write(tmp_path / "a", range(10))
    path = tmp_path / "a" / first[0].file
    pairs = batch(tmp_path / "a" / "0.spool", range(10)).run().pairs
    files = shard_files(tmp_path / "a", "octa", "train", pairs, shards=3, seed=0)
    before = path.stat().st_ino
    assert files[0].run() == first[0]
    assert path.stat().st_ino == before
    path.write_bytes(path.read_bytes()[:-1])
    assert files[0].run() == first[0]
    assert sha256(path) == first[0].sha256


def broken(problems):
    yield make_pair(0)
    problems.add("first.")
    raise UserError("second.")


def test_problems_come_back_from_another_process_and_nothing_is_kept(tmp_path):
    problems = Problems()
    job = Batch([functools.partial(broken, problems)], PREPROCESSING, problems, tmp_path / "0.spool")
    prepared = pickle.loads(pickle.dumps(job)).run()
    assert prepared.problems == ["first.", "second."]
    assert problems.lines == []
    assert [pair.key for pair in prepared.pairs] == ["pair0"]
    assert not (tmp_path / "0.spool.json").exists()
