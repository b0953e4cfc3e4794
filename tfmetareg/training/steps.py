"""Steps on a batch of pairs: a gradient step, an adaptation by k of them, a registration."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfmetareg.data.records import as_floats
from tfmetareg.geometry.warp import warp
from tfmetareg.types import AnyPairBatch, ContrastPairBatch, LossTerms, PairBatch

LossFn = Callable[[PairBatch, tf.Tensor, tf.Tensor], LossTerms]


def gradient_step(
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.legacy.Optimizer,
    loss_fn: LossFn,
    pair: AnyPairBatch,
) -> LossTerms:
    """Updates the model once, on one batch: the step of pretraining, of the inner loop and of fine-tuning.

    >>> from tfmetareg.models.registry import build_model
    >>> from tfmetareg.training.losses import registration_loss
    >>> from tfmetareg.training.optim import build_optimizer
    >>> model = build_model("vxm_dense", (16, 16), features=[[4], [4, 4]])
    >>> optimizer = build_optimizer("adam", 1e-3, model.trainable_variables)
    >>> pair = PairBatch(*tf.random.uniform((2, 1, 16, 16, 1)))
    >>> losses = gradient_step(model, optimizer, registration_loss, pair)
    >>> int(optimizer.iterations), losses.total.shape
    (1, TensorShape([]))

    Args:
        model: `warped, displacement = model([moving, fixed])`.
        optimizer: built for the model's trainable variables.
        loss_fn: (pair, warped, displacement) -> LossTerms.
        pair: moving and fixed, (batch, height, width, 1) each, float32 in [0, 1] or uint8. If it has
            `moving_like_fixed`, that is what the loss sees warped.

    Returns:
        The loss before the update.
    """
    pair = as_floats(pair)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        warped, displacement = model([pair.moving, pair.fixed], training=True)
        if isinstance(pair, ContrastPairBatch):
            warped = warp(pair.moving_like_fixed, displacement)
        terms = loss_fn(PairBatch(pair.moving, pair.fixed), warped, displacement)
    optimizer.apply_gradients(zip(tape.gradient(terms.total, variables), variables))
    return terms


def adapt(
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.legacy.Optimizer,
    loss_fn: LossFn,
    pairs: AnyPairBatch,
) -> LossTerms:
    """Makes k gradient steps, one after the other, as one graph loop.

    >>> from tfmetareg.models.registry import build_model
    >>> from tfmetareg.training.losses import registration_loss
    >>> from tfmetareg.training.optim import build_optimizer
    >>> model = build_model("vxm_dense", (16, 16), features=[[4], [4, 4]])
    >>> optimizer = build_optimizer("adam", 1e-3, model.trainable_variables)
    >>> pairs = PairBatch(*tf.random.uniform((2, 5, 1, 16, 16, 1)))  # k = 5 batches of one pair
    >>> losses = adapt(model, optimizer, registration_loss, pairs)
    >>> int(optimizer.iterations)
    5

    Args:
        model, optimizer, loss_fn: as for `gradient_step`.
        pairs: as for `gradient_step`, (k, batch, height, width, 1) each.

    Returns:
        Mean of the k losses, each before its update.
    """
    steps = tf.shape(pairs.moving)[0]
    total = LossTerms(*tf.unstack(tf.zeros(3)))
    for index in tf.range(steps):
        terms = gradient_step(model, optimizer, loss_fn, type(pairs)(*[images[index] for images in pairs]))
        total = LossTerms(*[one + other for one, other in zip(total, terms)])
    return LossTerms(*[value / tf.cast(steps, tf.float32) for value in total])


def register_pair(model: tf.keras.Model, pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """Registers a batch of pairs.

    Args:
        model: `warped, displacement = model([moving, fixed])`.
        pair: moving and fixed, (batch, height, width, 1) float32 in [0, 1] each.

    Returns:
        warped (batch, height, width, 1) and displacement (batch, height, width, 2) in pixels, (row, column).
    """
    return model([pair.moving, pair.fixed], training=False)
