"""Convolutions of a U-Net: the results of the plain ones, with fewer products and faster gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import numpy as np
import tensorflow as tf

from tfmetareg.device import slow_kernel_gradient

# Along one axis: weight i of the transposed 4x4 kernel is the sum of the 3x3 weights marked in row i.
_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)

# Number of parts in which a kernel's gradient is summed over the pixels, and the rows of zeros this needs.
_PARTS, _SPARE = 8, 4


def conv2d(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution with a square kernel, stride 1, zero padding.

    Args:
        images: (batch, height, width, channels).
        kernel: (size, size, channels, features) of the same dtype, size odd.

    Returns:
        (batch, height, width, features).
    """
    return _conv2d_by_products(images, kernel) if slow_kernel_gradient() else _conv2d(images, kernel)


def conv2d_upsampled(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`conv2d` of images upsampled by a factor of 2 (nearest neighbour), computed at the low resolution.

    Upsampling repeats each pixel four times, so the weights that meet the same value can be added first.
    The result is a transposed convolution of stride 2 with a 4x4 kernel: 16 products in place of 36 for
    each 2x2 output pixels, and no upsampled image in memory.

    Args:
        images: (batch, height, width, channels).
        kernel: (3, 3, channels, features), of the same dtype.

    Returns:
        (batch, 2 * height, 2 * width, features).
    """
    transposed = _transposed_by_products if slow_kernel_gradient() else _transposed
    return transposed(images, _upsampled_kernel(kernel))


@tf.custom_gradient
def leaky_relu(features: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """max(x, 0.2 x), with a gradient that reads the result.

    TensorFlow's gradient reads the argument: that keeps the argument in memory and prevents fusing it with
    the convolution before it.
    """
    result = tf.nn.leaky_relu(features, 0.2)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=result, alpha=0.2)

    return result, gradient


def _conv2d(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(images, kernel, 1, "SAME")


@tf.custom_gradient
def _conv2d_by_products(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """`_conv2d` with the kernel's gradient as matrix products."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_images = tf.nn.conv2d_transpose(upstream, kernel, _shape(images), 1, "SAME")
        size = kernel.shape[0]
        around = size // 2
        return to_images, _correlation(_padded(images, around, around + _SPARE), upstream, size)

    return _conv2d(images, kernel), gradient


def _upsampled_kernel(kernel: tf.Tensor) -> tf.Tensor:
    """(3, 3, channels, features) -> (4, 4, features, channels): adds the weights that meet the same pixel."""
    channels, features = kernel.shape[2:]
    taps = tf.cast(np.kron(_TAPS, _TAPS), kernel.dtype)
    added = tf.matmul(taps, tf.reshape(kernel, [9, channels * features]))
    return tf.transpose(tf.reshape(added, [4, 4, channels, features]), [0, 1, 3, 2])


def _transposed(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    batch, height, width, _ = _shape(images)
    shape = [batch, 2 * height, 2 * width, kernel.shape[2]]
    return tf.nn.conv2d_transpose(images, kernel, shape, 2, "SAME")


@tf.custom_gradient
def _transposed_by_products(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """`_transposed` with the kernel's gradient as matrix products."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_images = tf.nn.conv2d(upstream, kernel, 2, "SAME")
        features, channels = kernel.shape[2:]
        # Rows and columns of the 4x4 kernel as (block, place in the block).
        blocks = tf.nn.space_to_depth(_padded(upstream, 1, 1 + 2 * _SPARE), 2)
        products = tf.reshape(_correlation(blocks, images, 2), [2, 2, 2, 2, features, channels])
        return to_images, tf.reshape(tf.transpose(products, [0, 2, 1, 3, 4, 5]), [4, 4, features, channels])

    return _transposed(images, kernel), gradient


def _padded(images: tf.Tensor, around: int, below: int) -> tf.Tensor:
    """Pads with `around` rows or columns of zeros above, left and right, and with `below` rows below."""
    return tf.pad(images, [[0, 0], [around, below], [around, around], [0, 0]])


def _correlation(padded: tf.Tensor, images: tf.Tensor, size: int) -> tf.Tensor:
    """Sum over pixels p of padded(p + offset) images(p)^T, for each offset in a size x size window.

    With the pixels flattened to rows of a matrix, a pixel offset is a row offset: each sum is a product of
    two matrix slices, without copying windows, in parts that run on several threads.

    Args:
        padded: (batch, height + size - 1 + _SPARE, width + size - 1, channels).
        images: (batch, height, width, features).

    Returns:
        (size, size, channels, features).
    """
    channels, features = padded.shape[-1], images.shape[-1]
    below, width = size - 1 + _SPARE, _shape(padded)[2]
    rows = tf.reshape(padded, [-1, channels])
    others = tf.reshape(tf.pad(images, [[0, 0], [0, below], [0, size - 1], [0, 0]]), [-1, features])
    # The last rows of `others` are zeros: the rows that the offset or the division drops add nothing.
    count = (_shape(rows)[0] - (size - 1) * (width + 1)) // _PARTS * _PARTS
    others = tf.reshape(tf.slice(others, [0, 0], [count, features]), [_PARTS, -1, features])
    products = []
    for offset in (down * width + right for down in range(size) for right in range(size)):
        part = tf.reshape(tf.slice(rows, [offset, 0], [count, channels]), [_PARTS, -1, channels])
        products.append(tf.matmul(part, others, transpose_a=True))
    sums = tf.reduce_sum(tf.reshape(tf.concat(products, 0), [-1, _PARTS, channels, features]), 1)
    return tf.reshape(sums, [size, size, channels, features])


def _shape(tensor: tf.Tensor) -> list[Union[int, tf.Tensor]]:
    """Sizes of the axes: ints if the graph knows them, which keeps the graph small, else tensors."""
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape)]
