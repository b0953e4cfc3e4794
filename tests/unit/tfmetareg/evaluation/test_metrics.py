"""The measures, by hand and against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tfmetareg.evaluation.metrics import folding_percent, landmark_distance, ncc


def test_ncc_is_the_correlation_coefficient_of_each_pair():
    rng = np.random.default_rng(0)
    fixed, other = rng.random((2, 3, 8, 11, 1), np.float32)
    warped = np.float32([0.2, 0.9, -0.5])[:, None, None, None] * fixed + 0.2 * other + 3
    expected = [np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(fixed, warped)]
    np.testing.assert_allclose(ncc(fixed, warped), expected, atol=1e-5)
    assert expected[2] < -0.5 < 0.5 < expected[1]


def test_ncc_of_a_constant_image_is_zero():
    image, flat = (
        np.random.default_rng(0).random((1, 8, 8, 1), np.float32),
        np.full((1, 8, 8, 1), 0.5, np.float32),
    )
    assert ncc(image, flat).numpy() == ncc(flat, image).numpy() == ncc(flat, flat).numpy() == [0]


def test_landmark_distance_by_hand():
    displacement = np.zeros((6, 7, 2), np.float32)
    displacement[2, 3] = [1, -2]
    fixed = np.float32([[2, 3], [4, 5], [2, 3.5]])
    # The first is carried to (3, 1), 5 away from its partner; the second stays, 0 away;
    # the third is carried by half the displacement to (2.5, 2.5), 1 away.
    moving = np.float32([[6, 5], [4, 5], [2.5, 3.5]])
    assert float(landmark_distance(displacement, fixed, moving)) == pytest.approx((5 + 0 + 1) / 3)


def test_landmark_distance_without_landmarks_is_nan():
    none = np.zeros((0, 2), np.float32)
    assert np.isnan(landmark_distance(np.zeros((6, 7, 2), np.float32), none, none))


def test_landmark_distance_in_mm_honours_anisotropic_spacing():
    fixed, moving = np.float32([[2, 3], [4, 5]]), np.float32([[5, 3], [4, 9]])
    still = np.zeros((6, 10, 2), np.float32)
    # 3 rows of 0.5 mm and 4 columns of 2 mm.
    assert float(landmark_distance(still, fixed, moving, np.float32([0.5, 2]))) == pytest.approx(
        (1.5 + 8) / 2
    )
    assert float(landmark_distance(still, fixed, moving)) == pytest.approx((3 + 4) / 2)
    assert np.isnan(landmark_distance(still, fixed, moving, np.float32([np.nan, np.nan])))


def along(axis: int, factor: float) -> np.ndarray:
    """x -> (1 + factor) * x along one axis, as a displacement (5, 5, 2)."""
    field = np.zeros((5, 5, 2), np.float32)
    field[..., axis] = factor * np.indices((5, 5))[axis]
    return field


def one_pixel(axis: int, by: float) -> np.ndarray:
    field = np.zeros((5, 5, 2), np.float32)
    field[2, 2, axis] = by
    return field


def turned() -> np.ndarray:
    """x -> a quarter turn of x: nothing folds, though each diagonal term of the Jacobian is 0."""
    rows, columns = np.indices((5, 5))
    return np.stack([columns - rows, -rows - columns], -1).astype(np.float32)


@pytest.mark.parametrize(
    ("field", "percent"),
    [
        (np.zeros((5, 5, 2)), 0),
        (along(0, -2), 100),
        (along(1, -2), 100),
        (along(0, -1), 100),
        (along(0, -0.9), 0),
        (along(0, -2) + along(1, -2), 0),
        (turned(), 0),
        (one_pixel(0, 1.5), 100 / 16),
        (one_pixel(1, -1.5), 100 / 16),
        (one_pixel(0, 0.9), 0),
    ],
    ids=["identity", "rows", "columns", "collapsed", "shrunk", "point", "turned", "down", "left", "bulge"],
)
def test_folding_percent_by_hand(field, percent):
    batch = np.stack([field, np.zeros((5, 5, 2))]).astype(np.float32)
    np.testing.assert_allclose(folding_percent(batch), [percent, 0])
