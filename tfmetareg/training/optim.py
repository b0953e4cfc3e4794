"""Optimizers: built ready for use, and put back to their first state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import tensorflow as tf


def build_optimizer(
    name: str,
    learning_rate: float,
    variables: Sequence[tf.Variable],
    *,
    annealing: str = "none",
    updates: Optional[int] = None,
    momentum: float = 0.0,
) -> tf.keras.optimizers.legacy.Optimizer:
    """An optimizer with its slots made, so that it can be traced and restored at once.

    Keras's legacy classes: each update is one fused kernel, which on a network
    of small layers takes a fraction of the newer classes' time.

    Args:
        name: "adam" or "sgd".
        learning_rate: step size; the first one where it is annealed.
        variables: what it will update.
        annealing: "linear" takes the rate linearly to 0, "none" leaves it.
        updates: number of updates over which it is annealed.
        momentum: Nesterov's, of "sgd" alone.
    """
    rate = learning_rate
    if annealing == "linear":
        rate = tf.keras.optimizers.schedules.PolynomialDecay(learning_rate, max(updates, 1), 0.0)
    classes = {"adam": tf.keras.optimizers.legacy.Adam, "sgd": tf.keras.optimizers.legacy.SGD}
    settings = {"momentum": momentum, "nesterov": True} if momentum else {}
    optimizer = classes[name](learning_rate=rate, **settings)
    optimizer._create_all_weights(variables)  # The legacy class has no public `build`.
    return optimizer


def reset_optimizer(optimizer: tf.keras.optimizers.legacy.Optimizer) -> None:
    """Zeroes the slots and the step count; works inside a graph."""
    for variable in optimizer.variables():
        variable.assign(tf.zeros_like(variable))
