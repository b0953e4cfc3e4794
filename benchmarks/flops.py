"""Arithmetic and memory traffic of a gradient step, counted from the layers of the network.

Only the 3x3 convolutions are counted. Everything else (activations, pooling, warp, loss, Adam) is far less
work and not needed to compare a step with the limits of the machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_KERNEL = 3 * 3
# A 3x3 convolution of nearest-upsampled features equals four 2x2 kernels on the features before upsampling:
# 16 multiplications for a block of 2x2 outputs instead of 36.
_FOLDED_KERNEL = 2 * 2
_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One 3x3 convolution with its sizes.

    Attributes:
        height, width: size of its output, in pixels.
        inputs: number of input channels.
        upsampled: number of input channels that are nearest-upsampled by 2 just before.
        outputs: number of output channels.
        first: whether its inputs are the images, which need no gradient.
    """

    height: int
    width: int
    inputs: int
    upsampled: int
    outputs: int
    first: bool = False

    @property
    def passes(self) -> int:
        """Passes of equal work: forward, weight gradient and, except for the images, input gradient."""
        return 2 if self.first else 3

    def flops(self, folded: bool) -> int:
        """Operations of all passes for one image; multiplications and additions count separately."""
        taps = _FOLDED_KERNEL if folded else _KERNEL
        products = ((self.inputs - self.upsampled) * _KERNEL + self.upsampled * taps) * self.outputs
        return 2 * products * self.height * self.width * self.passes

    def bytes(self, folded: bool) -> float:
        """Least memory traffic in float32: each pass accesses every input and every output once."""
        inputs = self.inputs - self.upsampled * (0.75 if folded else 0.0)
        return _BYTES * (inputs + self.outputs) * self.height * self.width * self.passes


def convolutions(features: Sequence[Sequence[int]], size: int) -> list[Convolution]:
    """The convolutions of VxmDense on `size` x `size` images, flow head included.

    Args:
        features: [encoder, decoder], channels of each layer; surplus decoder entries are at full resolution.
        size: side of the images, a multiple of 2 ** len(encoder).
    """
    encoder, decoder = features
    layers, channels = [], 2
    for level, outputs in enumerate(encoder):
        side = size >> level
        layers.append(Convolution(side, side, channels, 0, outputs, first=level == 0))
        channels = outputs
    upsampled = 0
    for index, outputs in enumerate([*decoder, 2]):
        level = max(len(encoder) - index, 0)
        side = size >> level
        layers.append(Convolution(side, side, channels, upsampled, outputs))
        upsampled = outputs if level else 0
        channels = outputs + (encoder[level - 1] if level else 0)
    return layers


def step_flops(features: Sequence[Sequence[int]], size: int, batch: int, *, folded: bool = False) -> int:
    """Floating-point operations of one gradient step.

    >>> step_flops([[16], [16]], 64, 1)
    33030144

    Args:
        features, size: as for `convolutions`.
        batch: images in a step.
        folded: counts convolutions of upsampled features as computed before upsampling.
    """
    return batch * sum(layer.flops(folded) for layer in convolutions(features, size))


def step_bytes(features: Sequence[Sequence[int]], size: int, batch: int, *, folded: bool = False) -> float:
    """Least memory traffic of one gradient step in float32, in bytes; arguments as for `step_flops`."""
    return batch * sum(layer.bytes(folded) for layer in convolutions(features, size))


def step_floor(
    features: Sequence[Sequence[int]],
    size: int,
    batch: int,
    *,
    flops_per_second: float,
    bytes_per_second: float,
    folded: bool = False,
) -> float:
    """Least time of a gradient step in seconds, with each layer bound by arithmetic or by memory."""
    return batch * sum(
        max(layer.flops(folded) / flops_per_second, layer.bytes(folded) / bytes_per_second)
        for layer in convolutions(features, size)
    )
