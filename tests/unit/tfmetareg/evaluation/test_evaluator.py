"""What an evaluation says of a registration, by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.data.records import examples, realigned, unaligned
from tfmetareg.evaluation.evaluator import (
    Evaluator,
    PairResult,
    summary,
    to_csv,
    undeformed,
    with_alignment_time,
    with_alignments,
)
from tfmetareg.evaluation.overlap import agreement, pair_means
from tfmetareg.geometry.affine import points_to_moving
from tfmetareg.geometry.warp import warp
from tfmetareg.training.losses import registration_loss
from tfmetareg.types import PairBatch


def result(key: str, **changes) -> PairResult:
    values = PairResult(
        key=key,
        subject=f"subject {key}",
        distance_before_px=8.0,
        distance_px=2.0,
        ncc_before=0.25,
        ncc=0.75,
        local_ncc_before=0.125,
        local_ncc=0.5,
        folding_percent=0.0,
        seconds=0.5,
        loss=-0.25,
        landmarks=3,
    )
    return dataclasses.replace(values, **changes)


THREE = [
    result("a"),
    result(
        "b", distance_before_px=4.0, distance_px=1.0, ncc=0.25, folding_percent=3.0, seconds=0.1, landmarks=5
    ),
    result("c", distance_before_px=None, distance_px=None, ncc=0.5, ncc_before=1.0, seconds=9.0, landmarks=0),
]


def test_summary_by_hand():
    found = summary(THREE)
    assert found["pairs"] == 3
    assert found["distance_px"] == {
        "mean": 1.5,
        "std": 0.5,
        "before_mean": 6.0,
        "before_std": 2.0,
        "landmarks": 8,
    }
    assert found["ncc"] == pytest.approx({"mean": 0.5, "std": math.sqrt(1 / 24), "before_mean": 0.5})
    assert found["local_ncc"] == pytest.approx({"mean": 0.5, "std": 0.0, "before_mean": 0.125})
    assert found["folding_percent"] == {"mean": 1.0, "max": 3.0}
    assert found["seconds_per_pair"] == {"median": 0.5, "alignment_median": 0.0}


def test_summary_of_optional_measures_is_over_the_pairs_that_have_them():
    found = summary([
        result("a", distance_mm=1.0, distance_before_mm=3.0, dice=0.75, dice_before=0.5),
        result("b", distance_mm=2.0, distance_before_mm=5.0),
        result("c", dice=0.25, dice_before=0.0),
    ])  # fmt: skip
    assert found["distance_mm"] == {"mean": 1.5, "std": 0.5, "before_mean": 4.0}
    assert found["dice"] == {"mean": 0.5, "std": 0.25, "before_mean": 0.25}
    assert summary(THREE)["distance_mm"] is summary(THREE)["dice"] is None


def test_summary_has_no_distance_where_no_pair_has_landmarks():
    found = summary(THREE[2:])
    assert found["distance_px"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_csv_has_a_line_per_pair_and_leaves_missing_distances_empty():
    text = to_csv([*THREE, result('d, "quoted"')])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(PairResult)][:-1]
    assert [row["key"] for row in rows] == ["a", "b", "c", 'd, "quoted"']
    assert (rows[1]["distance_px"], rows[1]["landmarks"]) == ("1.0", "5")
    assert rows[2]["distance_px"] == rows[2]["distance_before_px"] == ""


def shifted_back(pair):
    """The registration that knows how the small records were shifted."""
    displacement = tf.ones([*pair.fixed.shape[:3], 2]) * tf.constant([1.0, 2.0])
    return warp(pair.moving, displacement), displacement


@pytest.fixture
def target(records):
    return examples(records, "target", "test")


def test_undeformed_pairs_measure_the_same_before_and_after(target):
    results = Evaluator(undeformed, target, registration_loss)()
    assert len(results) == 3 and len({one.key for one in results}) == 3
    for one in results:
        assert one.distance_px == one.distance_before_px == pytest.approx(math.hypot(1, 2), abs=1e-4)
        assert (one.ncc, one.local_ncc, one.folding_percent) == (one.ncc_before, one.local_ncc_before, 0.0)
        assert one.loss == pytest.approx(-one.local_ncc, abs=1e-6)
        assert one.landmarks == 3 and one.seconds > 0


def test_the_right_displacement_brings_landmarks_and_images_together(target):
    for one in Evaluator(shifted_back, target, registration_loss)():
        assert one.distance_px == pytest.approx(0, abs=1e-4)
        assert one.distance_before_px == pytest.approx(math.hypot(1, 2), abs=1e-4)
        assert one.ncc > 0.9 > one.ncc_before + 0.05 and one.local_ncc > one.local_ncc_before + 0.2


def test_pairs_without_landmarks_have_no_distance(target):
    none = tf.zeros((0, 2))
    bare = target.map(lambda example: {**example, "moving_landmarks": none, "fixed_landmarks": none})
    for one in Evaluator(undeformed, bare, registration_loss)():
        assert (one.distance_px, one.distance_before_px, one.landmarks) == (None, None, 0)


def labelled(example):
    """A label above and one below the middle; the moving image's lie where its shift puts them."""
    fixed = tf.reshape(tf.repeat(tf.constant([1, 2], tf.uint8), 16 * 32), (32, 32, 1))
    moving = tf.roll(fixed, 1, axis=0)
    spacing = {"moving_spacing": [0.5, 2.0], "fixed_spacing": [0.5, 2.0]}
    return {**example, "fixed_labels": fixed, "moving_labels": moving, **spacing}


