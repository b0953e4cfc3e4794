"""Reading one task's records."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import SIZE, shifted_pair
from tests.unit.tfmetareg.conftest import TRUTH, vessels
from tfmetareg.data.records import (
    Records,
    align_image,
    as_floats,
    damage_named,
    examples,
    pair_stream,
    unaligned,
)
from tfmetareg.data.schema import decode_pair, encode_pair, parse_pair
from tfmetareg.data.tasks import task_pairs
from tfmetareg.errors import UserError
from tfmetareg.geometry.affine import resample
from tfmetareg.types import ImagePair, PairBatch


def names(pairs, count: int) -> list[bytes]:
    return [pair.moving.numpy().tobytes() for pair in pairs.take(count)]


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


def labelled_pair():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    return ImagePair("a", "eye", image, 255 - image, moving_labels=image // 5, fixed_labels=image // 3)


def test_labels_come_back_as_they_were():
    pair = labelled_pair()
    copy = decode_pair(encode_pair(pair))
    np.testing.assert_array_equal(copy.moving_labels, pair.moving_labels)
    np.testing.assert_array_equal(copy.fixed_labels, pair.fixed_labels)
    parsed = parse_pair(encode_pair(pair))
    assert parsed["moving_labels"].shape == parsed["moving"].shape == (3, 4, 1)
    bare = dataclasses.replace(pair, moving_labels=None, fixed_labels=None)
    assert decode_pair(encode_pair(bare)).fixed_labels is None


def test_labels_beyond_8_bits_come_with_their_codes():
    pair = dataclasses.replace(labelled_pair(), label_values=np.array([-(2**62), 300, 70000]))
    copy = decode_pair(encode_pair(pair))
    np.testing.assert_array_equal(copy.label_values, pair.label_values)
    np.testing.assert_array_equal(copy.moving_labels, pair.moving_labels)
    assert decode_pair(encode_pair(labelled_pair())).label_values is None
    assert parse_pair(encode_pair(labelled_pair()))["label_values"].shape == (0,)


def test_records_without_such_labels_hold_what_they_always_did():
    names = {*tf.train.Example.FromString(encode_pair(labelled_pair())).features.feature}
    assert names == {
        *("key", "subject", "height", "width", "alignment"),
        *(
            f"{side}{what}"
            for side in ("moving", "fixed")
            for what in ("", "_landmarks", "_spacing", "_labels")
        ),
    }


def test_records_of_before_there_were_labels_still_read():
    example = tf.train.Example.FromString(encode_pair(labelled_pair()))
    for name in ("moving_labels", "fixed_labels"):
        del example.features.feature[name]
    old = decode_pair(example.SerializeToString())
    assert (old.moving_labels, old.fixed_labels) == (None, None)
    np.testing.assert_array_equal(old.moving, labelled_pair().moving)


def test_a_copy_in_the_other_contrast_comes_back_and_others_do_without():
    pair = dataclasses.replace(labelled_pair(), moving_like_fixed=labelled_pair().moving // 2)
    np.testing.assert_array_equal(decode_pair(encode_pair(pair)).moving_like_fixed, pair.moving_like_fixed)
    assert parse_pair(encode_pair(pair))["moving_like_fixed"].shape == (3, 4, 1)
    assert decode_pair(encode_pair(labelled_pair())).moving_like_fixed is None
    for wrong in (np.zeros((3, 4), np.float32), np.zeros((4, 3), np.uint8)):
        with pytest.raises(ValueError, match="moving_like_fixed"):
            encode_pair(dataclasses.replace(pair, moving_like_fixed=wrong))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"moving_labels": None}, "labels of one image only"),
        ({"moving_labels": np.zeros((3, 4), np.int32)}, "must be uint8"),
        ({"fixed_labels": np.zeros((4, 3), np.uint8)}, "must be uint8"),
    ],
)
def test_labels_that_do_not_fit_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        encode_pair(dataclasses.replace(labelled_pair(), **wrong))


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
    images = names(pair_stream(records, "task_a", "train", seed=0), 12)
    first, second = images[:6], images[6:]
    assert len(set(first)) == 6
    assert sorted(first) == sorted(second)
    assert first != second


def test_the_seed_alone_decides_on_the_order(records):
    def order(seed: int) -> list[bytes]:
        return names(pair_stream(records, "task_a", "train", seed=seed), 6)

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_batches_are_full_even_if_larger_than_the_split(records):
    batch = next(iter(task_pairs(records, "target", "test", batch_size=5, seed=0)))
    assert batch.fixed.shape == (5, SIZE, SIZE, 1)


def test_an_unknown_task_or_split_is_named_beside_those_there_are(records):
    with pytest.raises(UserError, match="`tusk` is not in the records; there are: task_a, task_b"):
        records.shards("tusk", "train")
    with pytest.raises(UserError, match="`target` has no pairs in split `train`; it has: finetune, test"):
        records.shards("target", "train")


@pytest.mark.parametrize(
    "read", [examples, functools.partial(pair_stream, seed=0), Records.split, Records.shards, Records.verify]
)
@pytest.mark.parametrize("emptied", [False, True])
def test_a_split_that_is_not_there_is_told_by_all_that_read(records_root, tmp_path, read, emptied):
    """An older builder wrote splits without pairs, too."""
    manifest = json.loads((records_root / "manifest.json").read_text())
    if emptied:
        manifest["tasks"][0]["splits"] = {"test": {"pairs": 0, "subjects": 0, "shards": []}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    split, known = ("test", "none") if emptied else ("finetune", "train, test")
    with pytest.raises(
        UserError, match=f": task `task_a` has no pairs in split `{split}`; it has: {known}.$"
    ):
        read(Records(tmp_path), "task_a", split)


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


def damaged_copy(records_root, folder, damage) -> Records:
    """The records with one shard of task_a changed in place, of the size that the manifest names."""
    shutil.copytree(records_root, folder)
    shard = folder / "task_a-train.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    damage(content)
    shard.write_bytes(content)
    return Records(folder)


def flip_a_bit_of_the_second_record(content: bytearray) -> None:
    length = int.from_bytes(content[:8], "little")
    content[16 + length + 12 + 100] ^= 1


def end_with_the_first_record(content: bytearray) -> None:
    """As a reader sees it that asks for the size before the cut, and reads after it."""
    del content[16 + int.from_bytes(content[:8], "little") :]


@pytest.mark.parametrize("read", [examples, functools.partial(pair_stream, seed=0)])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit_of_the_second_record, "record 1 cannot be read"),
        (end_with_the_first_record, "ends after 1 of 3 records"),
    ],
)
def test_reading_a_damaged_shard_names_it_and_the_record(
    records_root, tmp_path, damage, said, read, monkeypatch
):
    records = damaged_copy(records_root, tmp_path / "records", damage)
    paths = [
        str(records.root / shard.file) for shard in records.manifest.task("task_a").splits["train"].shards
    ]
    monkeypatch.setattr(Records, "shards", lambda self, task, split: paths)
    with pytest.raises(UserError) as caught, damage_named(records, ["task_b", "task_a"]):
        for _ in read(records, "task_a", "train").take(20):
            pass
    assert f"task_a-train.tfrecord-00001-of-00002: {said}" in str(caught.value)
    assert str(caught.value).endswith("build task `task_a` again with --overwrite.")


def test_verifying_finds_what_has_another_digest(records_root, tmp_path):
    records = damaged_copy(records_root, tmp_path / "records", flip_a_bit_of_the_second_record)
    records.verify("task_b", "train")
    with pytest.raises(UserError, match="00001-of-00002: damaged shard .another SHA-256"):
        records.verify("task_a", "train")


def test_a_missing_folder_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match="tfrecords_builder build --output"):
        Records(tmp_path / "nowhere")


@pytest.mark.parametrize("truth", [TRUTH, np.float32([[0.7, 0.5, -6.3], [-0.4, 1.2, 20.8]])])
def test_images_are_aligned_as_the_library_does_it(truth):
    image = vessels(7, 96)
    aligned = align_image(tf.constant(image[..., None]), tf.constant(truth)).numpy()[..., 0]
    expected = resample(image, truth)
    assert aligned.dtype == np.uint8
    difference = np.abs(aligned.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert (expected == 0).any() and (expected > 99).any()


def test_training_sees_aligned_images_and_evaluation_both(turned, turned_roots):
    stored = {bytes(pair["fixed"].numpy()): pair for pair in examples(turned, "turned", "finetune")}
    for moving, fixed in pair_stream(turned, "turned", "finetune", seed=0).take(4):
        pair = stored[bytes(as_floats(PairBatch(moving, fixed)).fixed.numpy())]
        original = np.uint8(np.rint(255 * pair["moving"][..., 0]))
        np.testing.assert_allclose(moving[..., 0], resample(original, pair["alignment"].numpy()), atol=1)
        np.testing.assert_array_equal(moving, np.uint8(np.rint(255 * pair["aligned"])))
    plain = Records(turned_roots["none"])
    as_they_were = {bytes(pair["moving"].numpy()) for pair in examples(plain, "turned", "finetune")}
    assert {bytes(pair["moving"].numpy()) for pair in stored.values()} == as_they_were
    spec = examples(plain, "turned", "finetune").element_spec
    assert "aligned" not in spec
    assert unaligned(examples(turned, "turned", "finetune")).element_spec == spec


def test_records_without_alignment_pay_nothing_for_it(turned_roots, monkeypatch):
    def used(*arguments):
        raise AssertionError("aligned")

    monkeypatch.setattr("tfmetareg.data.records.align_image", used)
    for read in (examples, functools.partial(pair_stream, seed=0)):
        list(read(Records(turned_roots["none"]), "turned", "finetune").take(1))
        with pytest.raises(AssertionError, match="aligned"):
            read(Records(turned_roots["affine"]), "turned", "finetune")


def test_records_that_hold_aligned_images_are_refused(turned_roots, tmp_path):
    manifest = json.loads((turned_roots["affine"] / "manifest.json").read_text())
    manifest["preprocessing"]["version"] = 2
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="older program, which wrote the moving images already aligned"):
        Records(tmp_path)
    manifest["preprocessing"]["align"] = "none"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert Records(tmp_path).manifest.align_of("turned") == "none"
