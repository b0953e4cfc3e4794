"""voxelmorph's U-Net: the same results from the same layers, in half the time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Optional

import tensorflow as tf

from tfmetareg.device import resolve_precision
from tfmetareg.errors import UserError
from tfmetareg.models.convolution import conv2d, conv2d_upsampled, leaky_relu

# voxelmorph's default features: encoder, decoder.
FEATURES = ((16, 32, 32, 32), (32, 32, 32, 32, 32, 16, 16))


class UNet:
    """VxmDense's U-Net and flow layer, with the package's layer names, shapes and initial weights.

    Attributes:
        layers: in the order of the network: encoder, decoder, flow.
        stride: factor between the finest and the coarsest resolution.
        halo: receptive-field radius in pixels, rounded up to a multiple of `stride`; without the reach of
            `block` layers.
    """

    def __init__(
        self,
        name: str,
        features: Sequence[Sequence[int]],
        *,
        precision: str = "float32",
        convolutions_per_level: int = 1,
        resolution: int = 1,
        block: Optional[Callable[[str, int], tf.keras.layers.Layer]] = None,
        network: Optional[tf.keras.Model] = None,
    ):
        """
        Args:
            name: prefix of the layer names, "vxm_dense" in the package.
            features: features of the convolutions, [encoder, decoder]; decoder layers beyond the number of
                encoder layers follow at the final resolution.
            precision: "mixed_bfloat16" computes all but the flow layer in bfloat16; see `resolve_precision`.
            convolutions_per_level: convolutions at each level of the encoder and of the decoder.
            resolution: grid spacing of the field in image pixels, a power of 2.
            block: (name, features) -> an additional layer at the end of each encoder level, with a `kernel`
                and a `bias`.
            network: network that has the layers already; without it, layers of the same names and initial
                weights are made here.

        Raises:
            UserError: the features do not make a U-Net.
        """
        made = chain if network is None else lambda names, *_: [network.get_layer(name) for name in names]
        encoder, decoder = check_features(features, convolutions_per_level)
        each, levels = convolutions_per_level, len(encoder) // convolutions_per_level
        self.stride = 2**levels
        # A 3x3 convolution at level l reaches 2^l pixels. The encoder has levels 0 to `levels` - 1, the
        # decoder 1 to `levels`; the final convolutions and the flow are at level 0. A pixel of the coarsest
        # level covers `stride` image pixels.
        reach = (3 * each + 1) * (self.stride - 1) + len(decoder) - len(encoder) + 1
        self.halo = -(-reach // self.stride) * self.stride
        upsamplings = levels - (check_power("svf_resolution", resolution, self.stride).bit_length() - 1)
        names = [f"enc_conv_{index // each}_{index % each}" for index in range(len(encoder))]
        convolutions = made([f"{name}_unet_{part}" for part in names], [2, *encoder])
        self._encoder = [convolutions[start : start + each] for start in range(0, len(encoder), each)]
        if block:
            for level, layers in enumerate(self._encoder):
                layers.append(block(f"{name}_unet_enc_block_{level}", encoder[(level + 1) * each - 1]))

        names = [f"dec_conv_{levels - 1 - index // each}_{index % each}" for index in range(len(encoder))]
        names += [f"dec_final_conv_{index}" for index in range(len(decoder) - len(encoder))]
        # The first convolution of each decoder level but the coarsest takes a skip connection.
        beginnings = [each * level for level in range(1, upsamplings + 1)]
        skips = {begin: encoder[-begin - 1 + each] for begin in beginnings}
        prefixed = [*[f"{name}_unet_{part}" for part in names], f"{name}_flow"]
        self._decoder = made(prefixed, [encoder[-1], *decoder, 2], skips)
        self._joined = [index in skips for index in range(len(self._decoder))]
        self.layers = [*itertools.chain(*self._encoder), *self._decoder]
        self._dtype = tf.bfloat16 if resolve_precision(precision) == "mixed_bfloat16" else tf.float32

    def __call__(self, images: list[tf.Tensor]) -> tf.Tensor:
        """The flow of an image pair, as VxmDense computes it, for any height and width.

        Args:
            images: moving and fixed, (batch, height, width, 1) float32 each, height and width multiples of
                the stride.

        Returns:
            (batch, height / resolution, width / resolution, 2) float32.
        """
        features = tf.cast(tf.concat(images, -1), self._dtype)
        skips: list[tf.Tensor] = []
        for level in self._encoder:
            for layer in level:
                features = leaky_relu(convolve(layer, features))
            skips.append(features)
            features = tf.nn.max_pool2d(features, 2, 2, "VALID")
        *hidden, (flow, joined) = zip(self._decoder, self._joined)
        for layer, with_skip in hidden:
            features = leaky_relu(convolve(layer, features, skips.pop() if with_skip else None))
        skip = tf.cast(skips.pop(), tf.float32) if joined else None
        return convolve(flow, tf.cast(features, tf.float32), skip)


def check_features(features: Sequence[Sequence[int]], each: int = 1) -> tuple[list[int], list[int]]:
    """Checks the features of a U-Net with `each` convolutions per level; returns encoder and decoder.

    Raises:
        UserError: they make no such U-Net.
    """
    if len(features) != 2 or not features[0] or len(features[1]) < len(features[0]):
        raise UserError(
            f"`model.features` ({features}) must be [encoder, decoder], the decoder at least as long."
        )
    if each < 1 or len(features[0]) % each:
        raise UserError(
            f"`convolutions_per_level` ({each}) must divide the number of encoder features, "
            f"{len(features[0])}."
        )
    return list(features[0]), list(features[1])


def check_power(name: str, value: int, largest: int) -> int:
    """Checks that a value is a power of 2 from 1 to `largest`; returns it.

    Raises:
        UserError: it is not.
    """
    if value < 1 or value > largest or value & (value - 1):
        raise UserError(f"`{name}` ({value}) must be a power of 2 from 1 to the network's stride, {largest}.")
    return value


def chain(
    names: Sequence[str], features: Sequence[int], skips: Optional[dict[int, int]] = None
) -> list[tf.keras.layers.Conv2D]:
    """Makes a chain of 3x3 convolutions.

    A layer whose name ends in `_flow` starts with weights near zero: the identity transform.

    Args:
        names: names of the layers.
        features: number of input features, then the output features of each layer.
        skips: number of additional input features from a skip connection, by index in the chain.
    """
    layers = []
    for place, (name, inputs, outputs) in enumerate(zip(names, features, features[1:])):
        flow = name.endswith("_flow")
        first = tf.keras.initializers.RandomNormal(0.0, 1e-5) if flow else "he_normal"
        layer = tf.keras.layers.Conv2D(outputs, 3, padding="same", kernel_initializer=first, name=name)
        with tf.name_scope(name):
            layer.build((None, None, None, inputs + (skips or {}).get(place, 0)))
        layers.append(layer)
    return layers


def convolve(
    layer: tf.keras.layers.Conv2D, features: tf.Tensor, skip: Optional[tf.Tensor] = None
) -> tf.Tensor:
    """Applies a layer's convolution to features, or to upsampled features concatenated with a skip.

    Args:
        layer: any object with a `kernel` and a `bias`.
        features: (batch, height, width, channels).
        skip: skip connection, (batch, 2 * height, 2 * width, channels) of the same dtype, if any.
    """
    kernel, bias = (tf.cast(weight, features.dtype) for weight in (layer.kernel, layer.bias))
    if skip is None:
        return tf.nn.bias_add(conv2d(features, kernel), bias)
    below, beside = tf.split(kernel, [features.shape[-1], skip.shape[-1]], axis=2)
    return tf.nn.bias_add(conv2d(skip, beside), bias) + conv2d_upsampled(features, below)
