"""VoxelMorph's dense network (Balakrishnan et al., 2019), from the voxelmorph package."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmetareg._compat import vxm
from tfmetareg.models.registry import RegistrationModel, register_model


@register_model("vxm_dense")
def vxm_dense(image_shape: tuple[int, int], *, features: Sequence[Sequence[int]]) -> RegistrationModel:
    """`vxm.networks.VxmDense` predicting a displacement at full resolution.

    Args:
        image_shape: (height, width); VxmDense itself is built at the next
            multiple of its stride, which is also what its .h5 file names.
        features: U-Net features, [encoder, decoder].
    """
    stride = 2 ** len(features[0])
    inshape = tuple(-(-side // stride) * stride for side in image_shape)
    network = vxm.networks.VxmDense(
        inshape,
        nb_unet_features=[list(part) for part in features],
        int_steps=0,
        svf_resolution=1,
        int_resolution=1,
        reg_field="warp",
    )
    return RegistrationModel(network, _any_size(network.get_registration_model()), stride)


def _any_size(model: tf.keras.Model) -> tf.keras.Model:
    """The same layers, weights shared, called on inputs of unknown height and width."""
    inputs = [tf.keras.Input((None, None, tensor.shape[-1])) for tensor in model.inputs]
    return tf.keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)
