"""VoxelMorph's dense network (Balakrishnan et al., 2019), from the voxelmorph package."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmetareg._compat import vxm
from tfmetareg.device import resolve_precision
from tfmetareg.models.registry import RegistrationModel, register_model
from tfmetareg.models.unet import unet


@register_model("vxm_dense")
def vxm_dense(
    image_shape: tuple[int, int], *, features: Sequence[Sequence[int]], precision: str = "float32"
) -> RegistrationModel:
    """`vxm.networks.VxmDense` predicting a displacement at full resolution.

    The package makes the layers and owns their weights; `unet` computes with them.

    Args:
        image_shape: (height, width); VxmDense itself is built at the next
            multiple of its stride, which is also what its .h5 file names.
        features: U-Net features, [encoder, decoder].
        precision: "float32", "tensorfloat32", "mixed_bfloat16" (the U-Net in bfloat16;
            weights, flow layer and warp in float32) or "auto".
    """
    levels = len(features[0])
    stride = 2**levels
    inshape = tuple(-(-side // stride) * stride for side in image_shape)
    network = vxm.networks.VxmDense(
        inshape,
        nb_unet_features=[list(part) for part in features],
        int_steps=0,
        svf_resolution=1,
        int_resolution=1,
        reg_field="warp",
    )
    convolutions = [layer for layer in network.layers if isinstance(layer, tf.keras.layers.Conv2D)]
    dtype = tf.bfloat16 if resolve_precision(precision) == "mixed_bfloat16" else tf.float32
    return RegistrationModel(network, lambda images: unet(convolutions, levels, images, dtype), stride)
