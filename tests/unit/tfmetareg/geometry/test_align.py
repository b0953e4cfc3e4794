from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tfmetareg.geometry import align as alignment_search
from tfmetareg.geometry.affine import compose_displacement, points_to_aligned, points_to_moving, resample
from tfmetareg.geometry.align import align


def vessels(seed: int = 0, size: int = 128) -> np.ndarray:
    """uint8 (size, size): thin random lines, which give a narrow basin as vessels do."""
    rng = np.random.default_rng(seed)
    lines = np.abs(ndimage.gaussian_filter(rng.normal(size=(size, size)), 4))
    return np.uint8(255 * np.exp(-((lines / lines.std() / 0.3) ** 2)))


def turned(degrees: float, shift=(0.0, 0.0), stretch: float = 1.0, size: int = 128) -> np.ndarray:
    """The alignment that turns about the centre, stretches and shifts."""
    angle = np.deg2rad(degrees)
    matrix = stretch * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.full(2, (size - 1) / 2)
    return np.column_stack([matrix, centre - matrix @ centre + shift])


def noisy_pair(truth: np.ndarray, seed: int = 0, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """moving(truth(p)) = fixed(p), with noise of its own in each."""
    rng = np.random.default_rng(seed + 100)
    moving = vessels(seed, size)
    fixed = resample(moving, truth)
    return tuple(np.clip(image + rng.normal(0, 20, image.shape), 0, 255) for image in (moving, fixed))


POINTS = np.random.default_rng(1).uniform(30, 98, (40, 2)).astype(np.float32)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.linalg.norm(points_to_moving(POINTS, found) - points_to_moving(POINTS, truth), axis=1).mean()
    )


@pytest.mark.parametrize("kind", ["rigid", "affine"])
@pytest.mark.parametrize(
    "truth", [turned(0, (17, -14)), turned(7, (-9, 12)), turned(-5, (3, 3))], ids=["shift", "both", "turn"]
)
def test_shifts_and_turns_are_found(kind, truth):
    assert error(turned(0), truth) > 4
    assert error(align(*noisy_pair(truth), kind), truth) < 0.3


def test_a_stretch_takes_an_affine_alignment():
    truth = turned(2, (6, -4), stretch=1.08)
    assert error(align(*noisy_pair(truth), "affine"), truth) < 0.3
    assert error(align(*noisy_pair(truth), "rigid"), truth) > 0.8


@pytest.mark.parametrize("size", [321, 480])
def test_large_images_are_averaged_down_and_the_alignment_is_in_their_own_pixels(size):
    truth = turned(4, (21, -17), stretch=1.05, size=size)
    assert error(align(*noisy_pair(truth, size=size), "affine"), truth) < 0.3


def test_an_aligned_pair_stays_and_a_rigid_alignment_is_rigid():
    pair = noisy_pair(turned(0))
    assert error(align(*pair, "affine"), turned(0)) < 0.1
    matrix = align(*noisy_pair(turned(6, (5, 5))), "rigid")[:, :2]
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("images", [(np.zeros((64, 64)),) * 2, (vessels(0, 16),) * 2])
def test_nothing_to_go_by_is_the_identity(images):
    np.testing.assert_array_equal(align(*images), np.eye(2, 3))


@pytest.mark.parametrize("kind", ["rigid", "affine"])
@pytest.mark.parametrize(("grain", "seed"), [(2, 2), (4, 504)])
def test_unrelated_images_stay_as_they_are(kind, grain, seed):
    """Some shift or other always agrees better than none: by chance, and by little."""
    noise = np.random.default_rng(seed).normal(size=(2, 96, 96))
    moving, fixed = (ndimage.gaussian_filter(texture, grain) for texture in noise)
    np.testing.assert_array_equal(align(moving, fixed, kind), np.eye(2, 3))


def test_points_and_images_go_the_same_way():
    """A bright point of the moving image is, in the aligned one, where `points_to_aligned` says; and back."""
    truth = turned(8, (10, -6), 1.05)
    moving = np.zeros((128, 128))
    moving[70, 50] = 1
    moving = ndimage.gaussian_filter(moving, 2)
    aligned = resample(moving, truth)
    place = points_to_aligned(np.float32([[70, 50]]), truth)
    found = ndimage.center_of_mass(aligned)
    np.testing.assert_allclose(found, place[0], atol=0.05)
    np.testing.assert_allclose(points_to_moving(place, truth), [[70, 50]], atol=1e-4)


def test_what_has_no_pixel_is_black():
    shifted = resample(np.full((64, 64), 9, np.uint8), np.float32([[1, 0, 0], [0, 1, 60.5]]))
    assert shifted.dtype == np.uint8
    # Column 3 reads half of the last pixel and half of the black beyond it: 4.5, rounded to even.
    np.testing.assert_array_equal(shifted[:, :5], np.tile(np.uint8([9, 9, 9, 4, 0]), (64, 1)))


