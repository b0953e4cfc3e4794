"""More tasks out of the same data: the pairs of a task as those of one that was never recorded."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.geometry.warp import warp
from tfmetareg.types import PairBatch

# Exponents of the grey levels, as powers of two up and down.
_OCTAVES = 1.0
# Standard deviation of the added displacement at most, as a share of the shorter side. Chosen on source tasks
# left out (docs/study.md): with half of it distant pairs stay apart, with more the fit suffers.
_REACH = 0.05
# Nodes of the grid that the displacement is interpolated from, on each axis.
_COARSEST, _FINEST = 3, 8


@tf.autograph.experimental.do_not_convert
def task_like(pair: PairBatch, seed: tf.Tensor, number: tf.Tensor) -> PairBatch:
    """The pair as one of another task: other grey levels, other motion; what it shows stays.

    The seed alone decides on grey levels and orientation, since these are what pairs of one task have in
    common: a power of the grey levels, half of the time their negative, a flip along each axis and, of square
    images, an exchange of the axes. Beside that the moving image is warped by a smooth random field of its
    own, whose size and smoothness are again the task's.

    Args:
        pair: uint8 (height, width, 1) each.
        seed: int64 (2,), of the task; for stateless operations: a stateful one could not be checkpointed.
        number: int64 scalar, of the pair in it.

    Returns:
        As `pair`.
    """
    own = tf.random.split(seed, 5)
    moving, fixed = (tf.image.convert_image_dtype(image, tf.float32)[None] for image in pair)
    moving = warp(moving, _motion(tf.shape(moving), own[0], tf.random.fold_in(own[1], number)))
    both = _grey_levels(_turned(tf.concat([moving, fixed], 0), own[2]), own[3])
    return PairBatch(*tf.unstack(tf.image.convert_image_dtype(both, tf.uint8, saturate=True)))


def _motion(shape: tf.Tensor, task_seed: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A smooth displacement (1, height, width, 2) in pixels, of the task's size and smoothness."""
    _, height, width, _ = tf.unstack(shape)
    sizes = tf.random.stateless_uniform([2], task_seed)
    amplitude = sizes[0] * _REACH * tf.cast(tf.minimum(height, width), tf.float32)
    nodes = _COARSEST + tf.cast(sizes[1] * (_FINEST - _COARSEST + 1), tf.int32)
    coarse = tf.random.stateless_normal(tf.stack([1, nodes, nodes, 2]), seed)
    return amplitude * tf.image.resize(coarse, tf.stack([height, width]), "bicubic")


def _turned(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """All of (n, height, width, 1) in one of the orientations that keep the shape."""
    flip_rows, flip_columns, exchange = tf.unstack(tf.random.stateless_uniform([3], seed) < 0.5)
    images = tf.cond(flip_rows, lambda: tf.reverse(images, [1]), lambda: images)
    images = tf.cond(flip_columns, lambda: tf.reverse(images, [2]), lambda: images)
    if images.shape[1] != images.shape[2]:
        return images
    return tf.cond(exchange, lambda: tf.transpose(images, [0, 2, 1, 3]), lambda: images)


def _grey_levels(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """All images in [0, 1] under one monotonic map, rising or falling."""
    octaves, negative = tf.unstack(tf.random.stateless_uniform([2], seed))
    images = tf.pow(images, 2.0 ** (_OCTAVES * (2.0 * octaves - 1.0)))
    return tf.where(negative < 0.5, 1.0 - images, images)