def test_millimetres_and_dice_are_measured_where_spacing_and_labels_are_known(target):
    for one in Evaluator(undeformed, target.map(labelled), registration_loss)():
        assert one.distance_mm == one.distance_before_mm == pytest.approx(math.hypot(0.5, 4), abs=1e-4)
        # Row 0 and row 16 have the other label: 15 and 15 of 16 rows are shared by each.
        assert one.dice == one.dice_before == pytest.approx(30 / 32)
        assert one.hd95_mm == one.hd95_before_mm and one.labels_lost == 0
        assert 0 < one.assd_mm < 0.5 * one.assd_px + 1e-9
    for one in Evaluator(shifted_back, target.map(labelled), registration_loss)():
        assert one.distance_mm == pytest.approx(0, abs=1e-4) and one.distance_before_mm > 4
        # The last row and the last two columns have no partner, and so no label.
        assert one.dice == pytest.approx(np.mean([2 * n / (16 * 32 + n) for n in (16 * 30, 15 * 30)]))
        assert {label: each.before.dice for label, each in one.labels.items()} == {1: 30 / 32, 2: 30 / 32}


def test_labels_of_any_number_are_measured_by_their_own_names(target):
    def renamed(example):
        return {**labelled(example), "label_values": tf.constant([-4, 70000], tf.int64)}

    for one, plain in zip(
        *(Evaluator(undeformed, target.map(kind), registration_loss)() for kind in (renamed, labelled))
    ):
        assert list(one.labels) == [-4, 70000] and list(plain.labels) == [1, 2]
        assert [*one.labels.values()] == [*plain.labels.values()]


def test_labels_without_pixel_size_are_measured_in_pixels(target):
    unknown = tf.constant([np.nan, np.nan])
    bare = target.map(lambda example: {**labelled(example), "fixed_spacing": unknown})
    for one in Evaluator(undeformed, bare, registration_loss)():
        assert one.hd95_mm is one.assd_mm is one.hd95_before_mm is None
        assert one.hd95_px >= one.assd_px > 0


def test_a_label_that_the_warp_loses_is_counted_and_has_no_distance(target):
    """One pixel of label 9 in the moving image's first row, which the displacement leaves out."""

    def dotted(example):
        pixel = tf.scatter_nd([[0, 5, 0]], tf.constant([9], tf.uint8), (32, 32, 1))
        return {**example, "moving_labels": pixel, "fixed_labels": pixel}

    for one in Evaluator(shifted_back, target.map(dotted), registration_loss)():
        assert (one.dice, one.dice_before, one.labels_lost) == (0, 1, 1)
        assert (one.hd95_before_px, one.hd95_px, one.assd_px) == (0, None, None)


def test_pairs_without_spacing_or_labels_have_no_millimetres_and_no_dice(target):
    for one in Evaluator(undeformed, target, registration_loss)():
        assert (one.distance_mm, one.distance_before_mm, one.dice, one.dice_before) == (None,) * 4
        assert (one.hd95_px, one.assd_before_mm, one.labels_lost, one.labels) == (None, None, None, {})
        assert one.distance_px is not None


