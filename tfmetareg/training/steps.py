"""What is done with one pair, or k of them: a gradient step, an adaptation, a registration."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfmetareg.data.records import as_floats
from tfmetareg.types import LossTerms, PairBatch

LossFn = Callable[[PairBatch, tf.Tensor, tf.Tensor], LossTerms]


def gradient_step(
    model: tf.keras.Model, optimizer: tf.keras.optimizers.legacy.Optimizer, loss_fn: LossFn, pair: PairBatch
) -> LossTerms:
    """One update of the model on one batch; pretraining, the inner loop and fine-tuning share it.

    Args:
        model: `warped, displacement = model([moving, fixed])`.
        optimizer: built for the model's trainable variables.
        loss_fn: (pair, warped, displacement) -> LossTerms.
        pair: (batch, height, width, 1) each, float32 in [0, 1] or uint8.

    Returns:
        The loss before the update.
    """
    pair = as_floats(pair)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        warped, displacement = model([pair.moving, pair.fixed], training=True)
        terms = loss_fn(pair, warped, displacement)
    optimizer.apply_gradients(zip(tape.gradient(terms.total, variables), variables))
    return terms


def adapt(
    model: tf.keras.Model, optimizer: tf.keras.optimizers.legacy.Optimizer, loss_fn: LossFn, pairs: PairBatch
) -> LossTerms:
    """k gradient steps, one after the other, as one graph loop.

    Args:
        model, optimizer, loss_fn: as for `gradient_step`.
        pairs: (k, batch, height, width, 1) each, float32 in [0, 1] or uint8.

    Returns:
        Mean of the k losses, each before its update.
    """
    steps = tf.shape(pairs.moving)[0]
    total = LossTerms(*tf.unstack(tf.zeros(3)))
    for index in tf.range(steps):
        terms = gradient_step(model, optimizer, loss_fn, PairBatch(pairs.moving[index], pairs.fixed[index]))
        total = LossTerms(*[one + other for one, other in zip(total, terms)])
    return LossTerms(*[value / tf.cast(steps, tf.float32) for value in total])


def register_pair(model: tf.keras.Model, pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """warped (batch, height, width, 1) and displacement (batch, height, width, 2) of a batch of pairs."""
    return model([pair.moving, pair.fixed], training=False)
