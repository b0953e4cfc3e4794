"""Optimizers: built with their slots, and reset to their initial state."""

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
    """Builds an optimizer with its slots, so that it can be traced and restored at once.

    It is of Keras' legacy classes: each update is one fused kernel, which takes a fraction of the newer
    classes' time on a network of small layers.

    Args:
        name: "adam" or "sgd".
        learning_rate: step size; the initial one if it is annealed.
        variables: variables that the optimizer will update.
        annealing: "linear" decreases the rate linearly to 0, "none" keeps it constant.
        updates: number of updates until an annealed rate reaches 0.
        momentum: Nesterov momentum, for "sgd" only.

    Raises:
        ValueError: linear annealing without `updates`.
    """
    rate = learning_rate
    if annealing == "linear":
        if updates is None:
            raise ValueError(
                "`annealing` (linear) needs `updates`, the number of updates until the rate is 0."
            )
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
