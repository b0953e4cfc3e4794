"""Task augmentation: turns the pairs of a recorded task into pairs of a new, artificial task."""

from __future__ import annotations

from typing import TypeVar

import tensorflow as tf

from tfmetareg.geometry.warp import warp
from tfmetareg.types import AnyPairBatch

P = TypeVar("P", bound=AnyPairBatch)

# The exponent of the grey levels lies between 2 to the power of minus this and of plus this.
_OCTAVES = 1.0
# Largest standard deviation of the added displacement, as a fraction of the shorter side. Chosen on source
# tasks left out of training (docs/study.md): half of it leaves distant pairs apart, more harms the fit.
_REACH = 0.05
# Fewest and most nodes per axis of the grid from which the displacement is interpolated.
_COARSEST, _FINEST = 3, 8


@tf.autograph.experimental.do_not_convert
def task_like(pair: P, seed: tf.Tensor, number: tf.Tensor) -> P:
    """Turns a pair into one of an artificial task, with other grey levels and other motion.

    All pairs of an artificial task share grey levels and orientation, which depend on its seed alone: a
    power of the grey levels, their negative with probability 1/2, a flip along each axis with probability
    1/2 and, for square images, an exchange of the axes with probability 1/2. In addition, the moving image
    is warped by a smooth random field of its own; the field's amplitude and smoothness belong to the task.

    Args:
        pair: moving and fixed, and `moving_like_fixed` if there is one, uint8 (height, width, 1) each.
        seed: int64 (2,), seed of the artificial task for stateless random operations (stateful ones could
            not be checkpointed).
        number: int64 scalar, number of the pair within the task.

    Returns:
        The new pair, uint8 (height, width, 1) each.
    """
    own = tf.random.split(seed, 5)
    floats = type(pair)(*[tf.image.convert_image_dtype(image, tf.float32)[None] for image in pair])
    motion = _motion(tf.shape(floats.moving), own[0], tf.random.fold_in(own[1], number))
    moved = [image if image is floats.fixed else warp(image, motion) for image in floats]
    images = _grey_levels(_turned(tf.concat(moved, 0), own[2]), own[3])
    return type(pair)(*tf.unstack(tf.image.convert_image_dtype(images, tf.uint8, saturate=True)))


def _motion(shape: tf.Tensor, task_seed: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A smooth random displacement, (1, height, width, 2) in pixels; the task sets amplitude and nodes."""
    _, height, width, _ = tf.unstack(shape)
    sizes = tf.random.stateless_uniform([2], task_seed)
    amplitude = sizes[0] * _REACH * tf.cast(tf.minimum(height, width), tf.float32)
    nodes = _COARSEST + tf.cast(sizes[1] * (_FINEST - _COARSEST + 1), tf.int32)
    coarse = tf.random.stateless_normal(tf.stack([1, nodes, nodes, 2]), seed)
    return amplitude * tf.image.resize(coarse, tf.stack([height, width]), "bicubic")


def _turned(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flips images (n, height, width, 1) alike, and exchanges the axes of square ones, at random."""
    flip_rows, flip_columns, exchange = tf.unstack(tf.random.stateless_uniform([3], seed) < 0.5)
    images = tf.cond(flip_rows, lambda: tf.reverse(images, [1]), lambda: images)
    images = tf.cond(flip_columns, lambda: tf.reverse(images, [2]), lambda: images)
    if images.shape[1] != images.shape[2]:
        return images
    return tf.cond(exchange, lambda: tf.transpose(images, [0, 2, 1, 3]), lambda: images)


def _grey_levels(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Maps the grey levels of images in [0, 1] alike, by a random power, increasing or decreasing."""
    octaves, negative = tf.unstack(tf.random.stateless_uniform([2], seed))
    images = tf.pow(images, 2.0 ** (_OCTAVES * (2.0 * octaves - 1.0)))
    return tf.where(negative < 0.5, 1.0 - images, images)
