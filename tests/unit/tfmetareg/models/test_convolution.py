"""The lean convolutions against TensorFlow's plain ones, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.models import convolution
from tfmetareg.models.convolution import conv2d, conv2d_upsampled, leaky_relu

SHAPES = [(1, 6, 8), (3, 5, 7), (2, 1, 1)]


def plain_conv2d(images, kernel):
    return tf.nn.conv2d(images, kernel, 1, "SAME")


def plain_conv2d_upsampled(images, kernel):
    return plain_conv2d(tf.keras.layers.UpSampling2D(interpolation="nearest")(images), kernel)


def random(shape, seed):
    return tf.random.stateless_normal(shape, [seed, 0])


def value_and_gradients(function, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
        total = tf.reduce_sum(value * random(tf.shape(value), 9))
    return [value, *tape.gradient(total, arguments)]


@pytest.fixture(params=["library's kernel gradient", "matrix products"])
def either_gradient(request, monkeypatch):
    monkeypatch.setattr(convolution, "slow_kernel_gradient", lambda: request.param == "matrix products")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [(2, 16), (3, 5)], ids=str)
@pytest.mark.parametrize(
    ("lean", "plain"), [(conv2d, plain_conv2d), (conv2d_upsampled, plain_conv2d_upsampled)]
)
def test_values_and_gradients_are_those_of_the_plain_convolution(
    either_gradient, lean, plain, shape, channels
):
    images, kernel = random((*shape, channels[0]), 1), random((3, 3, *channels), 2)
    for one, other in zip(
        value_and_gradients(lean, images, kernel), value_and_gradients(plain, images, kernel)
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("size", [1, 5, 7])
def test_kernels_of_other_sizes_are_those_of_the_plain_convolution(either_gradient, size):
    images, kernel = random((2, 9, 8, 3), 1), random((size, size, 3, 4), 2)
    for one, other in zip(
        value_and_gradients(conv2d, images, kernel), value_and_gradients(plain_conv2d, images, kernel)
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("lean", [conv2d, conv2d_upsampled])
def test_a_graph_that_does_not_know_the_size_gives_the_same(either_gradient, lean):
    images, kernel = random((2, 6, 9, 3), 1), random((3, 3, 3, 4), 2)
    anywhere = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec(kernel.shape)]
    compiled = tf.function(lambda *given: value_and_gradients(lean, *given), input_signature=anywhere)
    for one, other in zip(compiled(images, kernel), value_and_gradients(lean, images, kernel)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


def test_leaky_relu_and_its_gradient_are_the_librarys():
    features = random((2, 3, 4, 5), 3)
    expected = value_and_gradients(lambda x: tf.nn.leaky_relu(x, 0.2), features)
    for one, other in zip(value_and_gradients(leaky_relu, features), expected):
        np.testing.assert_allclose(one, other, rtol=1e-6)
