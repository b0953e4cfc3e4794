"""More tasks out of the same data: the pairs of a task as those of one that was never recorded."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.spatial import warp
from tfmetareg.types import PairBatch

# Exponents of the grey levels, as powers of two up and down.
_OCTAVES = 1.0
# Standard deviation of the added displacement at most, as a share of the shorter side. Chosen on source tasks
# left out (docs/study.md): with half of it distant pairs stay apart, with more the fit suffers.
_REACH = 0.05
# Nodes of the grid that the displacement is interpolated from, on each axis.
_COARSEST, _FINEST = 3, 8


@tf.autograph.experimental.do_not_convert
def task_like(pairs: PairBatch, seed: tf.Tensor) -> PairBatch:
    """The pairs as of another task: other grey levels, other motion; what they show stays.

    One draw of grey levels and orientation holds for all of them, since that is what makes a task: a power of
    the grey levels, half of the time their negative, a flip along each axis and, of square images, an
    exchange of the axes. Beside that every moving image is warped by a smooth random field of its own, whose
    size is again one draw for all.

    Args:
        pairs: uint8 (n, height, width, 1) each.
        seed: int64 (2,); decides on everything, for stateless operations: a stateful one could not be
            checkpointed.

    Returns:
        As `pairs`.
    """
    own = tf.random.split(seed, 5)
    moving, fixed = (tf.image.convert_image_dtype(image, tf.float32) for image in pairs)
    moving = warp(moving, _motion(tf.shape(moving), own[0], own[1]))
    both = _grey_levels(_turned(tf.stack([moving, fixed]), own[2]), own[3])
    return PairBatch(*tf.unstack(tf.image.convert_image_dtype(both, tf.uint8, saturate=True)))


def _motion(shape: tf.Tensor, size_seed: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Smooth displacements (n, height, width, 2) in pixels, of one common size and smoothness."""
    count, height, width, _ = tf.unstack(shape)
    sizes = tf.random.stateless_uniform([2], size_seed)
    amplitude = sizes[0] * _REACH * tf.cast(tf.minimum(height, width), tf.float32)
    nodes = _COARSEST + tf.cast(sizes[1] * (_FINEST - _COARSEST + 1), tf.int32)
    coarse = tf.random.stateless_normal(tf.stack([count, nodes, nodes, 2]), seed)
    return amplitude * tf.image.resize(coarse, tf.stack([height, width]), "bicubic")


def _turned(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """All of (2, n, height, width, 1) in one of the orientations that keep the shape."""
    flip_rows, flip_columns, exchange = tf.unstack(tf.random.stateless_uniform([3], seed) < 0.5)
    images = tf.cond(flip_rows, lambda: tf.reverse(images, [2]), lambda: images)
    images = tf.cond(flip_columns, lambda: tf.reverse(images, [3]), lambda: images)
    if images.shape[2] != images.shape[3]:
        return images
    return tf.cond(exchange, lambda: tf.transpose(images, [0, 1, 3, 2, 4]), lambda: images)


def _grey_levels(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """All images in [0, 1] under one monotonic map, rising or falling."""
    octaves, negative = tf.unstack(tf.random.stateless_uniform([2], seed))
    images = tf.pow(images, 2.0 ** (_OCTAVES * (2.0 * octaves - 1.0)))
    return tf.where(negative < 0.5, 1.0 - images, images)
