from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tfmetareg.geometry.refinement import Refinement, agreement_of


def features(height: int = 72, width: int = 96, seed: int = 0) -> np.ndarray:
    """float32 (2, height, width): smooth textures."""
    noise = np.random.default_rng(seed).normal(size=(2, height, width))
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5), mode="wrap").astype(np.float32)


def carried(moving: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What the fixed map is where A p + t is the true alignment."""
    return np.stack([
        ndimage.affine_transform(each, truth[:, :2], truth[:, 2], order=3, mode="nearest") for each in moving
    ])  # fmt: skip


RIGID = np.array([[np.cos(0.04), -np.sin(0.04), 3.0], [np.sin(0.04), np.cos(0.04), -2.0]])
AFFINE = np.array([[1.03, 0.02, 1.0], [-0.01, 0.97, 2.0]])


@pytest.mark.parametrize(("kind", "truth"), [("rigid", RIGID), ("affine", RIGID), ("affine", AFFINE)])
def test_a_small_motion_is_found_from_the_identity(kind, truth):
    moving = features()
    found = Refinement(moving, carried(moving, truth), kind).search(np.eye(2, 3), 20, 0.01)
    corners = np.array([[0, 0, 1], [71, 0, 1], [0, 95, 1], [71, 95, 1.0]])
    np.testing.assert_allclose(corners @ found.alignment.T, corners @ truth.T, atol=0.2)
    assert found.agreement > 0.85


def test_gain_and_offset_of_the_features_do_not_matter():
    moving = features()
    fixed = carried(moving, AFFINE)
    plain = Refinement(moving, fixed, "affine").search(np.eye(2, 3), 20, 0.01)
    other = Refinement(7 * moving + 3, fixed, "affine").search(np.eye(2, 3), 20, 0.01)
    np.testing.assert_allclose(other.alignment, plain.alignment, atol=1e-3)


def test_a_search_never_ends_worse_than_it_starts():
    for seed in range(5):
        refinement = Refinement(features(seed=seed), features(seed=seed + 100), "affine")
        assert refinement.search(np.eye(2, 3), 10, 0.01).agreement >= refinement.agreement(np.eye(2, 3))


def test_the_overlap_weighs_the_agreement_by_its_square_root():
    """By hand: shifted by a quarter of the width, three quarters of the columns are left."""
    moving = np.tile(features(40, 40), (1, 1, 3))[:, :, :80]  # Repeats itself each 40 columns.
    shift = np.array([[1.0, 0, 0], [0, 1, 40]])
    assert agreement_of(moving, moving, shift) == pytest.approx(np.sqrt(40 / 80), abs=1e-5)


@pytest.mark.parametrize(
    "alignment",
    [[[1, 0, 60], [0, 1, 0]], [[1.6, 0, -20], [0, 1, 0]], [[0.6, 0, 10], [0, 1, 0]]],
    ids=["too far", "too large", "too small"],
)
def test_implausible_alignments_do_not_count(alignment):
    assert agreement_of(features(), features(), np.array(alignment, np.float64)) == -1


def test_nothing_to_compare_is_no_agreement():
    flat = np.zeros((2, 40, 40), np.float32)
    assert Refinement(flat, flat, "affine").search(np.eye(2, 3), 5, 0.1).agreement == -1
