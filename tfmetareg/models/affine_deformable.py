"""An affine network followed by a deformable one (DLIR: de Vos et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp
from tfmetareg.models.convolution import leaky_relu
from tfmetareg.models.fields import affine, centred_grid
from tfmetareg.models.registry import Layers, RegistrationModel, register_model
from tfmetareg.models.unet import FEATURES, UNet, chain, convolve

# Affine parameter, in halves of the longer side, for a network output of 1.
_SCALE = 0.1


@register_model("affine_deformable")
def affine_deformable(
    image_shape: tuple[int, int],
    *,
    features: Sequence[Sequence[int]] = FEATURES,
    affine_features: Sequence[int] = (16, 32, 32, 32),
    precision: str = "float32",
) -> RegistrationModel:
    """An affine and a deformable stage, trained together by the loss of the final warped image.

    The displacement composes the affine map and the deformation, so that the moving image is interpolated
    only once.

    Args:
        image_shape: (height, width), any.
        features: U-Net features of the deformable stage, [encoder, decoder].
        affine_features: features of the affine stage's convolutions, each followed by max pooling.
        precision: as for `vxm_dense`; the affine stage is always computed in float32.

    Raises:
        UserError: the features make no network.
    """
    if not affine_features:
        raise UserError("`affine_features` ([]) must name at least one convolution.")
    unet = UNet("deformable", features, precision=precision)
    names = [f"affine_conv_{level}" for level in range(len(affine_features))]
    convolutions = chain(names, [2, *affine_features])
    dense = tf.keras.layers.Dense(
        6, name="affine_dense", kernel_initializer=tf.keras.initializers.RandomNormal(0.0, 1e-5)
    )
    with tf.name_scope(dense.name):
        dense.build((None, 3 * affine_features[-1]))

    def field(images: list[tf.Tensor]) -> tf.Tensor:
        moving, fixed = images
        values = tf.concat(images, -1)
        for layer in convolutions:
            values = tf.nn.max_pool2d(leaky_relu(convolve(layer, values)), 2, 2, "VALID")
        parameters = _SCALE * tf.reshape(dense(_moments(values)), [-1, 2, 3])
        still = tf.concat([tf.zeros_like(moving)] * 2, -1)
        aligned = warp(moving, affine(parameters, still))
        return affine(parameters, unet([aligned, fixed]))

    layers = [*convolutions, dense, *unet.layers]
    stride = max(unet.stride, 2 ** len(convolutions))
    return RegistrationModel(Layers("affine_deformable", layers), field, stride)


def _moments(features: tf.Tensor) -> tf.Tensor:
    """Mean of each feature over the image, and its means weighted by the distance in rows and columns.

    Distances are from the image's centre. A plain mean could not detect a rotation.

    Args:
        features: (batch, height, width, channels) float32.

    Returns:
        (batch, 3 * channels) float32.
    """
    _, places = centred_grid(features)
    weights = tf.concat([tf.ones_like(places[..., :1]), places], -1)
    pixels = tf.cast(tf.shape(features)[1] * tf.shape(features)[2], tf.float32)
    moments = tf.einsum("bhwc,hwm->bmc", features, weights) / pixels
    return tf.reshape(moments, [-1, 3 * features.shape[-1]])
