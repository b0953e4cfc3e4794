"""VoxelMorph's dense networks (Balakrishnan et al., 2019; Dalca et al., 2018), with the package's layers."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmetareg._compat import vxm
from tfmetareg.errors import UserError
from tfmetareg.models.fields import integrate, resize
from tfmetareg.models.registry import RegistrationModel, register_model
from tfmetareg.models.unet import FEATURES, UNet, check_features, check_power


@register_model("vxm_dense")
def vxm_dense(
    image_shape: tuple[int, int],
    *,
    features: Sequence[Sequence[int]] = FEATURES,
    convolutions_per_level: int = 1,
    use_probs: bool = False,
    precision: str = "float32",
) -> RegistrationModel:
    """`vxm.networks.VxmDense` that predicts a displacement at full resolution.

    Args:
        image_shape: (height, width); the .h5 file names the next multiple of the stride.
        features: U-Net features, [encoder, decoder].
        convolutions_per_level: convolutions at each level of the encoder and of the decoder.
        use_probs: keeps the layer of log variances of a probabilistic VxmDense, untrained; the displacement
            is the mean.
        precision: "float32", "tensorfloat32", "mixed_bfloat16" (U-Net in bfloat16; weights, flow layer and
            warp in float32) or "auto".
    """
    network, unet = _network(
        image_shape, features, convolutions_per_level, use_probs, precision, int_steps=0, int_resolution=1
    )
    model = RegistrationModel(network, unet, unet.stride)
    model.halo = unet.halo
    return model


@register_model("vxm_diffeomorphic")
def vxm_diffeomorphic(
    image_shape: tuple[int, int],
    *,
    features: Sequence[Sequence[int]] = FEATURES,
    int_steps: int = 7,
    int_resolution: int = 2,
    svf_resolution: int = 1,
    convolutions_per_level: int = 1,
    use_probs: bool = False,
    precision: str = "float32",
) -> RegistrationModel:
    """`vxm.networks.VxmDense` that predicts a stationary velocity and integrates it: a field with an inverse.

    Args:
        image_shape, features, convolutions_per_level, use_probs, precision: as for `vxm_dense`.
        int_steps: number of squarings in the integration, at least 1.
        int_resolution: grid spacing of the integration in image pixels, a power of 2.
        svf_resolution: grid spacing of the predicted velocity in image pixels, a power of 2.

    Raises:
        UserError: an option is out of range.
    """
    if int_steps < 1:
        raise UserError(f"`int_steps` ({int_steps}) must be at least 1; vxm_dense does not integrate.")
    if svf_resolution > 1 and int_resolution == 1:
        raise UserError(
            f"`int_resolution` ({int_resolution}) must be above 1 where `svf_resolution` ({svf_resolution}) "
            "is: voxelmorph would leave the field coarse."
        )
    network, unet = _network(
        image_shape,
        features,
        convolutions_per_level,
        use_probs,
        precision,
        int_steps=int_steps,
        int_resolution=int_resolution,
        svf_resolution=svf_resolution,
    )

    def displacement(images: list[tf.Tensor], sign: float = 1.0) -> tf.Tensor:
        coarse = resize(sign * unet(images), svf_resolution, int_resolution)
        return resize(integrate(coarse, int_steps), int_resolution, 1)

    return RegistrationModel(
        network, displacement, unet.stride, inverse_field=lambda images: displacement(images, -1.0)
    )


def _network(
    image_shape: tuple[int, int],
    features: Sequence[Sequence[int]],
    convolutions_per_level: int,
    use_probs: bool,
    precision: str,
    svf_resolution: int = 1,
    **integration: int,
) -> tuple[tf.keras.Model, UNet]:
    """The package's network, which makes the layers and holds their weights, and the U-Net that uses them.

    The network is built at the next multiple of its stride.
    """
    encoder, _ = check_features(features, convolutions_per_level)
    stride = 2 ** (len(encoder) // convolutions_per_level)
    check_power("svf_resolution", svf_resolution, stride)
    check_power("int_resolution", integration["int_resolution"], stride)
    # AutoGraph would take seconds to convert its layers, and they need no conversion.
    network = tf.autograph.experimental.do_not_convert(vxm.networks.VxmDense)(
        tuple(-(-side // stride) * stride for side in image_shape),
        nb_unet_features=[list(part) for part in features],
        nb_unet_conv_per_level=convolutions_per_level,
        use_probs=use_probs,
        svf_resolution=svf_resolution,
        reg_field="warp",
        **integration,
    )
    if use_probs:  # Not learned here.
        network.get_layer("vxm_dense_log_sigma").trainable = False
    unet = UNet(
        "vxm_dense",
        features,
        precision=precision,
        convolutions_per_level=convolutions_per_level,
        resolution=svf_resolution,
        network=network,
    )
    return network, unet
