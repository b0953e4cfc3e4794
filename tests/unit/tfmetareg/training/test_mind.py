"""MIND-SSC against loops over pixels, and what it does not mind: inversion, gain, gamma."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.tfmetareg.training.test_losses import FLAT, images_with_a_flat_part, padded, textures
from tfmetareg.geometry.warp import warp
from tfmetareg.training.losses import local_ncc, registration_loss
from tfmetareg.training.mind import SCALE, mind_descriptors, mind_similarity
from tfmetareg.types import PairBatch


def slow_descriptors(image: np.ndarray, distance: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """MIND-SSC of (height, width), pixel by pixel: the descriptors and the variance before it is clipped."""
    image = image.astype(np.float64)
    around = ((-distance, 0), (0, distance), (distance, 0), (0, -distance))
    descriptors, variances = np.zeros((*image.shape, 4)), np.zeros(image.shape)
    for row, column in np.ndindex(image.shape):
        means = []
        for index in range(4):
            (down, right), (other_down, other_right) = around[index], around[(index + 1) % 4]
            squares = [
                (image[r + down, c + right] - image[r + other_down, c + other_right]) ** 2
                for r in range(row - radius, row + radius + 1)
                for c in range(column - radius, column + radius + 1)
                if all(
                    0 <= y < image.shape[0] and 0 <= x < image.shape[1]
                    for y, x in ((r, c), (r + down, c + right), (r + other_down, c + other_right))
                )
            ]
            means.append(np.mean(squares) if squares else 0.0)
        variances[row, column] = np.mean(means)
        descriptors[row, column] = np.exp(-np.array(means) / max(variances[row, column], FLAT))
    return descriptors, variances


def slow_similarity(fixed: np.ndarray, warped: np.ndarray, distance: int, radius: int) -> float:
    """1 - SCALE * mean squared difference, over the pixels around which one image has structure."""
    (one, variance), (other, other_variance) = (
        slow_descriptors(image, distance, radius) for image in (fixed, warped)
    )
    textured = (variance > FLAT) | (other_variance > FLAT)
    return 1 - SCALE * float(np.mean((one - other)[textured] ** 2)) if textured.any() else 1.0


@pytest.mark.parametrize(("window", "distance", "radius"), [(3, 1, 0), (5, 1, 1), (7, 1, 2), (9, 2, 2)])
def test_mind_equals_explicit_loops_over_pixels(window, distance, radius):
    fixed, warped = images_with_a_flat_part(3)
    for index in range(2):
        descriptors, variance = mind_descriptors(fixed[index : index + 1], window=window)
        expected, expected_variance = slow_descriptors(fixed[index, ..., 0], distance, radius)
        np.testing.assert_allclose(variance[0, ..., 0], expected_variance, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(descriptors[0], expected, atol=1e-4)
    similarities = [
        slow_similarity(one[..., 0], other[..., 0], distance, radius) for one, other in zip(fixed, warped)
    ]
    np.testing.assert_allclose(mind_similarity(fixed, warped, window=window), similarities, atol=1e-4)
    assert max(similarities) < 0.9


@pytest.mark.parametrize("window", [3, 9])
def test_nothing_beyond_the_window_has_a_part(window):
    image = textures(1, 1, 25, 25)
    changed = image.copy()
    half = window // 2
    changed[:, 12 - half : 13 + half, 12 - half : 13 + half] = image[:, ::-1][:, :window, :window]
    outside, inside = (mind_descriptors(each, window=window)[0][0] for each in (image, changed))
    np.testing.assert_array_equal(outside[12 - window, 12], inside[12 - window, 12])
    assert np.abs(outside[12 - half, 12] - inside[12 - half, 12]).max() > 1e-3


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.5, 0.3), (-0.8, 0.9)])
def test_an_affine_change_of_intensities_changes_nothing(gain, offset):
    fixed = textures(5, 2, 32, 32)
    np.testing.assert_allclose(mind_similarity(fixed, gain * fixed + offset), [1, 1], atol=1e-3)


def test_what_rises_and_falls_with_the_grey_level_matters_less_than_a_shift_of_two_pixels():
    # Two tissues of equal brightness in one image and not in the other, as in T2 and T1: NCC falls for it.
    fixed = textures(5, 4, 48, 48, smooth=3.0)
    other_contrast, shifted = np.abs(fixed - 0.5) * 2, np.roll(fixed, 2, axis=2)
    inverted_gamma = 1 - fixed**0.5

    def lost(similarity, image):
        return float(1 - np.mean(similarity(fixed, image)))

    assert lost(mind_similarity, inverted_gamma) < 0.1 * lost(mind_similarity, shifted)
    relative = {
        similarity: lost(similarity, other_contrast) / lost(similarity, shifted)
        for similarity in (mind_similarity, local_ncc)
    }
    assert relative[mind_similarity] < 0.7 * relative[local_ncc]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 40), (17, 31)])
def test_any_size_lies_between_its_bounds(shape):
    rng = np.random.default_rng(0)
    for contrast in (1.0, 0.01, 0.001):
        one, other = np.float32(contrast * rng.random((2, 3, *shape, 1)))
        values = mind_similarity(one, other).numpy()
        assert np.all((values > 1 - SCALE) & (values <= 1))


def test_one_graph_takes_all_sizes():
    signature = [tf.TensorSpec([None, None, None, 1])] * 2
    compiled = tf.function(mind_similarity, input_signature=signature)
    for shape in ((1, 9, 14), (3, 20, 5)):
        fixed, warped = textures(1, *shape), textures(2, *shape)
        np.testing.assert_allclose(compiled(fixed, warped), mind_similarity(fixed, warped), rtol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_constant_image_gives_no_nan(level):
    texture, constant = tf.constant(textures(1, 1, 16, 16)), tf.fill([1, 16, 16, 1], level)
    for one, other in [(texture, constant), (constant, texture), (constant, constant)]:
        with tf.GradientTape() as tape:
            tape.watch([one, other])
            value = mind_similarity(one, other)
        assert np.isfinite(value).all()
        for gradient in tape.gradient(value, [one, other]):
            assert np.isfinite(gradient).all()
    assert mind_similarity(constant, constant).numpy() == [1]
    assert mind_similarity(texture, constant).numpy() < [0.9]


def test_more_padding_says_no_more():
    fixed, warped = textures(1, 1, 64, 64), textures(2, 1, 64, 64)
    little, much = (mind_similarity(padded(fixed, by), padded(warped, by)) for by in (32, 96))
    np.testing.assert_allclose(little, much, atol=1e-5)


def test_a_batch_gives_each_pair_the_value_it_has_alone():
    fixed, warped = images_with_a_flat_part(3)
    alone = [float(mind_similarity(fixed[i : i + 1], warped[i : i + 1])[0]) for i in range(2)]
    np.testing.assert_allclose(mind_similarity(fixed, warped), alone, rtol=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3


def test_a_compiled_gradient_brings_an_inverted_image_into_place():
    # Steepest descent on a shift alone: the minimum of the loss lies where the images fit.
    fixed = textures(5, 1, 48, 48, smooth=3.0)
    moving = 1 - np.roll(fixed, 2, axis=2) ** 0.7
    shift = tf.Variable([0.0, 0.0])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            displacement = tf.broadcast_to(shift, (1, 48, 48, 2))
            value = registration_loss(
                PairBatch(moving, fixed), warp(moving, displacement), displacement, similarity="mind"
            ).total
        shift.assign_sub(tape.gradient(value, shift))

    for _ in range(60):
        step()
    np.testing.assert_allclose(shift, [0, 2], atol=0.3)
