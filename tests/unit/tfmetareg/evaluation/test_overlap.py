"""Dice and surface distances: by hand, and against SimpleITK and distance transforms."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tfmetareg.evaluation.overlap import agreement, dice, label_scores, pair_means, surface_distances
from tfmetareg.geometry.displacement import warp_labels

SHAPE = (24, 30)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    region = np.zeros(SHAPE, bool)
    region[top : top + height, left : left + width] = True
    return region


rectangles = st.builds(
    rectangle, st.integers(0, 20), st.integers(0, 25), st.integers(1, 12), st.integers(1, 12)
)
regions = st.builds(
    lambda one, other, seed: (one | other) ^ speck(seed), rectangles, rectangles, st.integers(0, 9)
)


def speck(seed: int) -> np.ndarray:
    """Single pixels, so that regions have holes and islands."""
    return np.random.default_rng(seed).random(SHAPE) < 0.02


spacings = st.tuples(st.floats(0.2, 3), st.floats(0.2, 3))


def itk(region: np.ndarray, spacing=(1.0, 1.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(region.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    return image


def distances_by_itk(one: np.ndarray, other: np.ndarray, spacing) -> np.ndarray:
    """Both ways, pooled: SimpleITK's distance map of one contour, read at the pixels of the other."""
    contours = [
        sitk.BinaryContour(itk(np.pad(region, 1), spacing), fullyConnected=False) for region in (one, other)
    ]
    maps = [
        sitk.GetArrayFromImage(
            sitk.Abs(sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True))
        )
        for contour in contours
    ]
    on = [sitk.GetArrayFromImage(contour) > 0 for contour in contours]
    return np.concatenate([maps[1][on[0]], maps[0][on[1]]])