LABELLED = [
    result(
        key,
        **pair_means(scores),
        labels_lost=sum(each.is_lost for each in scores.values()),
        labels=scores,
    )
    for key, moving, warped in (("a", [0, 3, 3, 0], [3, 3, 0, 0]), ("b", [0, 3, 0, 8], [0, 0, 0, 8]))
    for scores in [agreement(*np.array([moving, [3, 3, 0, -1], moving, warped])[:, None], (1.0, 0.5))]
]


def test_each_label_has_columns_of_its_own():
    rows = list(csv.DictReader(io.StringIO(to_csv([*LABELLED, result("c")]))))
    assert (rows[0]["label_3_dice_before"], rows[0]["label_3_dice"]) == ("0.5", "1.0")
    assert (rows[0]["label_3_hd95_before_px"], rows[0]["label_3_hd95_before_mm"]) == ("1.0", "0.5")
    # Pair b loses label 3; label 8 is in its moving image only, -1 in both pairs' fixed ones.
    assert (rows[1]["label_3_dice"], rows[1]["label_3_hd95_px"], rows[1]["labels_lost"]) == ("0.0", "", "1")
    assert (rows[0]["label_8_dice"], rows[1]["label_8_dice"]) == ("", "0.0")
    assert rows[0]["label_-1_dice"] == "0.0" and rows[0]["label_-1_assd_px"] == ""
    assert {rows[2][name] for name in rows[2] if name.startswith("label")} == {""}


def test_the_summary_holds_each_label():
    found = summary([*LABELLED, result("c")])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {name: (each["pairs"], each["lost"]) for name, each in found["labels"].items()} == {
        "-1": (2, 0), "3": (2, 1), "8": (1, 0),
    }  # fmt: skip
    three = found["labels"]["3"]
    assert three["dice"] == {"mean": 0.5, "std": 0.5, "before_mean": pytest.approx((0.5 + 2 / 3) / 2)}
    # Of pair a alone: b has lost the label.
    assert three["hd95_mm"] == {"mean": 0.0, "std": 0.0, "before_mean": 0.5}
    assert found["labels"]["8"]["hd95_px"] is None
    assert found["hd95_px"]["before_mean"] == 1.0
    assert summary(THREE)["labels"] is summary(THREE)["hd95_px"] is None


def test_pairs_with_and_without_labels_and_all_methods_share_one_trace(target):
    traces = []

    def counted(*arguments):
        traces.append(arguments)
        return registration_loss(*arguments)

    mixed = target.take(1).concatenate(target.map(labelled)).concatenate(target.take(1))
    results = Evaluator(undeformed, mixed, counted)()
    assert [one.dice is None for one in results] == [True, False, False, False, True]
    assert Evaluator(shifted_back, mixed, counted)()[0].distance_px == pytest.approx(0, abs=1e-4)
    assert len(traces) == 1


def test_examples_hold_the_wanted_pairs_as_they_were_registered(target):
    evaluator = Evaluator(shifted_back, target, registration_loss)
    kept = evaluator.examples([2, 0])
    last = [*target][2]
    assert list(kept["key"]) == [evaluator()[place].key for place in (2, 0)]
    assert kept["warped"].shape == kept["moving"].shape == kept["fixed"].shape == (2, 32, 32)
    np.testing.assert_array_equal(kept["displacement"], np.broadcast_to([1, 2], (2, 32, 32, 2)))
    np.testing.assert_array_equal(kept["moving"][0], last["moving"][..., 0])
    np.testing.assert_allclose(kept["warped"][0, :-1, :-2], kept["moving"][0, 1:, 2:], atol=1e-6)
    np.testing.assert_array_equal(kept["fixed_landmarks_0"], last["fixed_landmarks"])
    np.testing.assert_array_equal(kept["moving_landmarks_1"] - kept["fixed_landmarks_1"], [[1, 2]] * 3)
    assert not any("labels" in name for name in kept)


