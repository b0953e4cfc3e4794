"""The forward pass of voxelmorph's U-Net, on the weights of its layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Optional

import tensorflow as tf

from tfmetareg.models.convolution import conv2d, conv2d_upsampled, leaky_relu


def unet(
    convolutions: Sequence[tf.keras.layers.Conv2D], levels: int, images: list[tf.Tensor], dtype: tf.DType
) -> tf.Tensor:
    """What VxmDense's U-Net and flow layer compute, for any height and width.

    Args:
        convolutions: 3x3 layers in the order of the network: encoder, decoder,
            flow. Those of the decoder after the first take the features before
            them, upsampled, and those of the encoder's level, until the full
            resolution is reached.
        levels: number of encoder layers.
        images: moving, fixed; (batch, height, width, 1) float32, height and
            width multiples of 2 ** levels.
        dtype: in which all but the flow layer is computed.

    Returns:
        (batch, height, width, 2) float32, the flow layer's output.
    """
    features = tf.cast(tf.concat(images, -1), dtype)
    skips: list[Optional[tf.Tensor]] = []
    for layer in convolutions[:levels]:
        features = leaky_relu(_convolve(layer, features))
        skips.append(features)
        features = tf.nn.max_pool2d(features, 2, 2, "VALID")
    *decoder, flow = itertools.zip_longest(convolutions[levels:], [None, *reversed(skips)])
    for layer, skip in decoder:
        features = leaky_relu(_convolve(layer, features, skip))
    return _convolve(flow[0], *[x if x is None else tf.cast(x, tf.float32) for x in (features, flow[1])])


def _convolve(
    layer: tf.keras.layers.Conv2D, features: tf.Tensor, skip: Optional[tf.Tensor] = None
) -> tf.Tensor:
    """The layer's convolution: of the features, or of these upsampled and concatenated with the skip."""
    kernel, bias = (tf.cast(weight, features.dtype) for weight in (layer.kernel, layer.bias))
    if skip is None:
        return tf.nn.bias_add(conv2d(features, kernel), bias)
    below, beside = tf.split(kernel, [features.shape[-1], skip.shape[-1]], axis=2)
    return tf.nn.bias_add(conv2d(skip, beside), bias) + conv2d_upsampled(features, below)
