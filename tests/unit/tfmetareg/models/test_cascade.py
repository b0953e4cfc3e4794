"""How a cascade puts its networks together."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.geometry.warp import warp
from tfmetareg.models.fields import compose
from tfmetareg.models.registry import build_model

FEATURES = [[4, 4], [4, 4, 4]]
PAIR = [tf.random.stateless_uniform((2, 32, 32, 1), [seed, 0]) for seed in range(2)]


def cascade(cascades: int) -> tf.keras.Model:
    model = build_model("cascade", (32, 32), features=FEATURES, cascades=cascades)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [3, index], stddev=0.1))
    return model


@pytest.fixture(scope="module")
def parts():
    """A cascade of two, and each of them alone."""
    both = cascade(2)
    weights = both.network.get_weights()
    alone = [cascade(1), cascade(1)]
    for model, half in zip(alone, (weights[: len(weights) // 2], weights[len(weights) // 2 :])):
        model.network.set_weights(half)
    return both, alone


def test_each_network_sees_what_those_before_it_have_warped_and_the_fields_are_composed(parts):
    both, (first, second) = parts
    warped, displacement = first(PAIR)
    _, step = second([warped, PAIR[1]])
    expected = compose(displacement, step)
    found = both(PAIR)
    np.testing.assert_allclose(found[1], expected, atol=1e-5)
    np.testing.assert_allclose(found[0], warp(PAIR[0], expected), atol=1e-5)
    assert np.abs(step).max() > 0.1 and np.abs(displacement).max() > 0.1


def test_shifts_add_up():
    model = cascade(3)
    for number, shift in enumerate([(1.0, 2.0), (-0.5, 1.0), (0.25, -4.0)], start=1):
        flow = model.network.get_layer(f"cascade_{number}_flow")
        flow.set_weights([np.zeros(flow.kernel.shape), np.array(shift)])
    _, displacement = model(PAIR)
    np.testing.assert_allclose(displacement, np.broadcast_to([0.75, -1.0], displacement.shape), atol=1e-5)
