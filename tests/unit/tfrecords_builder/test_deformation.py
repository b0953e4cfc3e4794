"""Displacements are smooth, fold-free, of the size asked for, and carry points where they carry pixels."""

from __future__ import annotations

import numpy as np
import pytest

from tfrecords_builder.deformation import (
    carry_points,
    jacobian_determinant,
    perturb,
    pull_points,
    random_displacement,
    smooth_noise,
    warp,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _blob(shape: tuple[int, int], centre: np.ndarray, radius: float = 3.0) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.exp(-0.5 * ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / radius**2)


def _centroid(image: np.ndarray) -> np.ndarray:
    return np.array([np.sum(index * image) for index in np.indices(image.shape)]) / image.sum()


def test_smooth_noise_has_unit_deviation_up_to_the_border() -> None:
    draws = np.stack([smooth_noise((24, 32), _rng(seed), smoothness_px=5.0) for seed in range(400)])
    assert draws.shape == (400, 24, 32) and draws.dtype == np.float32
    np.testing.assert_allclose(draws.std(axis=0), 1.0, atol=0.2)
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.25)


@pytest.mark.parametrize("smoothness", [3.0, 10.0])
def test_smooth_noise_correlates_over_its_smoothness(smoothness: float) -> None:
    noise = smooth_noise((256, 256), _rng(), smoothness_px=smoothness)
    lag = int(2 * smoothness)
    # White noise under a Gaussian of deviation s correlates as exp(-lag^2 / 4 s^2): 0.37 at two deviations.
    assert np.corrcoef(noise[lag:].ravel(), noise[:-lag].ravel())[0, 1] == pytest.approx(0.37, abs=0.12)


def test_displacement_has_the_length_asked_for() -> None:
    displacement = random_displacement((96, 128), _rng(), rms_px=2.0, smoothness_px=15.0)
    assert displacement.shape == (96, 128, 2) and displacement.dtype == np.float32
    assert np.sqrt(np.mean(np.sum(displacement**2, axis=-1))) == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_displacement_does_not_fold_however_much_is_asked_for(seed: int) -> None:
    displacement = random_displacement(
        (64, 64), _rng(seed), rms_px=30.0, smoothness_px=5.0, rotation_deg=10.0
    )
    assert jacobian_determinant(displacement).min() > 0
    assert np.abs(displacement).max() > 1


def test_jacobian_determinant_by_hand() -> None:
    rows, columns = np.indices((5, 6), dtype=np.float32)
    doubled_and_mirrored = np.stack([rows, -2 * columns], axis=-1)
    np.testing.assert_allclose(jacobian_determinant(doubled_and_mirrored), -2.0)


def test_rigid_part_is_a_rotation_about_the_centre_within_its_bounds() -> None:
    angles, shifts = [], []
    for seed in range(60):
        displacement = random_displacement(
            (41, 51), _rng(seed), rms_px=0.0, smoothness_px=9.0, rotation_deg=5.0, translation_px=3.0
        )
        shifts.append(np.hypot(*displacement[20, 25]))
        angles.append(np.degrees(np.arcsin(displacement[20, 26, 0] - displacement[20, 25, 0])))
        np.testing.assert_allclose(jacobian_determinant(displacement), 1.0, atol=1e-4)
    assert 2.0 < max(shifts) <= 3.0 + 1e-5
    assert -5.001 <= min(angles) < -3 and 3 < max(angles) <= 5.001


def test_warp_reads_the_image_at_the_displaced_place() -> None:
    image = np.arange(48, dtype=np.float32).reshape(6, 8)
    displacement = np.zeros((6, 8, 2), np.float32)
    displacement[..., 0] = 1.0
    warped = warp(image, displacement, order=1)
    np.testing.assert_allclose(warped[:-1], image[1:], atol=1e-5)
    np.testing.assert_allclose(warped[-1], image[-1], atol=1e-5)
    displacement[..., 0] = 0.0
    displacement[..., 1] = -0.25
    np.testing.assert_allclose(warp(image, displacement, order=1)[:, 1:], image[:, 1:] - 0.25, atol=1e-5)


def test_carry_points_reads_the_displacement_bilinearly_in_row_column_order() -> None:
    displacement = np.zeros((4, 5, 2), np.float32)
    displacement[1, 2] = (8.0, 4.0)
    carried = carry_points(np.array([[1, 2], [1.5, 2], [1.5, 2.75], [2, 1]]), displacement)
    np.testing.assert_allclose(carried, [[9, 6], [5.5, 4], [2.5, 3.25], [2, 1]], atol=1e-6)
    assert carried.dtype == np.float32
    assert carry_points(np.zeros((0, 2)), displacement).shape == (0, 2)


@pytest.mark.parametrize("seed", range(3))
def test_a_landmark_of_the_moving_image_is_carried_onto_its_blob_in_the_fixed_image(seed: int) -> None:
    rng = _rng(seed)
    shape = (96, 128)
    v = random_displacement(shape, rng, rms_px=3.0, smoothness_px=18.0, rotation_deg=3.0, translation_px=4.0)
    for fixed_point in rng.uniform(25, 70, (6, 2)):
        fixed = _blob(shape, fixed_point, radius=1.5)
        moving_point = pull_points(fixed_point, v)
        np.testing.assert_allclose(carry_points(moving_point, v)[0], fixed_point, atol=1e-3)
        np.testing.assert_allclose(_centroid(warp(fixed, v)), moving_point[0], atol=0.1)
        assert np.hypot(*(fixed_point - moving_point[0])) > 0.3


def test_perturb_adds_what_it_is_asked_for_and_stays_in_range() -> None:
    flat = np.full((128, 128), 0.5, np.float32)
    still = dict(noise=0.0, speckle=0.0, illumination=0.0)
    np.testing.assert_array_equal(perturb(flat, _rng(), **still), flat)
    assert perturb(flat, _rng(), **{**still, "noise": 0.05}).std() == pytest.approx(0.05, rel=0.05)
    assert perturb(flat, _rng(), **{**still, "speckle": 0.1}).std() == pytest.approx(0.05, rel=0.05)
    lit = perturb(flat, _rng(), **{**still, "illumination": 0.2})
    assert lit.std() > 0.02 and np.abs(np.diff(lit, axis=0)).max() < 0.02
    loud = perturb(flat, _rng(), noise=3.0)
    assert loud.min() == 0.0 and loud.max() == 1.0 and loud.dtype == np.float32


def test_perturb_differs_between_draws() -> None:
    flat = np.full((32, 32), 0.5, np.float32)
    rng = _rng()
    first, second = perturb(flat, rng), perturb(flat, rng)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.5
    np.testing.assert_array_equal(first, perturb(flat, _rng()))
