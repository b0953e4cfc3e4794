"""Optimizers: ready when made, first-born again after a reset, and slower to a stop."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.training.optim import build_optimizer, reset_optimizer


def new_variables() -> list[tf.Variable]:
    return [tf.Variable([1.0, -2.0]), tf.Variable([[3.0]])]


def step(optimizer, variables, scale: float) -> list[np.ndarray]:
    """One update with a gradient of that scale; returns how far it went."""
    before = [variable.numpy() for variable in variables]
    optimizer.apply_gradients([(scale * tf.ones_like(variable), variable) for variable in variables])
    return [variable.numpy() - start for variable, start in zip(variables, before)]


@pytest.mark.parametrize(("name", "slots"), [("adam", 2), ("sgd", 0)])
def test_the_slots_are_there_before_any_step_and_no_step_was_made(name, slots):
    variables = new_variables()
    optimizer = build_optimizer(name, 0.1, variables)
    made = len(optimizer.variables())
    assert made == 1 + slots * len(variables)
    assert int(optimizer.iterations) == 0
    np.testing.assert_array_equal(variables[0], [1, -2])
    step(optimizer, variables, 1.0)
    assert len(optimizer.variables()) == made


def test_the_learning_rate_arrives():
    for name in ("adam", "sgd"):
        variables = new_variables()
        moved = step(build_optimizer(name, 0.25, variables), variables, 1.0)
        np.testing.assert_allclose(moved[0], [-0.25, -0.25], rtol=1e-5)


def test_after_a_reset_the_next_adam_step_is_a_first_step():
    variables = new_variables()
    used = build_optimizer("adam", 0.1, variables)
    first = step(used, variables, 0.3)
    for scale in (5.0, -20.0, 1.0):
        step(used, variables, scale)
    assert np.abs(step(used, variables, 0.3)[0] - first[0]).max() > 0.02
    tf.function(reset_optimizer)(used)
    assert not any(np.any(variable.numpy()) for variable in used.variables())
    np.testing.assert_allclose(step(used, variables, 0.3)[0], first[0], atol=1e-6)
    assert int(used.iterations) == 1


def test_momentum_goes_on_in_nesterov_s_way():
    variables = new_variables()
    optimizer = build_optimizer("sgd", 1.0, variables, momentum=0.5)
    moved = [step(optimizer, variables, scale)[0][0] for scale in (1.0, 0.0, 0.0)]
    np.testing.assert_allclose(moved, [-1.5, -0.25, -0.125], atol=1e-6)


def test_an_optimizer_without_such_a_momentum_refuses_one():
    with pytest.raises((TypeError, ValueError)):
        build_optimizer("adam", 1.0, new_variables(), momentum=0.5)


def test_linear_annealing_reaches_zero_after_its_steps_and_stays():
    variables = new_variables()
    optimizer = build_optimizer("sgd", 1.0, variables, annealing="linear", updates=4)
    moved = [step(optimizer, variables, 1.0)[0][0] for _ in range(6)]
    np.testing.assert_allclose(moved, [-1, -0.75, -0.5, -0.25, 0, 0], atol=1e-6)
