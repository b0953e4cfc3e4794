"""One gradient step, on images as floats and as they are stored."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfmetareg.geometry.warp import warp
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import gradient_step
from tfmetareg.types import ContrastPairBatch, PairBatch


def test_images_as_stored_train_as_their_floats_do(small_model):
    stored = PairBatch(*np.random.default_rng(0).integers(0, 256, (2, 2, 32, 32, 1), np.uint8))
    floats = PairBatch(*[image.astype(np.float32) / 255 for image in stored])
    losses, trained = [], []
    for pair in (stored, floats):
        model = small_model()
        before = model.get_weights()
        optimizer = build_optimizer("sgd", 1.0, model.trainable_variables)
        losses.append(gradient_step(model, optimizer, registration_loss, pair))
        trained.append([after - start for after, start in zip(model.get_weights(), before)])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert max(np.abs(change).max() for change in trained[0]) > 1e-4
    for one, other in zip(*trained):
        np.testing.assert_allclose(one, other, atol=1e-6)


def random_images(count: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(1).random((count, 2, 32, 32, 1), np.float32))


def test_the_loss_compares_the_copy_in_the_fixed_image_s_contrast(small_model):
    model = small_model()
    pair = ContrastPairBatch(*random_images(3))
    _, displacement = model([pair.moving, pair.fixed])
    seen = []

    def loss_fn(shown, warped, moved):
        seen.append((warped, moved))
        return registration_loss(shown, warped, moved)

    gradient_step(model, build_optimizer("sgd", 1.0, model.trainable_variables), loss_fn, pair)
    (warped, moved), *_ = seen
    np.testing.assert_allclose(moved, displacement, atol=1e-6)  # The network sees moving and fixed.
    np.testing.assert_allclose(warped, warp(pair.moving_like_fixed, displacement), atol=1e-6)


def test_a_copy_that_is_the_moving_image_changes_nothing(small_model):
    moving, fixed = random_images(2)
    trained = []
    for pair in (PairBatch(moving, fixed), ContrastPairBatch(moving, fixed, moving)):
        model = small_model()
        gradient_step(model, build_optimizer("sgd", 1.0, model.trainable_variables), registration_loss, pair)
        trained.append(model.get_weights())
    for one, other in zip(*trained):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_another_copy_trains_otherwise(small_model):
    moving, fixed, other = random_images(3)
    trained = []
    for copy in (moving, other):
        model = small_model()
        optimizer = build_optimizer("sgd", 1.0, model.trainable_variables)
        gradient_step(model, optimizer, registration_loss, ContrastPairBatch(moving, fixed, copy))
        trained.append(model.get_weights())
    assert max(np.abs(one - two).max() for one, two in zip(*trained)) > 1e-4
