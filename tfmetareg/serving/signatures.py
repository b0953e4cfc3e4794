"""The functions that a served model offers, on plain TensorFlow operations."""

from __future__ import annotations

from typing import Optional

import tensorflow as tf

from tfmetareg._compat import tfa
from tfmetareg.geometry.warp import displace_points
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.serving.checks import checked_files, checked_pair, checked_points
from tfmetareg.serving.preprocessing_graph import DecodedImage, FramedImage, decode, encode, place

_IMAGES = tf.TensorSpec((None, None, None, 1), tf.float32)
_POINTS = tf.TensorSpec((None, None, 2), tf.float32)
_FILES = tf.TensorSpec((None,), tf.string)

# What each signature takes, as it is published.
INPUTS = {
    "serving_default": {"moving": _IMAGES, "fixed": _IMAGES},
    "register_points": {"moving": _IMAGES, "fixed": _IMAGES, "fixed_points": _POINTS},
    "register_png": {"moving": _FILES, "fixed": _FILES},
}

Signatures = dict[str, tf.types.experimental.GenericFunction]


def build_signatures(model: RegistrationModel, preprocessing: Optional[Preprocessing]) -> Signatures:
    """The signatures by name; their graphs know no shape of an input, see `checks.checked_images`.

    Args:
        model: in float32, as it may run anywhere.
        preprocessing: what is done to an encoded image; None leaves `register_png` out.

    Returns:
        serving_default: moving, fixed -> warped (batch, height, width, 1) float32, displacement (batch,
        height, width, 2) float32, pixels, (row, column), on the fixed grid.
        register_points: also fixed_points (batch, n, 2) float32, (row, column), pixels -> the same, and
        moving_points of the same shape, where they lie in the moving images.
        register_png: PNG files of one pair or more, each of any size -> warped_bytes, PNG files: the pixels
        of moving on the grid of fixed. TF Serving tells by the ending `_bytes` that JSON needs base64.
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

    def register_png(moving: tf.Tensor, fixed: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(moving)
        files = checked_files(moving, fixed)
        warped = tf.map_fn(
            lambda pair: _register_files(model, preprocessing, *pair), files, fn_output_signature=tf.string
        )
        return {"warped_bytes": tf.reshape(warped, shape)}

    functions = [serving_default, register_points, *([register_png] if preprocessing else [])]
    return {function.__name__: _traced(function) for function in functions}


def _traced(function) -> tf.types.experimental.GenericFunction:
    inputs = INPUTS[function.__name__]
    specs = [tf.TensorSpec(None, spec.dtype, name=name) for name, spec in inputs.items()]
    return tf.function(function, input_signature=specs, autograph=False)


def _register_files(
    model: RegistrationModel, preprocessing: Preprocessing, moving: tf.Tensor, fixed: tf.Tensor
) -> tf.Tensor:
    """PNG files (string scalars) -> the warped one: preprocessed, registered, and warped as it came."""
    pictures = [decode(file, name) for file, name in ((moving, "moving"), (fixed, "fixed"))]
    placed = [place(picture, preprocessing, name) for picture, name in zip(pictures, ("moving", "fixed"))]
    displacement = model([image.image for image in placed], training=False)[1]
    return encode(_warp_as_it_came(pictures[0], pictures[1], placed[0], placed[1], displacement))


def _warp_as_it_came(
    moving: DecodedImage,
    fixed: DecodedImage,
    moving_place: FramedImage,
    fixed_place: FramedImage,
    displacement: tf.Tensor,
) -> DecodedImage:
    """The moving picture on the grid of the fixed one: bilinear, border values continued outwards."""
    height, width = tf.unstack(tf.shape(fixed.pixels)[:2])
    grid = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    points = tf.cast(tf.reshape(tf.stack(grid, axis=-1), [1, -1, 2]), tf.float32)
    in_frame = (points + 0.5) * fixed_place.scale + fixed_place.shift - 0.5
    carried = displace_points(in_frame, displacement)
    in_moving = (carried + 0.5 - moving_place.shift) / moving_place.scale - 0.5
    values = tfa.image.interpolate_bilinear(moving.pixels[None], in_moving, indexing="ij")
    channels = tf.shape(moving.pixels)[-1]
    return DecodedImage(tf.reshape(values, [height, width, channels]), moving.white)
