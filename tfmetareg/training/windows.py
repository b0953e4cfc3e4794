"""What the similarities share: sums over windows of pixels, and when a window counts as flat."""

from __future__ import annotations

import tensorflow as tf

# Windows with a variance below this count as flat: the square of half an 8-bit grey level.
FLAT = (0.5 / 255.0) ** 2


def box_sum(images: tf.Tensor, window: int) -> tf.Tensor:
    """Sum over the window around each pixel, with zero padding, by two 1D convolutions.

    >>> box_sum(tf.ones((1, 2, 3, 1)), 3)[0, ..., 0].numpy().tolist()
    [[4.0, 6.0, 4.0], [4.0, 6.0, 4.0]]

    Args:
        images: (batch, height, width, channels) float32.
        window: side of the window in pixels, odd.
    """
    column = tf.ones([window, 1, images.shape[-1], 1])
    row = tf.ones([1, window, images.shape[-1], 1])

    def sums(values: tf.Tensor) -> tf.Tensor:
        vertical = tf.nn.depthwise_conv2d(values, column, [1, 1, 1, 1], "SAME")
        return tf.nn.depthwise_conv2d(vertical, row, [1, 1, 1, 1], "SAME")

    # An odd window is symmetric: the gradient is the same sum, which is faster than the library's gradient.
    return tf.custom_gradient(lambda values: (sums(values), sums))(images)