@settings(max_examples=40, deadline=None)
@given(one=regions, other=regions, spacing=spacings)
def test_distances_are_those_of_simpleitk(one, other, spacing):
    if not one.any() or not other.any():
        return
    expected = distances_by_itk(one, other, spacing)
    found = surface_distances(one, other, spacing)
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-4)
    scores = label_scores(one, other, spacing)
    assert scores.hd95_mm == pytest.approx(np.percentile(expected, 95), abs=1e-4)
    assert scores.assd_mm == pytest.approx(expected.mean(), abs=1e-4)
    # The largest of all is the Hausdorff distance, which does not ask where a region ends.
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(itk(one, spacing), itk(other, spacing))
    if not (one & other).any():
        assert found.max() == pytest.approx(hausdorff.GetHausdorffDistance(), abs=1e-4)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(itk(one), itk(other))
    assert scores.dice == pytest.approx(measures.GetDiceCoefficient(), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(one=regions, other=regions, spacing=spacings)
def test_distances_are_those_of_distance_transforms(one, other, spacing):
    """The definition that medpy and MONAI implement, written with scipy's transform."""
    if not one.any() or not other.any():
        return
    surfaces = [region & ~ndimage.binary_erosion(region) for region in (one, other)]
    maps = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    expected = np.concatenate([maps[1][surfaces[0]], maps[0][surfaces[1]]])
    np.testing.assert_allclose(surface_distances(one, other, spacing), expected, atol=1e-9)


def test_distances_by_hand():
    """A row of four pixels and the same 3 columns on: distances 3, 2, 1, 0 one way, 0, 1, 2, 3 the other."""
    one, other = rectangle(5, 4, 1, 4), rectangle(5, 7, 1, 4)
    found = surface_distances(one, other)
    np.testing.assert_array_equal(np.sort(found), [0, 0, 1, 1, 2, 2, 3, 3])
    scores = label_scores(one, other, (9.0, 0.5))
    assert (scores.assd_px, scores.assd_mm) == (1.5, 0.75)
    assert (scores.hd95_px, scores.hd95_mm) == (pytest.approx(3), pytest.approx(1.5))
    assert scores.dice == 2 * 1 / 8


def test_rows_and_columns_have_their_own_spacing():
    one = rectangle(5, 5, 1, 1)
    assert surface_distances(one, rectangle(7, 5, 1, 1), (0.5, 4.0)).tolist() == [1, 1]
    assert surface_distances(one, rectangle(5, 7, 1, 1), (0.5, 4.0)).tolist() == [8, 8]


def test_the_95th_percentile_leaves_a_stray_pixel_out():
    region = rectangle(4, 4, 12, 12)
    stray = region.copy()
    stray[23, 29] = True
    scores = label_scores(region, stray)
    assert surface_distances(region, stray).max() > 14
    assert scores.hd95_px == 0 and 0 < scores.assd_px < 0.3


def test_equal_regions_agree_wholly():
    scores = label_scores(rectangle(0, 0, 6, 6), rectangle(0, 0, 6, 6), (2.0, 2.0))
    assert scores == (1.0, 0.0, 0.0, 0.0, 0.0)


def test_an_empty_region_has_no_distance_and_never_a_zero():
    empty, region = np.zeros(SHAPE, bool), rectangle(2, 3, 4, 5)
    for one, other in ((empty, region), (region, empty)):
        assert label_scores(one, other, (1.0, 1.0)) == (0.0, None, None, None, None)
    assert label_scores(empty, empty) == (1.0, None, None, None, None)


def test_distances_in_mm_are_none_where_the_pixel_size_is_unknown():
    scores = label_scores(rectangle(2, 3, 4, 5), rectangle(3, 3, 4, 5))
    assert scores.hd95_mm is scores.assd_mm is None
    assert scores.hd95_px == 1


def label_map(**rectangles: tuple) -> np.ndarray:
    """(8, 9) int64: `_3=(rows, columns)` fills a rectangle with label 3."""
    labels = np.zeros((8, 9), np.int64)
    for name, (rows, columns) in rectangles.items():
        labels[rows, columns] = int(name[1:])
    return labels


STILL = np.zeros((8, 9, 2), np.float32)


def mean_dice(displacement: np.ndarray, fixed: np.ndarray, moving: np.ndarray):
    return pair_means(agreement(moving, fixed, moving, warp_labels(moving, displacement)))["dice"]


def test_dice_is_the_mean_over_the_labels_of_either_image():
    fixed = label_map(_1=(slice(0, 2), slice(0, 4)), _200=(slice(4, 6), slice(0, 2)))
    moving = label_map(_1=(slice(1, 3), slice(0, 4)), _7=(slice(6, 8), slice(6, 8)))
    # Label 1: 8 and 8 pixels, 4 of them shared. Labels 200 and 7 are in one image only.
    assert mean_dice(STILL, fixed, moving) == pytest.approx((2 * 4 / 16 + 0 + 0) / 3)
    assert mean_dice(STILL, fixed, fixed) == 1


def test_moving_labels_are_warped_to_their_nearest_neighbour():
    fixed, moving = (label_map(_3=(slice(row, row + 2), slice(2, 5))) for row in (2, 4))
    assert mean_dice(STILL, fixed, moving) == 0
    assert mean_dice(STILL + np.float32([2.4, 0.4]), fixed, moving) == 1
    assert mean_dice(STILL + np.float32([1.6, -0.4]), fixed, moving) == 1
    assert mean_dice(STILL + np.float32([1.4, 0]), fixed, moving) == pytest.approx(0.5)
    assert mean_dice(STILL - np.float32([2, 0]), fixed, moving) == 0


def test_beyond_the_moving_image_there_is_no_label():
    fixed, moving = label_map(_3=(slice(4, 8), slice(0, 9))), label_map(_3=(slice(6, 8), slice(0, 9)))
    # Rows 6 and 7 come to lie in rows 4 and 5; nothing is known of what comes after.
    assert mean_dice(STILL + np.float32([2, 0]), fixed, moving) == pytest.approx(2 * 2 / 6)


def test_a_label_of_the_moving_image_alone_that_the_warp_removes_counts_as_agreement():
    none, moving = label_map(), label_map(_3=(slice(0, 1), slice(0, 9)))
    assert mean_dice(STILL, none, moving) == 0
    assert mean_dice(STILL + np.float32([3, 0]), none, moving) == 1


def test_background_alone_has_no_measures():
    assert agreement(*[label_map()] * 4) == {}
    assert set(pair_means({}).values()) == {None}


def test_means_of_distances_are_over_the_labels_of_both_images():
    """Label 1 moves by a row, 2 is lost, 9 and -4 are in one image only."""
    moving = label_map(_1=(slice(0, 2), slice(0, 4)), _2=(slice(5, 6), slice(0, 1)), _9=(7, 8))
    moving[0, 8] = -4
    fixed = label_map(_1=(slice(1, 3), slice(0, 4)), _2=(slice(5, 6), slice(2, 3)))
    scores = agreement(moving, fixed, moving, np.where(moving == 2, 0, moving), (0.5, 0.5))
    assert list(scores) == [-4, 1, 2, 9]
    assert {label for label, each in scores.items() if each.in_both} == {1, 2}
    assert {label for label, each in scores.items() if each.is_lost} == {2}
    means = pair_means(scores)
    assert means["assd_before_px"] == pytest.approx((scores[1].before.assd_px + 2) / 2)
    assert means["assd_px"] == scores[1].after.assd_px == scores[1].before.assd_px
    assert means["assd_mm"] == pytest.approx(means["assd_px"] / 2)
    assert means["dice"] == pytest.approx((scores[1].after.dice + 0 + 0 + 0) / 4)


def test_scores_are_symmetric():
    one, other = rectangle(2, 3, 7, 5), rectangle(4, 1, 3, 9)
    assert dice(one, other) == dice(other, one)
    assert label_scores(one, other, (0.5, 2.0)) == pytest.approx(label_scores(other, one, (0.5, 2.0)))
