"""A U-Net with large kernels in its encoder, after LKU-Net (Jia et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.models.registry import Layers, RegistrationModel, register_model
from tfmetareg.models.unet import FEATURES, UNet


@register_model("large_kernel")
def large_kernel(
    image_shape: tuple[int, int],
    *,
    features: Sequence[Sequence[int]] = FEATURES,
    kernel_size: int = 5,
    precision: str = "float32",
) -> RegistrationModel:
    """VxmDense's U-Net with a large-kernel block after the convolution of each encoder level.

    As in LKU-Net, a block adds a large, a 3x3 and a 1x1 convolution to its input. Unlike LKU-Net, it uses
    max pooling between levels and VxmDense's decoder.

    Args:
        image_shape: (height, width), any.
        features: U-Net features, [encoder, decoder], as for `vxm_dense`.
        kernel_size: side of the large kernels in pixels, odd, at least 5.
        precision: as for `vxm_dense`.

    Raises:
        UserError: an option is out of range.
    """
    if kernel_size < 5 or kernel_size % 2 == 0:
        raise UserError(f"`kernel_size` ({kernel_size}) must be odd and at least 5.")
    unet = UNet(
        "large_kernel",
        features,
        precision=precision,
        block=lambda name, channels: LargeKernelBlock(channels, kernel_size, name=name),
    )
    return RegistrationModel(Layers("large_kernel", unet.layers), unet, unet.stride)


class LargeKernelBlock(tf.keras.layers.Layer):
    """The sum of three parallel convolutions and the identity.

    Convolution is linear, so a single convolution with the sum of the kernels computes all of them, in
    training too.
    """

    def __init__(self, channels: int, size: int, name: str):
        """
        Args:
            channels: number of input and of output channels.
            size: side of the largest kernel in pixels, odd.
            name: name of the layer.
        """
        super().__init__(name=name)
        self._size = size
        self.branches = [self._branch(side, channels) for side in (size, 3, 1)]
        self.bias = self.add_weight("bias", (channels,), initializer="zeros")

    def _branch(self, side: int, channels: int) -> tf.Variable:
        # Together the branches add a third of their input's variance: with more, activations would grow
        # from level to level.
        first = tf.keras.initializers.VarianceScaling(1.0 / 9.0)
        return self.add_weight(f"kernel_{side}x{side}", (side, side, channels, channels), initializer=first)

    @property
    def kernel(self) -> tf.Tensor:
        """(size, size, channels, channels): the sum of all branches and the identity as one kernel."""
        identity = tf.eye(self.bias.shape[0])[None, None]
        return tf.add_n([_centred(branch, self._size) for branch in (*self.branches, identity)])


def _centred(kernel: tf.Tensor, size: int) -> tf.Tensor:
    """The kernel padded with zeros on all sides to size x size."""
    around = (size - kernel.shape[0]) // 2
    return tf.pad(kernel, [[around, around], [around, around], [0, 0], [0, 0]])
