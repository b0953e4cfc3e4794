"""Algebra on lists of weights, for Eq. (2)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def copy(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """Copies of the current values; later assignments to the variables do not change them."""
    return [tf.identity(variable) for variable in variables]


def assign(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> None:
    """variables <- values."""
    for variable, value in zip(variables, values):
        variable.assign(value)


def zeros_like(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Zeros in the shape of each weight."""
    return [tf.zeros_like(value) for value in values]


def add_difference(
    total: Sequence[tf.Tensor], values: Sequence[tf.Tensor], origin: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """total + (values - origin)."""
    return [one + (value - start) for one, value, start in zip(total, values, origin)]


def scale(values: Sequence[tf.Tensor], factor: float) -> list[tf.Tensor]:
    """factor * values."""
    return [value * factor for value in values]
