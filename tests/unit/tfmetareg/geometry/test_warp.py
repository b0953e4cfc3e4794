"""The one displacement convention: warped(x) = moving(x + displacement(x)), (row, column), in pixels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg._compat import tfa, vxm
from tfmetareg.geometry.warp import displace_points, warp


def image_and_field(reach: float, seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(seed)
    image = tf.constant(rng.random((2, 9, 12, 1)), tf.float32)
    return image, tf.constant(rng.uniform(-reach, reach, (2, 9, 12, 2)), tf.float32)


def voxelmorph_warp(image: tf.Tensor, field: tf.Tensor) -> tf.Tensor:
    return vxm.layers.SpatialTransformer()([image, field])


def value_and_gradients(function, image, field):
    weights = tf.random.stateless_normal(image.shape, [3, 4])
    with tf.GradientTape() as tape:
        tape.watch([image, field])
        warped = function(image, field)
        total = tf.reduce_sum(warped * weights)
    return [warped, *tape.gradient(total, [image, field])]


@pytest.mark.parametrize("reach", [0.9, 3.0, 40.0])
def test_warp_equals_voxelmorphs_transformer_in_values_and_gradients(reach):
    image, field = image_and_field(reach)
    ours = value_and_gradients(warp, image, field)
    theirs = value_and_gradients(voxelmorph_warp, image, field)
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert np.abs(ours[1]).max() > 0.1 and np.abs(ours[2]).max() > 0.1


def test_tensorflow_addons_with_the_sign_turned_equals_voxelmorphs_transformer():
    image, field = image_and_field(3.0)
    theirs = tfa.image.dense_image_warp(image, -field)
    np.testing.assert_allclose(theirs, voxelmorph_warp(image, field), atol=1e-6)


def test_no_displacement_leaves_the_image():
    image, field = image_and_field(1.0)
    np.testing.assert_allclose(warp(image, tf.zeros_like(field)), image, atol=1e-6)


def test_a_whole_shift_reads_further_down_and_right_and_repeats_the_border():
    moving = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    shift = np.broadcast_to(np.float32([1, 2]), (1, 3, 4, 2))
    by_hand = [[6, 7, 7, 7], [10, 11, 11, 11], [10, 11, 11, 11]]
    np.testing.assert_array_equal(warp(moving, shift)[0, ..., 0], by_hand)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)], ids=str)
def test_an_axis_of_one_pixel_is_its_own_border(shape):
    image = tf.random.stateless_uniform((2, *shape, 3), [0, 1])
    field = 3.0 * tf.random.stateless_normal((2, *shape, 2), [0, 2])
    to_two = [(0, 0), *[(0, int(side == 1)) for side in shape], (0, 0)]
    widened = warp(*[tf.constant(np.pad(array, to_two, "edge")) for array in (image, field)])
    np.testing.assert_allclose(warp(image, field), widened[:, : shape[0], : shape[1]], atol=1e-6)


def test_half_a_pixel_is_the_mean_of_two_neighbours():
    moving = np.array([[0, 4], [10, 20]], np.float32)[None, ..., None]
    half_down = np.broadcast_to(np.float32([0.5, 0]), (1, 2, 2, 2))
    np.testing.assert_array_equal(warp(moving, half_down)[0, ..., 0], [[5, 12], [10, 20]])


def test_points_move_by_the_displacement_read_bilinearly():
    displacement = np.zeros((1, 3, 4, 2), np.float32)
    displacement[0, 1, 2] = [8, -4]
    points = np.array([[[1, 2], [1, 1], [0.5, 2], [1.5, 2.5]]], np.float32)
    by_hand = [[9, -2], [1, 1], [4.5, 0], [3.5, 1.5]]
    np.testing.assert_allclose(displace_points(points, displacement)[0], by_hand)


@pytest.mark.parametrize("point", [(14, 20), (26, 9), (19, 30)])
def test_a_fixed_landmark_and_its_moving_partner_show_the_same_spot(point):
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(48.0), indexing="ij"), -1)
    # A turn and a stretch about the centre and a shift, another one in each direction.
    displacement = (grid - [20, 24]) @ np.array([[0.1, -0.15], [0.2, 0.05]]) + [3.0, -5.0]
    displacement = displacement[None].astype(np.float32)
    partner = displace_points(np.float32([[point]]), displacement).numpy()[0, 0]
    blob = np.exp(-np.sum((grid - partner) ** 2, -1) / 8)[None, ..., None].astype(np.float32)
    warped = warp(blob, displacement).numpy()[0, ..., 0]
    assert np.unravel_index(warped.argmax(), warped.shape) == point
    assert np.abs(partner - point).min() > 0.5
