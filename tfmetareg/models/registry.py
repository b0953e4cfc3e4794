"""Registration networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.spatial import warp

Field = Callable[[list[tf.Tensor]], tf.Tensor]

_BUILDERS: dict[str, Callable[..., RegistrationModel]] = {}


class RegistrationModel(tf.keras.Model):
    """G(M, F) and the spatial transformer: `warped, displacement = model([moving, fixed])`.

    Takes images of any height and width from 2 pixels on: they are padded with zeros to the
    network's stride, and the displacement is cropped back.
    """

    def __init__(self, network: tf.keras.Model, field: Field, stride: int):
        """
        Args:
            network: owner of the weights, written to and read from .h5 files.
            field: [moving, fixed] -> displacement in pixels, float32, for any size
                that is a multiple of `stride`; computes with the weights of `network`.
            stride: factor between the finest and the coarsest level of the network.
        """
        super().__init__(name=network.name)
        self.network = network
        self.field = tf.autograph.experimental.do_not_convert(field)  # Converting it would take seconds.
        self.stride = stride

    def call(self, inputs: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Registers moving onto fixed.

        Args:
            inputs: moving, fixed; (batch, height, width, 1) float32 in [0, 1].

        Returns:
            warped (batch, height, width, 1) and displacement
            (batch, height, width, 2), pixels, (row, column), on the fixed grid.
        """
        moving, fixed = inputs
        height, width = _size(fixed)
        padded = [_pad_to_multiple(image, self.stride) for image in (moving, fixed)]
        displacement = self.field(padded)[:, :height, :width]
        return warp(moving, displacement), displacement


def register_model(name: str) -> Callable:
    """Decorator that puts a builder `(image_shape, **kwargs) -> RegistrationModel` in the registry."""

    def decorate(builder: Callable[..., RegistrationModel]) -> Callable[..., RegistrationModel]:
        if name in _BUILDERS:
            raise ValueError(f"model `{name}` is registered already.")
        _BUILDERS[name] = builder
        return builder

    return decorate


def build_model(name: str, image_shape: tuple[int, int], **kwargs: Any) -> RegistrationModel:
    """Builds a registered network with fresh weights.

    Args:
        name: name in the registry.
        image_shape: (height, width) to train at; other sizes work too.
        **kwargs: the builder's own options.

    Raises:
        UserError: no network of that name.
    """
    if name not in _BUILDERS:
        raise UserError(f"`model.name` must be one of {', '.join(sorted(_BUILDERS))}; got {name}.")
    return _BUILDERS[name](image_shape, **kwargs)


def _size(images: tf.Tensor) -> tuple[Any, Any]:
    """Height and width: numbers where the graph knows them, else tensors."""
    static, dynamic = images.shape, tf.shape(images)
    return tuple(dynamic[axis] if static[axis] is None else static[axis] for axis in (1, 2))


def _pad_to_multiple(images: tf.Tensor, stride: int) -> tf.Tensor:
    """Zeros below and to the right, up to the next multiple of `stride`."""
    height, width = _size(images)
    below, right = -height % stride, -width % stride
    if isinstance(below, int) and isinstance(right, int) and below == right == 0:
        return images
    return tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
