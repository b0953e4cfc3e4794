"""Eq. (1) against slow references, and where its local NCC parts from voxelmorph's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tfmetareg._compat import vxm
from tfmetareg.geometry.warp import warp
from tfmetareg.training.losses import local_ncc, registration_loss, smoothness, voxelmorph_ncc
from tfmetareg.training.mind import mind_similarity
from tfmetareg.types import PairBatch

FLAT = (0.5 / 255) ** 2


def textures(seed: int, *shape: int, smooth: float = 1.5) -> np.ndarray:
    """Smooth images that span [0, 1], float32 (batch, height, width, 1)."""
    noise = np.random.default_rng(seed).normal(size=shape)
    images = np.stack([ndimage.gaussian_filter(image, smooth) for image in noise])
    images -= images.min(axis=(1, 2), keepdims=True)
    return (images / images.max(axis=(1, 2), keepdims=True))[..., None].astype(np.float32)


def images_with_a_flat_part(seed: int, faint: float = 0.002) -> tuple[np.ndarray, np.ndarray]:
    """A part holds a correlated texture of `faint` contrast, below a grey level; another is constant."""
    fixed, warped = textures(seed, 2, 14, 11), textures(seed + 1, 2, 14, 11)
    fixed[:, :8, :7] = 0.25 + faint * warped[:, :8, :7]
    warped[1, 5:] = 0.5
    return fixed, warped


def slow_local_ncc(fixed: np.ndarray, warped: np.ndarray, window: int) -> float:
    """Squared correlation of the pixels that each window really holds, windows with texture only."""
    values, half = [], window // 2
    for row, column in np.ndindex(fixed.shape):
        part = np.s_[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
        one, other = fixed[part].astype(np.float64), warped[part].astype(np.float64)
        if one.var() > FLAT and other.var() > FLAT:
            values.append(np.corrcoef(one.ravel(), other.ravel())[0, 1] ** 2)
    return float(np.mean(values)) if values else 0.0


@pytest.mark.parametrize("window", [3, 5, 9])
def test_local_ncc_equals_explicit_loops_over_true_windows(window):
    fixed, warped = images_with_a_flat_part(3)
    expected = [slow_local_ncc(one[..., 0], other[..., 0], window) for one, other in zip(fixed, warped)]
    np.testing.assert_allclose(local_ncc(fixed, warped, window=window), expected, rtol=2e-4)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.5, 0.3), (-0.8, 0.9)])
def test_local_ncc_is_one_for_an_affine_change_of_intensities(gain, offset):
    fixed = textures(5, 2, 32, 32)
    np.testing.assert_allclose(local_ncc(fixed, gain * fixed + offset), [1, 1], atol=2e-3)


@settings(max_examples=40, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**31),
    window=st.sampled_from([3, 9]),
    contrast=st.sampled_from([1.0, 0.02, 0.004, 0.0]),
    offset=st.floats(0, 1, width=32),
    related=st.booleans(),
)
def test_local_ncc_stays_within_zero_and_one(seed, window, contrast, offset, related):
    rng = np.random.default_rng(seed)
    fixed = rng.random((1, 12, 12, 1), np.float32)
    warped = fixed if related else rng.random((1, 12, 12, 1), np.float32)
    value = float(local_ncc(fixed, np.clip(offset + contrast * warped, 0, 1), window=window)[0])
    assert 0.0 <= value <= 1.0


def padded(images: np.ndarray, by: int) -> np.ndarray:
    return np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)))


def on_black(images: np.ndarray) -> np.ndarray:
    """The images within a disk, as a scan shows a body."""
    side = images.shape[1]
    radius = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))
    return images * np.clip((side / 2 - 4 - radius) / 3, 0, 1).astype(np.float32)[None, ..., None]


def test_padding_black_surroundings_lifts_voxelmorphs_ncc_and_leaves_ours():
    fixed, warped = (on_black(textures(seed, 1, 64, 64)) for seed in (1, 2))

    def change(ncc):
        return float(ncc(padded(fixed, 32), padded(warped, 32))[0] - ncc(fixed, warped)[0])

    assert change(voxelmorph_ncc) > 0.3
    assert abs(change(local_ncc)) < 0.005


def test_more_padding_says_no_more_to_our_ncc():
    fixed, warped = (textures(seed, 1, 64, 64) for seed in (1, 2))

    def change(ncc):
        return float(
            ncc(padded(fixed, 96), padded(warped, 96))[0] - ncc(padded(fixed, 32), padded(warped, 32))[0]
        )

    assert change(voxelmorph_ncc) > 0.1
    assert abs(change(local_ncc)) < 1e-5


@pytest.mark.parametrize("ncc", [local_ncc, voxelmorph_ncc])
def test_a_batch_gives_each_pair_the_value_it_has_alone(ncc):
    fixed, warped = images_with_a_flat_part(3)
    alone = [float(ncc(fixed[index : index + 1], warped[index : index + 1])[0]) for index in range(2)]
    np.testing.assert_allclose(ncc(fixed, warped), alone, rtol=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_local_ncc_of_a_constant_image_is_zero_with_zero_gradient(level):
    fixed, warped = tf.constant(textures(1, 1, 16, 16)), tf.fill([1, 16, 16, 1], level)
    for one, other in [(fixed, warped), (warped, fixed), (warped, warped)]:
        with tf.GradientTape() as tape:
            tape.watch([one, other])
            value = local_ncc(one, other)
        assert value.numpy() == [0]
        for gradient in tape.gradient(value, [one, other]):
            np.testing.assert_array_equal(gradient, np.zeros((1, 16, 16, 1)))


@pytest.mark.parametrize("window", [3, 7, 9, 11])
def test_voxelmorph_ncc_equals_voxelmorphs(window):
    fixed, warped = images_with_a_flat_part(7, faint=0.0)
    expected = -vxm.losses.NCC(win=window).loss(tf.constant(fixed), tf.constant(warped))
    np.testing.assert_allclose(voxelmorph_ncc(fixed, warped, window=window), expected, rtol=1e-5)


def test_smoothness_equals_voxelmorphs_gradient_loss():
    displacement = tf.random.stateless_normal((3, 10, 13, 2), [1, 2])
    expected = tf.reduce_mean(vxm.losses.Grad("l2").loss(None, displacement))
    np.testing.assert_allclose(smoothness(displacement), expected, rtol=1e-6)


def test_smoothness_by_hand():
    displacement = np.zeros((1, 2, 2, 2), np.float32)
    displacement[0, :, :, 0] = [[0, 3], [1, 0]]
    # Down: 1 and -3 in 4 differences; across: 3 and -1 in 4 differences. The column component is zero.
    assert float(smoothness(displacement)) == pytest.approx((10 / 4 + 10 / 4) / 2)
    displacement[0, :, :, 0] = [[0, 0], [2, 2]]
    assert float(smoothness(displacement)) == pytest.approx((8 / 4 + 0) / 2)


@pytest.mark.parametrize(
    ("similarity", "ncc"), [("ncc", local_ncc), ("voxelmorph", voxelmorph_ncc), ("mind", mind_similarity)]
)
def test_the_loss_is_negated_similarity_plus_weighted_smoothness(similarity, ncc):
    fixed, warped = images_with_a_flat_part(3)
    displacement = tf.random.stateless_normal((2, 14, 11, 2), [1, 2])
    terms = registration_loss(
        PairBatch(None, fixed),
        warped,
        displacement,
        window=5,
        smoothness_weight=0.25,
        similarity=similarity,
    )
    assert float(terms.similarity) == pytest.approx(-float(np.mean(ncc(fixed, warped, window=5))))
    assert float(terms.smoothness) == pytest.approx(float(smoothness(displacement)))
    assert float(terms.total) == pytest.approx(float(terms.similarity) + 0.25 * float(terms.smoothness))


def test_the_defaults_are_the_papers_window_and_weight():
    fixed, warped = images_with_a_flat_part(3)
    displacement = tf.random.stateless_normal((2, 14, 11, 2), [1, 2])
    pair = PairBatch(None, fixed)
    written_out = registration_loss(pair, warped, displacement, window=9, smoothness_weight=1.0)
    assert registration_loss(pair, warped, displacement).total == written_out.total


@pytest.mark.parametrize("similarity", ["ncc", "voxelmorph", "mind"])
def test_the_gradient_agrees_with_finite_differences(similarity):
    moving, fixed = textures(1, 1, 20, 20, smooth=2), textures(2, 1, 20, 20, smooth=2)
    pair = PairBatch(moving, fixed)
    rng = np.random.default_rng(0)
    # Sampling points half-way between pixels, so that no step crosses a kink of the interpolation.
    start = tf.constant(0.5 + 0.1 * rng.normal(size=(1, 20, 20, 2)), tf.float32)

    def loss(displacement):
        return registration_loss(pair, warp(moving, displacement), displacement, similarity=similarity).total

    with tf.GradientTape() as tape:
        tape.watch(start)
        value = loss(start)
    gradient = tape.gradient(value, start)
    direction = (
        gradient / tf.norm(gradient) + 0.1 * tf.constant(rng.normal(size=start.shape), tf.float32) / 28
    )
    slope = float(loss(start + 0.05 * direction) - loss(start - 0.05 * direction)) / 0.1
    assert slope == pytest.approx(float(tf.reduce_sum(gradient * direction)), rel=0.01)