def test_examples_hold_the_labels_of_pairs_that_have_some(target):
    mixed = target.take(1).concatenate(target.skip(1).map(labelled))
    kept = Evaluator(shifted_back, mixed, registration_loss).examples([0, 1])
    assert {name for name in kept if "labels" in name} == {
        f"{name}_labels_1" for name in ("moving", "fixed", "warped")
    }
    np.testing.assert_array_equal(kept["warped_labels_1"][:31, :30], kept["fixed_labels_1"][:31, :30])
    assert not kept["warped_labels_1"][31:].any() and not kept["warped_labels_1"][:, 30:].any()


@pytest.fixture
def turned_target(turned):
    return examples(turned, "turned", "test")


def test_alignment_alone_is_measured_on_the_moving_image_as_it_was(turned_target):
    aligned = Evaluator(undeformed, turned_target, registration_loss)()
    raw = Evaluator(undeformed, unaligned(turned_target), registration_loss)()
    for one, before in zip(aligned, raw):
        assert before.distance_px == before.distance_before_px == one.distance_before_px > 8
        assert one.distance_px < 0.5
        assert one.ncc_before == before.ncc < 0.3 < 0.7 < one.ncc


def test_the_alignment_is_composed_with_what_is_found_after_it(turned_target):
    """By hand: a displacement of (1, 2) after the alignment leads p to A (p + (1, 2)) + t."""
    evaluator = Evaluator(shifted_back, turned_target, registration_loss)
    for example in turned_target:
        one, warped, displacement = evaluator.register_and_measure(example)
        points, alignment = example["fixed_landmarks"].numpy(), example["alignment"].numpy()
        expected = points_to_moving(points + np.float32([1, 2]), alignment)
        errors = np.linalg.norm(expected - example["moving_landmarks"], axis=1)
        assert one.distance_px == pytest.approx(errors.mean(), abs=1e-4)
        assert one.distance_px > 1.5
        # One interpolation, of the image as it was.
        np.testing.assert_array_equal(warped, warp(example["moving"][None], displacement))


def test_the_network_sees_the_aligned_image(turned_target):
    seen = []

    def register(pair):
        tf.numpy_function(lambda moving: seen.append(moving) or np.float32(0), [pair.moving], tf.float32)
        return undeformed(pair)

    list(Evaluator(register, turned_target.take(1), registration_loss)())
    example = next(iter(turned_target))
    np.testing.assert_array_equal(seen[-1][0], example["aligned"])
    assert np.abs(example["aligned"] - example["moving"]).mean() > 0.05


def test_the_loss_is_the_trained_one_of_the_aligned_image(turned_target):
    evaluator = Evaluator(shifted_back, turned_target, registration_loss)
    for example in turned_target:
        pair = PairBatch(example["aligned"][None], example["fixed"][None])
        expected = registration_loss(pair, *shifted_back(pair)).total
        assert evaluator.register_and_measure(example)[0].loss == pytest.approx(float(expected), abs=1e-5)


def test_other_alignments_take_the_place_of_the_stored_ones(turned_target):
    shift = np.float32([[1, 0, 3], [0, 1, -4]])
    moved = realigned(unaligned(turned_target), np.stack([shift] * 3))
    for example in moved:
        _, _, displacement = Evaluator(undeformed, moved, registration_loss).register_and_measure(example)
        np.testing.assert_allclose(displacement, np.broadcast_to([3, -4], displacement.shape), atol=1e-4)
        rows, columns = slice(0, 60), slice(4, 64)
        np.testing.assert_array_equal(example["aligned"][rows, columns], example["moving"][3:63, 0:60])


def test_pairs_that_the_alignment_found_nothing_for_are_listed():
    still, shift = np.eye(2, 3), np.array([[1.0, 0, 2], [0, 1, 0]])
    results = with_alignments(THREE, np.stack([shift, still, shift]))
    assert [result.aligned for result in results] == [1, 0, 1]
    assert summary(results)["unaligned"] == [THREE[1].key]
    assert summary(THREE)["unaligned"] is None  # Alignment is no part of the method.


def test_the_time_of_the_alignment_is_added_and_told_apart():
    timed = with_alignment_time(THREE, [1.0, 2.0, 3.0])
    assert [(one.seconds, one.seconds_alignment) for one in timed] == [(1.5, 1), (2.1, 2), (12, 3)]
    assert summary(timed)["seconds_per_pair"] == {"median": 2.1, "alignment_median": 2.0}
