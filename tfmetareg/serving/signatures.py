"""Signatures of a served model, made of plain TensorFlow operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import tensorflow as tf

from tfmetareg._compat import tfa
from tfmetareg.geometry.warp import displace_points
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.serving.checks import checked_files, checked_pair, checked_points
from tfmetareg.serving.preprocessing_graph import DecodedImage, FramedImage, decode, encode, to_frame

_IMAGES = tf.TensorSpec((None, None, None, 1), tf.float32)
_POINTS = tf.TensorSpec((None, None, 2), tf.float32)
_FILES = tf.TensorSpec((None,), tf.string)

# Inputs of each signature, as published to clients.
INPUTS = {
    "serving_default": {"moving": _IMAGES, "fixed": _IMAGES},
    "register_points": {"moving": _IMAGES, "fixed": _IMAGES, "fixed_points": _POINTS},
    "register_png": {"moving": _FILES, "fixed": _FILES},
}

Signatures = dict[str, tf.types.experimental.GenericFunction]


def build_signatures(model: RegistrationModel, preprocessing: Optional[Preprocessing]) -> Signatures:
    """Builds the signatures by name. Their graphs have no static input shapes: see `checks.checked_images`.

    Args:
        model: network in float32, since it may run on any machine.
        preprocessing: preprocessing of encoded images; None leaves `register_png` out.

    Returns:
        serving_default: moving, fixed -> warped (batch, height, width, 1) float32 and displacement
        (batch, height, width, 2) float32 in pixels, (row, column), on the fixed grid.
        register_points: also takes fixed_points (batch, n, 2) float32, (row, column), pixels; also returns
        moving_points of the same shape, their positions in the moving images.
        register_png: PNG files of one or more pairs of any size -> warped_bytes, PNG files of moving warped
        onto fixed. By the suffix `_bytes` TF Serving knows that JSON needs base64.
    """

    def serving_default(moving: tf.Tensor, fixed: tf.Tensor) -> dict[str, tf.Tensor]:
        warped, displacement = model(list(checked_pair(moving, fixed)), training=False)
        return {"warped": warped, "displacement": displacement}

    def register_points(moving: tf.Tensor, fixed: tf.Tensor, fixed_points: tf.Tensor) -> dict[str, tf.Tensor]:
        moving, fixed = checked_pair(moving, fixed)
        points = checked_points(fixed_points, fixed)
        warped, displacement = model([moving, fixed], training=False)
        moving_points = displace_points(points, displacement)
        return {"warped": warped, "displacement": displacement, "moving_points": moving_points}

    functions: list[Callable] = [serving_default, register_points]
    if preprocessing:
        functions.append(_register_png(model, preprocessing))
    return {function.__name__: _traced(function) for function in functions}


def _register_png(model: RegistrationModel, preprocessing: Preprocessing) -> Callable:
    def register_png(moving: tf.Tensor, fixed: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(moving)
        files = checked_files(moving, fixed)
        warped = tf.map_fn(
            lambda pair: _register_files(model, preprocessing, *pair), files, fn_output_signature=tf.string
        )
        return {"warped_bytes": tf.reshape(warped, shape)}

    return register_png


def _traced(function: Callable) -> tf.types.experimental.GenericFunction:
    inputs = INPUTS[function.__name__]
    specs = [tf.TensorSpec(None, spec.dtype, name=name) for name, spec in inputs.items()]
    return tf.function(function, input_signature=specs, autograph=False)


def _register_files(
    model: RegistrationModel, preprocessing: Preprocessing, moving: tf.Tensor, fixed: tf.Tensor
) -> tf.Tensor:
    """Registers one pair of PNG files (string scalars); returns moving warped at its original values."""
    names = ("moving", "fixed")
    decoded = [decode(file, name) for file, name in zip((moving, fixed), names)]
    framed = [to_frame(image, preprocessing, name) for image, name in zip(decoded, names)]
    displacement = model([image.image for image in framed], training=False)[1]
    return encode(_warp_original(decoded[0], decoded[1], framed[0], framed[1], displacement))


def _warp_original(
    moving: DecodedImage,
    fixed: DecodedImage,
    moving_frame: FramedImage,
    fixed_frame: FramedImage,
    displacement: tf.Tensor,
) -> DecodedImage:
    """Warps the original moving image onto the original fixed grid: bilinear, border values extended."""
    height, width = tf.unstack(tf.shape(fixed.pixels)[:2])
    grid = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    points = tf.cast(tf.reshape(tf.stack(grid, axis=-1), [1, -1, 2]), tf.float32)
    in_frame = (points + 0.5) * fixed_frame.scale + fixed_frame.shift - 0.5
    carried = displace_points(in_frame, displacement)
    in_moving = (carried + 0.5 - moving_frame.shift) / moving_frame.scale - 0.5
    values = tfa.image.interpolate_bilinear(moving.pixels[None], in_moving, indexing="ij")
    channels = tf.shape(moving.pixels)[-1]
    return DecodedImage(tf.reshape(values, [height, width, channels]), moving.white)
