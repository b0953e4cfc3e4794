"""The spatial transformer: warps batches of images, and carries points."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg._compat import tfa


@tf.autograph.experimental.do_not_convert
def warp(moving: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """warped(x) = moving(x + displacement(x)), bilinear, border values continued outwards.

    The numbers are those of voxelmorph's SpatialTransformer, which loops over the batch, and of
    `tfa.image.dense_image_warp`, which nests graphs.

    >>> moving = tf.reshape(tf.range(6.0), [1, 2, 3, 1])
    >>> warp(moving, tf.fill([1, 2, 3, 2], 0.5))[0, 0, :, 0].numpy().tolist()
    [2.0, 3.0, 3.5]

    Args:
        moving: (batch, height, width, channels) float32.
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch, height, width, channels) float32.
    """
    batch, height, width, channels = tf.unstack(tf.shape(moving))
    by_rows, by_columns = tf.unstack(displacement, axis=-1)
    top, down = _cell(by_rows + tf.range(tf.cast(height, tf.float32))[:, None], height)
    left, right = _cell(by_columns + tf.range(tf.cast(width, tf.float32)), width)
    first = tf.range(batch)[:, None, None] * height * width + top * width + left
    pixels = tf.reshape(moving, [-1, channels])
    # An axis of one pixel has no next pixel.
    next_row, next_column = width * tf.minimum(height - 1, 1), tf.minimum(width - 1, 1)
    above, below = (
        _between(tf.gather(pixels, first + row), tf.gather(pixels, first + row + next_column), right)
        for row in (0, next_row)
    )
    return _between(above, below, down)


def _cell(position: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixel before a position along an axis, int32, and the position's distance from it, 0 to 1."""
    last = tf.cast(size - 1, tf.float32)
    position = tf.clip_by_value(position, 0.0, last)
    before = tf.stop_gradient(tf.minimum(tf.floor(position), tf.maximum(last - 1.0, 0.0)))
    return tf.cast(before, tf.int32), position - before


def _between(one: tf.Tensor, other: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return one + share[..., None] * (other - one)


def displace_points(points: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Carries points of the fixed image to the moving image: p + displacement(p).

    Args:
        points: (batch, n, 2) float32, (row, column), pixels, inside the image.
        displacement: (batch, height, width, 2) float32, pixels; interpolated bilinearly.

    Returns:
        (batch, n, 2) float32.
    """
    return points + tfa.image.interpolate_bilinear(displacement, points, indexing="ij")
