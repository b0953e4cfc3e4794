"""One gradient step, on images as floats and as they are stored."""

from __future__ import annotations

import numpy as np

from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import gradient_step
from tfmetareg.types import PairBatch


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