def test_an_alignment_and_a_displacement_compose_to_one():
    """By hand: p = (10, 20), u(p) = (2, -3): A (12, 17) + t = (0.5 * 12 + 2 * 17 + 1, 17 - 5) = (41, 12)."""
    alignment = np.float32([[0.5, 2, 1], [0, 1, -5]])
    displacement = np.zeros((32, 32, 2), np.float32)
    displacement[10, 20] = 2, -3
    whole = compose_displacement(displacement, alignment)
    assert whole.dtype == np.float32
    np.testing.assert_allclose([10, 20] + whole[10, 20], [41, 12], atol=1e-5)
    # Where u is zero, the alignment alone is left: A (0, 0) + t.
    np.testing.assert_allclose(whole[0, 0], [1, -5], atol=1e-5)


def test_without_an_alignment_the_displacement_stays_bit_for_bit():
    displacement = np.random.default_rng(0).normal(size=(9, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        compose_displacement(displacement, np.eye(2, 3, dtype=np.float32)), displacement
    )


def test_depends_on_the_images_alone():
    pair = noisy_pair(turned(3, (5, 8)))
    first, second = align(*pair), align(*pair)
    assert first.tobytes() == second.tobytes()


def test_agreement_is_highest_at_the_truth():
    truth = turned(4, (6, -5))
    moving, fixed = noisy_pair(truth)
    there = alignment_search.agreement(moving, fixed, truth)
    assert there > 0.6
    assert alignment_search.agreement(moving, fixed, turned(0)) < 0.2
    assert alignment_search.agreement(moving, fixed, turned(0, (100, 0))) == -1


def other_contrast(image: np.ndarray) -> np.ndarray:
    """Bright for dark in part of the range only, so that no straight line relates the two images."""
    return np.where(image < 128, 255 - image, 2 * (image - 64.0))


def discs(background: float, seed: int = 0) -> np.ndarray:
    """(128, 128): an oval with a few organs, on an even background."""
    rows, columns = np.mgrid[:128, :128]
    image = np.full((128, 128), background)
    image[(rows - 64) ** 2 / 38**2 + (columns - 60) ** 2 / 24**2 < 1] = 120
    for row, column in np.random.default_rng(seed).uniform((45, 50), (85, 72), (6, 2)):
        image[(rows - row) ** 2 + (columns - column) ** 2 < 30] = 60
    return ndimage.gaussian_filter(image, 1.5)


def test_images_of_another_contrast_are_aligned():
    truth = turned(6, (9, -7), stretch=1.05)
    moving, fixed = noisy_pair(truth)
    assert error(align(other_contrast(moving), fixed), truth) < 0.5
    assert error(align(255 - moving, fixed), truth) < 0.3


@pytest.mark.parametrize("background", [0, 255], ids=["black", "white"])
def test_what_lies_elsewhere_before_an_even_background_is_found(background):
    """30 pixels: beyond the search from the identity; the centres of mass start near."""
    truth = turned(5, (24, -18), stretch=1.1)
    moving = discs(background)
    matrix, shift = truth[:, :2], truth[:, 2]
    fixed = ndimage.affine_transform(moving, matrix, shift, order=1, mode="nearest")
    assert error(align(moving, fixed), truth) < 1.5


@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_the_images_as_they_are_by_its_own_criterion(seed):
    rng = np.random.default_rng(seed)
    truth = turned(rng.uniform(-20, 20), rng.uniform(-30, 30, 2), rng.uniform(0.8, 1.2))
    pair = noisy_pair(truth, seed)
    found = align(*pair)
    before = alignment_search.agreement(*pair, np.eye(2, 3))
    assert np.array_equal(found, np.eye(2, 3)) or alignment_search.agreement(*pair, found) > before


def test_an_aligned_pair_without_noise_is_left_exactly_as_it_is():
    image = vessels()
    assert align(image, image).tobytes() == np.eye(2, 3, dtype=np.float32).tobytes()


def test_pixels_of_small_and_large_images_correspond():
    """By hand: pixel 1 of the image shrunk by 2 covers pixels 2 and 3: its centre lies at 2.5."""
    small = np.array([[1.0, 0, 1], [0, 1, -2]])
    large = alignment_search._enlarged(small, 2)
    np.testing.assert_allclose(large @ [0.5, 0.5, 1], [2.5, -3.5])  # Pixel (0, 0) lies at (1, -2).
    np.testing.assert_allclose(alignment_search._reduced(large, 2), small)


def test_a_likely_shift_is_a_lower_bound_and_0_for_unrelated_images():
    moving, fixed = noisy_pair(turned(0, (16, 12)))
    assert 17 < alignment_search.likely_shift(moving, fixed) <= 20
    assert alignment_search.likely_shift(vessels(1), vessels(2)) == 0
