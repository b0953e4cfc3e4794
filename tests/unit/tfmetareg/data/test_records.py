"""Reading one task's records."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.conftest import SIZE, shifted_pair
from tfmetareg.data.records import Records, examples, pair_stream
from tfmetareg.errors import UserError
from tfmetareg.schema import decode_pair, encode_pair


def batches(dataset, count: int) -> np.ndarray:
    return np.concatenate([batch.moving.numpy() for batch in dataset.take(count)])


def names(images: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_a_record_gives_back_every_value_of_its_pair():
    pair = shifted_pair(3, "train", 2.0)
    images = {
        name: (np.abs(getattr(pair, name)) * 255).clip(0, 255).astype(np.uint8)
        for name in ("moving", "fixed")
    }
    original = type(pair)(**{**vars(pair), **images, "fixed_spacing": (0.5, 0.25), "split": None})
    copy = decode_pair(encode_pair(original))
    for name, value in vars(original).items():
        assert np.array_equal(getattr(copy, name), value), name


def test_every_pair_is_read_once_with_its_landmarks(records):
    read = list(examples(records, "target", "finetune"))
    assert sorted(example["key"].numpy().decode() for example in read) == sorted(
        f"finetune-{n}" for n in range(8)
    )
    for example in read:
        assert example["moving"].shape == (SIZE, SIZE, 1)
        assert 0.0 <= example["moving"].numpy().min() < example["moving"].numpy().max() <= 1.0
        shift = example["moving_landmarks"] - example["fixed_landmarks"]
        assert np.array_equal(shift.numpy(), [[1, 2]] * 3)


def test_each_epoch_holds_every_pair_once_in_another_order(records):
    images = names(batches(pair_stream(records, "task_a", "train", batch_size=2, seed=0), 6))
    first, second = images[:6], images[6:]
    assert len(set(first)) == 6
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_seed_alone_decides_on_the_order(records):
    def order(seed: int) -> list[bytes]:
        return names(batches(pair_stream(records, "task_a", "train", batch_size=1, seed=seed), 6))

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_batches_are_full_even_if_larger_than_the_split(records):
    batch = next(iter(pair_stream(records, "target", "test", batch_size=5, seed=0)))
    assert batch.fixed.shape == (5, SIZE, SIZE, 1)


def test_an_unknown_task_or_split_is_named_beside_those_there_are(records):
    with pytest.raises(UserError, match="`tusk` is not in the records; there are: task_a, task_b"):
        records.shards("tusk", "train")
    with pytest.raises(UserError, match="`target` has no pairs in split `train`; it has: finetune, test"):
        records.shards("target", "train")


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_shard_is_named(records_root, tmp_path, damage):
    root = tmp_path / "records"
    shutil.copytree(records_root, root)
    shard = root / "task_a-train.tfrecord-00001-of-00002"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match="task_a-train.tfrecord-00001-of-00002: damaged shard"):
        Records(root).shards("task_a", "train")


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match="tfrecords_builder build --output"):
        Records(tmp_path / "nowhere")
