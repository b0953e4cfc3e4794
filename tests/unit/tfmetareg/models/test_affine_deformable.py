"""The affine stage, and how the deformable one follows it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import texture
from tfmetareg.geometry.warp import warp
from tfmetareg.models.affine_deformable import _SCALE, _moments
from tfmetareg.models.fields import affine
from tfmetareg.models.registry import build_model
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.types import PairBatch

STILL = tf.zeros((1, 32, 32, 2))


def build() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    return build_model("affine_deformable", (32, 32), features=[[4, 4], [4, 4, 4]], affine_features=[8, 8])


@pytest.fixture(scope="module")
def image():
    smooth = texture(np.random.default_rng(0), 2.5)
    return tf.constant(((smooth - smooth.min()) / np.ptp(smooth))[None, :, :, None], tf.float32)


def test_the_affine_stage_comes_first_and_the_deformable_one_sees_its_image(image):
    model = build()
    parameters = np.array([[0.1, -0.05, 0.1], [0.03, 0.2, -0.2]], np.float32)
    dense = model.network.get_layer("affine_dense")
    dense.set_weights([np.zeros(dense.kernel.shape), parameters.ravel() / _SCALE])
    flow = model.network.get_layer("deformable_flow")
    flow.kernel.assign_add(tf.random.stateless_normal(flow.kernel.shape, [1, 2]))
    fixed = tf.reverse(image, [1])
    aligned = warp(image, affine(parameters[None], STILL))
    dense.bias.assign(tf.zeros(6))
    _, deformation = model([aligned, fixed])
    dense.bias.assign(parameters.ravel() / _SCALE)
    warped, displacement = model([image, fixed])
    np.testing.assert_allclose(displacement, affine(parameters[None], deformation), atol=1e-4)
    np.testing.assert_allclose(warped, warp(image, displacement), atol=1e-5)
    assert np.abs(deformation).max() > 0.1


def test_moments_tell_where_in_the_image_a_feature_is():
    features = np.zeros((1, 4, 8, 2), np.float32)
    features[0, 0, :, 0] = 1.0  # The first row, 1.5 pixels above the centre.
    features[0, 3, 7, 1] = 2.0  # The last corner.
    expected = [[1 / 4, 2 / 32], [-1.5 / 4 / 4, 2 / 32 * 1.5 / 4], [0.0, 2 / 32 * 3.5 / 4]]
    np.testing.assert_allclose(_moments(tf.constant(features)), [np.ravel(expected)], atol=1e-6)


def test_the_affine_stage_alone_learns_a_rotation_with_a_shift(image):
    angle = 0.15
    rotation = [[np.cos(angle) - 1.0, -np.sin(angle), 0.1], [np.sin(angle), np.cos(angle) - 1.0, -0.05]]
    truth = affine(tf.constant([rotation], tf.float32), STILL)
    pair = PairBatch(image, warp(image, truth))
    model = build()
    variables = [weight for weight in model.trainable_variables if weight.name.startswith("affine_")]
    assert len(variables) == 6
    optimizer = build_optimizer("adam", 1e-2, variables, annealing="linear", updates=150)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            warped, displacement = model([pair.moving, pair.fixed])
            total = registration_loss(pair, warped, displacement, smoothness_weight=0.0).total
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables))

    for _ in range(150):
        step()
    _, displacement = model([pair.moving, pair.fixed])
    error = np.linalg.norm(displacement - truth, axis=-1)[:, 4:-4, 4:-4]
    assert np.linalg.norm(truth, axis=-1)[:, 4:-4, 4:-4].mean() > 1.5
    assert error.mean() < 0.3
