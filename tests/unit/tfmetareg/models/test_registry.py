"""The registry, and what every registered network does with images of any size."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel, build_model, register_model
from tfmetareg.spatial import warp


def random_images(height: int, width: int, batch: int = 1) -> list[tf.Tensor]:
    rng = np.random.default_rng(height * width)
    return [tf.constant(rng.random((batch, height, width, 1)), tf.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def deep_model():
    """Four levels, as the default network has: its stride is 16."""
    tf.keras.utils.set_random_seed(0)
    model = build_model("vxm_dense", (32, 32), features=[[2, 2, 2, 4], [4, 2, 2, 2, 2]])
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.1))
    return model


@pytest.mark.parametrize("size", [(200, 200), (100, 90), (32, 48), (7, 5)], ids=str)
def test_any_size_is_padded_below_and_right_and_cropped_back(deep_model, size):
    height, width = size
    moving, fixed = random_images(height, width)
    warped, displacement = deep_model([moving, fixed])
    assert displacement.shape == (1, height, width, 2) and warped.shape == (1, height, width, 1)
    below, right = -height % 16, -width % 16
    widened = [np.pad(image, ((0, 0), (0, below), (0, right), (0, 0))) for image in (moving, fixed)]
    expected = deep_model.field(widened)[:, :height, :width]
    np.testing.assert_allclose(displacement, expected, atol=1e-5)
    np.testing.assert_allclose(warped, warp(moving, displacement), atol=1e-5)
    assert np.abs(displacement).max() > 0.01


@pytest.mark.parametrize("size", [(100, 90), (32, 48)], ids=str)
def test_a_graph_that_does_not_know_the_size_gives_the_same(deep_model, size):
    images = random_images(*size, batch=2)
    anywhere = tf.TensorSpec((None, None, None, 1), tf.float32)
    compiled = tf.function(lambda *pair: deep_model(pair), input_signature=[anywhere, anywhere])
    for one, other in zip(compiled(*images), deep_model(images)):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_pair_registers_in_a_batch_as_it_does_alone(deep_model):
    moving, fixed = random_images(32, 32, batch=3)
    alone = deep_model([moving[1:2], fixed[1:2]])
    for one, other in zip(deep_model([moving, fixed]), alone):
        np.testing.assert_allclose(one[1:2], other, atol=1e-5)


def test_the_two_images_are_not_interchangeable(deep_model):
    moving, fixed = random_images(32, 32)
    difference = deep_model([moving, fixed])[1] - deep_model([fixed, moving])[1]
    assert np.abs(difference).max() > 0.01


def test_a_registered_name_builds_with_its_own_options_and_is_not_given_twice(monkeypatch):
    monkeypatch.setattr("tfmetareg.models.registry._BUILDERS", {})
    calls = []

    @register_model("still")
    def still(image_shape, *, features):
        calls.append((image_shape, features))
        return RegistrationModel(tf.keras.Sequential(name="still"), None, 1)

    assert build_model("still", (8, 9), features=[[1], [1]]).name == "still"
    assert calls == [((8, 9), [[1], [1]])]
    with pytest.raises(ValueError, match="`still` is registered already"):
        register_model("still")(still)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UserError) as caught:
        build_model("vxm_dens", (32, 32), features=[[4], [4]])
    assert str(caught.value) == "`model.name` must be one of vxm_dense; got vxm_dens."
