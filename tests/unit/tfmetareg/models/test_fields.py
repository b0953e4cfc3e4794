"""Fields composed, integrated, resized, affine: against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.geometry.warp import warp
from tfmetareg.models.fields import affine, centred_grid, compose, integrate, resize

INNER = np.s_[:, 8:-8, 8:-8]


def constant(row: float, column: float, size: int = 32) -> tf.Tensor:
    return tf.ones((1, size, size, 1)) * tf.constant([row, column], tf.float32)


def waves(size: int = 32) -> tf.Tensor:
    """A smooth field of some pixels."""
    rows, columns = np.mgrid[:size, :size] / size * 2 * np.pi
    return tf.constant(np.stack([2 * np.sin(columns), 1.5 * np.cos(rows)], -1)[None], tf.float32)


def test_shifts_add_up_when_composed():
    np.testing.assert_allclose(compose(constant(1, -2), constant(0.5, 3)), constant(1.5, 1), atol=1e-6)


def test_a_composed_field_warps_as_its_parts_do_one_after_the_other():
    rows, columns = np.mgrid[:32, :32] / 32.0
    image = tf.constant(np.sin(5 * rows + 3 * columns)[None, :, :, None], tf.float32)
    first, second = waves(), constant(1.3, -0.6)
    at_once, in_turn = warp(image, compose(first, second)), warp(warp(image, first), second)
    np.testing.assert_allclose(at_once.numpy()[INNER], in_turn.numpy()[INNER], atol=0.01)
    other_order = warp(image, compose(second, first))
    assert np.abs(other_order - in_turn)[INNER].max() > 0.03


def test_a_constant_velocity_shifts():
    np.testing.assert_allclose(integrate(constant(2, -1), 5), constant(2, -1), atol=1e-5)


def test_a_linear_velocity_grows_exponentially():
    """dx/dt = a x from x0 leads to x0 exp(a)."""
    centre, rate = 15.5, 0.2
    from_centre = tf.range(32.0) - centre
    grid = tf.stack(tf.meshgrid(from_centre, from_centre, indexing="ij"), -1)[None]
    found = integrate(rate * grid, 7).numpy()[INNER]
    np.testing.assert_allclose(found, (np.exp(rate) - 1.0) * grid.numpy()[INNER], atol=5e-3)


def test_the_negative_velocity_gives_the_inverse():
    there_and_back = compose(integrate(waves(), 7), integrate(-waves(), 7))
    assert np.abs(there_and_back.numpy()[INNER]).max() < 0.03


@pytest.mark.parametrize("before, after", [(1, 2), (2, 1), (2, 2), (4, 2)])
def test_a_resized_field_means_the_same_on_its_own_grid(before, after):
    """A field that is linear in the position stays so; corners stay on corners."""
    size = 32 // before
    ramp = np.linspace(0.0, 3.0, size)
    field = tf.constant(np.stack(np.meshgrid(ramp, ramp, indexing="ij"), -1)[None], tf.float32)
    other = np.linspace(0.0, 3.0, 32 // after) * before / after
    expected = np.stack(np.meshgrid(other, other, indexing="ij"), -1)[None]
    np.testing.assert_allclose(resize(field, before, after), expected, atol=1e-5)


def test_zeros_are_the_identity_of_affine_maps():
    np.testing.assert_allclose(affine(tf.zeros((1, 2, 3)), waves()), waves(), atol=1e-6)


def test_an_affine_map_rotates_about_the_centre_and_shifts_in_halves_of_the_longer_side():
    angle, still = 0.1, tf.zeros((1, 20, 40, 2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    parameters = np.concatenate([rotation - np.eye(2), [[0.05], [-0.1]]], 1)[None]
    found = affine(tf.constant(parameters, tf.float32), still).numpy()[0]
    for point in [(0, 0), (9, 20), (19, 3)]:
        from_centre = np.array(point) - [9.5, 19.5]
        expected = rotation @ from_centre - from_centre + [1.0, -2.0]
        np.testing.assert_allclose(found[point], expected, atol=1e-5)


def test_an_affine_map_comes_before_the_displacement():
    parameters = tf.constant([[[0.1, -0.05, 0.02], [0.03, 0.2, -0.1]]])
    expected = compose(affine(parameters, tf.zeros((1, 32, 32, 2))), constant(1, 2))
    np.testing.assert_allclose(
        affine(parameters, constant(1, 2)).numpy()[INNER], expected.numpy()[INNER], atol=1e-5
    )


def test_the_grid_runs_from_minus_one_to_one_along_the_longer_side():
    unit, grid = centred_grid(tf.zeros((1, 4, 8, 1)))
    assert unit == 4.0 and grid.shape == (4, 8, 2)
    np.testing.assert_allclose(grid[0, :, 1], np.arange(-3.5, 4) / 4)
    np.testing.assert_allclose(grid[:, 0, 0], np.arange(-1.5, 2) / 4)
