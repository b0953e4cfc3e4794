"""A recursive cascade of registration networks (Zhao et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp
from tfmetareg.models.fields import compose
from tfmetareg.models.registry import Layers, RegistrationModel, register_model
from tfmetareg.models.unet import FEATURES, UNet


@register_model("cascade")
def cascade(
    image_shape: tuple[int, int],
    *,
    features: Sequence[Sequence[int]] = FEATURES,
    cascades: int = 3,
    precision: str = "float32",
) -> RegistrationModel:
    """A chain of U-Nets: each registers the image as the ones before it have warped it.

    All are trained together, by the loss of the final warped image. Each step warps the original moving
    image by the composition of the fields so far, so that interpolation blurs it only once.

    Args:
        image_shape: (height, width), any.
        features: U-Net features, [encoder, decoder], the same for all.
        cascades: number of U-Nets, each with its own weights (10 in the paper).
        precision: as for `vxm_dense`.

    Raises:
        UserError: fewer than one U-Net, or features that make none.
    """
    if cascades < 1:
        raise UserError(f"`cascades` ({cascades}) must be at least 1.")
    unets = [UNet(f"cascade_{number}", features, precision=precision) for number in range(1, cascades + 1)]

    def field(images: list[tf.Tensor]) -> tf.Tensor:
        moving, fixed = images
        displacement = unets[0](images)
        for unet in unets[1:]:
            step = unet([warp(moving, displacement), fixed])
            displacement = compose(displacement, step)
        return displacement

    layers = [layer for unet in unets for layer in unet.layers]
    return RegistrationModel(Layers("cascade", layers), field, unets[0].stride)
