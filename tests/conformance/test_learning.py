"""What a registration network has to learn, whatever it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import SIZE, texture
from tfmetareg.evaluation.metrics import landmark_distance
from tfmetareg.models.registry import build_model
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import gradient_step, register_pair
from tfmetareg.types import PairBatch

SHIFT = (1, -2)
INNER = slice(4, SIZE - 4)


def images(seed: int, count: int) -> np.ndarray:
    """Smooth textures in [0, 1], (count, SIZE, SIZE, 1) float32; each is a torus."""
    rng = np.random.default_rng(seed)
    batch = np.stack([texture(rng, 2.0) for _ in range(count)])[..., None]
    low, high = batch.min(axis=(1, 2), keepdims=True), batch.max(axis=(1, 2), keepdims=True)
    return ((batch - low) / (high - low)).astype(np.float32)


def pairs(seed: int, count: int, shift: tuple[int, int]) -> PairBatch:
    """moving(p + shift) = fixed(p)."""
    fixed = images(seed, count)
    return PairBatch(tf.constant(np.roll(fixed, shift, axis=(1, 2))), tf.constant(fixed))


@pytest.fixture(scope="module", params=["vxm_dense"])
def trained(request):
    """A network trained for some hundred steps on pairs of which half are shifted and half are not."""
    model = build_model(request.param, (SIZE, SIZE), features=[[8, 8], [8, 8, 8]])
    optimizer = build_optimizer("adam", 5e-3, model.trainable_variables, annealing="linear", updates=400)
    step = tf.function(lambda pair: gradient_step(model, optimizer, registration_loss, pair))
    still, shifted = pairs(0, 64, (0, 0)), pairs(0, 64, SHIFT)
    for start in range(400):
        chosen = [(2 * start + index) % 64 for index in range(2)]
        step(PairBatch(*[tf.concat([tf.gather(p, chosen) for p in both], 0) for both in zip(still, shifted)]))
    return model


def test_an_identical_pair_stays_where_it_is(trained):
    _, displacement = register_pair(trained, pairs(1, 4, (0, 0)))
    length = np.linalg.norm(displacement.numpy()[:, INNER, INNER], axis=-1)
    assert length.mean() < 0.1
    assert length.max() < 0.5


def test_a_known_shift_is_recovered_on_images_not_seen_before(trained):
    unseen = pairs(1, 8, SHIFT)
    warped, displacement = register_pair(trained, unseen)
    assert np.abs(displacement.numpy()[:, INNER, INNER] - SHIFT).mean() < 0.15
    error = np.abs(warped - unseen.fixed)[:, INNER, INNER].mean()
    assert error < 0.2 * np.abs(unseen.moving - unseen.fixed)[:, INNER, INNER].mean()


def test_the_landmarks_follow_the_same_field_as_the_image(trained):
    points = np.array([[8, 9], [20, 12], [15, 22]], np.float32)
    _, displacement = register_pair(trained, pairs(1, 1, SHIFT))
    before = landmark_distance(tf.zeros_like(displacement[0]), points, points + np.float32(SHIFT))
    after = landmark_distance(displacement[0], points, points + np.float32(SHIFT))
    assert float(before) == pytest.approx(np.sqrt(5))
    assert after < 0.4
