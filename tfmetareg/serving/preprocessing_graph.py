"""The graph twin of `imaging.preprocessing`: `prepare_image` as TensorFlow operations, for serving."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfmetareg.imaging.choices import COLOURS
from tfmetareg.imaging.image import MIN_SIDE
from tfmetareg.imaging.intensity import (
    BACKGROUND_SHARE_OF_RANGE,
    LEVELS,
    MAX_BACKGROUND_OUTPUT,
    PIXELS_PER_LEVEL,
)
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.serving.checks import passed

# A PNG header may claim any size, and decoding allocates that much memory first.
_MOST_PIXELS = 2**26
_MAGIC = b"\x89PNG\r\n\x1a\n"
_LUMINANCE = (0.299, 0.587, 0.114, 0.0)


class DecodedImage(NamedTuple):
    """A decoded PNG file.

    Attributes:
        pixels: (height, width, channels) float32, the stored values.
        white: float32 scalar, 255 or 65535: the largest value of the file's bit depth.
    """

    pixels: tf.Tensor
    white: tf.Tensor


class FramedImage(NamedTuple):
    """An image in the network's frame, and the mapping there.

    Attributes:
        image: (1, height, width, 1) float32 in [0, 1], of the records' size.
        scale, shift: (2,) float32, (row, column): point p of the file is at (p + 0.5) scale + shift - 0.5.
    """

    image: tf.Tensor
    scale: tf.Tensor
    shift: tf.Tensor


def unservable(preprocessing: Preprocessing) -> str:
    """The reason why the graph cannot preprocess PNG files like this; empty if it can."""
    if preprocessing.intensity == "clahe":
        return "the records' `--intensity clahe` has no graph operations here"
    if preprocessing.spacing is not None:
        return "the records' `--spacing` needs a pixel size, which a PNG file does not tell"
    return ""


def decode(file: tf.Tensor, name: str) -> DecodedImage:
    """Decodes a PNG file (string scalar) of 8 or 16 bits; `name` names the input in error messages."""
    header = tf.strings.substr(tf.strings.join([file, b"\0" * 26]), 0, 26)
    file = passed(
        file,
        tf.equal(tf.strings.substr(header, 0, 8), _MAGIC),
        f"`{name}` must be a PNG file: its bytes, not its path (in JSON, an object b64 with them in base64); "
        "got so many other bytes",
        tf.strings.length(file),
    )
    size = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)
    file = passed(
        file,
        tf.reduce_all(size > 0) & (tf.reduce_prod(tf.cast(size, tf.float32)) <= _MOST_PIXELS),
        f"`{name}` must have 1 to {_MOST_PIXELS} pixels: cut it or scale it down; got width, height",
        size,
    )
    is_16_bit = tf.equal(tf.strings.substr(header, 24, 1), b"\x10")
    # Decoding to 16 bits multiplies 8-bit values by 257.
    pixels = tf.cast(tf.io.decode_png(file, channels=0, dtype=tf.uint16, name=f"{name}_png"), tf.int32)
    pixels = tf.cast(pixels // tf.where(is_16_bit, 1, 257), tf.float32)
    size = tf.shape(pixels)[:2]
    pixels = passed(
        pixels,
        tf.reduce_all(size >= MIN_SIDE),
        f"`{name}` must have at least {MIN_SIDE} pixels a side; got height, width",
        size,
    )
    return DecodedImage(pixels, tf.where(is_16_bit, 65535.0, 255.0))


def encode(image: DecodedImage) -> tf.Tensor:
    """Encodes an image of 1 to 4 channels as a PNG file (string scalar), in its bit depth."""
    rounded = tf.round(image.pixels)
    return tf.cond(
        image.white > 255,
        lambda: tf.io.encode_png(tf.cast(rounded, tf.uint16)),
        lambda: tf.io.encode_png(tf.cast(rounded, tf.uint8)),
    )


def to_frame(decoded: DecodedImage, preprocessing: Preprocessing, name: str) -> FramedImage:
    """Preprocesses an image as `prepare_image` does; the results differ by at most one grey level of 255.

    Args:
        decoded: the image.
        preprocessing: preprocessing of the records; `align` is ignored.
        name: name of the input, for error messages.
    """
    pixels = decoded.pixels
    if preprocessing.intensity == "none" and preprocessing.colour == "luminance":
        pixels = passed(
            pixels,
            tf.shape(pixels)[-1] < 3,
            f"`{name}` must be grey, as its values are to be kept; got channels",
            tf.shape(pixels)[-1],
        )
    image = _one_channel(pixels, preprocessing.colour or COLOURS[0])
    low, high = tf.reduce_min(image), tf.reduce_max(image)
    image = passed(image, low < high, f"`{name}` must not be constant; every pixel is", low)
    if preprocessing.intensity == "none":
        low, high = tf.zeros(()), decoded.white
    # In float64, as in the builder: float32 loses a small 16-bit contrast on a large offset.
    low, high = tf.cast(low, tf.float64), tf.cast(high, tf.float64)
    unit = tf.cast((tf.cast(image, tf.float64) - low) / (high - low), tf.float32)
    content, scale, shift, first = _resample(unit, preprocessing, name)
    content = passed(
        content,
        tf.reduce_all(tf.shape(content) >= MIN_SIDE) & (tf.reduce_min(content) < tf.reduce_max(content)),
        f"`{name}` must not be constant where the network sees it, brought to its size by "
        f"`{preprocessing.fit}`; got height, width there",
        tf.shape(content),
    )
    greys = tf.round(255 * _map_intensities(content, preprocessing))
    frame = tf.constant(preprocessing.image_size)
    padded = tf.pad(greys, tf.stack([first, frame - first - tf.shape(content)], axis=1))
    image = tf.ensure_shape(padded, preprocessing.image_size)[None, ..., None]
    # Rounded to uint8 in between, as in records.
    return FramedImage(tf.image.convert_image_dtype(tf.cast(image, tf.uint8), tf.float32), scale, shift)


def _one_channel(pixels: tf.Tensor, colour: str) -> tf.Tensor:
    """(height, width, 1 to 4) -> (height, width): green or luminance of colour images; drops alpha."""
    is_colour = tf.shape(pixels)[-1] > 2
    if colour == "green":
        return tf.gather(pixels, tf.where(is_colour, 1, 0), axis=-1)
    shares = tf.where(is_colour, _LUMINANCE, (1.0, 0.0, 0.0, 0.0))
    return tf.linalg.matvec(pixels, shares[: tf.shape(pixels)[-1]])


def _resample(
    image: tf.Tensor, preprocessing: Preprocessing, name: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The part of an image inside the frame, unpadded; with scale, shift, and its first row and column."""
    size, frame = tf.shape(image), tf.constant(preprocessing.image_size)
    if preprocessing.fit == "resize":
        scale = tf.cast(tf.cast(frame, tf.float64) / tf.cast(size, tf.float64), tf.float32)
        shift = first = tf.zeros(2, tf.int32)
        covered = frame
    else:
        if preprocessing.fit == "pad":
            height, width = preprocessing.image_size
            image = passed(
                image,
                tf.reduce_all(size <= frame),
                f"`{name}` must have at most {height} x {width} pixels, the network's; got height, width",
                size,
            )
        scale = tf.ones(2)
        shift = (frame - size) // 2
        first = tf.maximum(0, shift)
        covered = tf.minimum(frame, shift + size) - first
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=image[None, ..., None],
        size=covered,
        scale=scale,
        translation=tf.cast(shift - first, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )
    return resampled[0, ..., 0], scale, tf.cast(shift, tf.float32), first


def _map_intensities(image: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Maps the intensities of a non-constant image (height, width) to [0, 1]."""
    if preprocessing.intensity == "none":
        return tf.clip_by_value(image, 0.0, 1.0)
    scaled = _scale(image, preprocessing.percentiles)
    return scaled if preprocessing.intensity == "percentile" else _equalize(scaled)


def _scale(image: tf.Tensor, percentiles: tuple[float, float]) -> tf.Tensor:
    """Scales the range between two percentiles linearly to [0, 1]; clips values outside."""
    values = tf.cast(tf.sort(tf.reshape(image, [-1])), tf.float64)
    last = tf.size(values) - 1
    place = tf.constant(percentiles, tf.float64) / 100 * tf.cast(last, tf.float64)
    before = tf.cast(tf.floor(place), tf.int32)
    below, above = tf.gather(values, before), tf.gather(values, tf.minimum(before + 1, last))
    limits = below + (place - tf.floor(place)) * (above - below)
    ends = tf.gather(values, tf.stack([0, last]))
    low, high = tf.unstack(tf.where(limits[0] < limits[1], limits, ends))
    unit = (image - tf.cast(low, tf.float32)) / tf.cast(high - low, tf.float32)
    return tf.clip_by_value(unit, 0.0, 1.0)


def _equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalises the histogram like `tfa.image.equalize`, with a black background."""
    unit = (image - BACKGROUND_SHARE_OF_RANGE) / (1 - BACKGROUND_SHARE_OF_RANGE)
    greys = tf.cast(tf.round(tf.clip_by_value(unit, 0.0, 1.0) * (LEVELS - 1)), tf.int32)
    # The builder repeats the image so that the step between levels is an exact integer; this counts the same.
    repeats = -(-LEVELS * PIXELS_PER_LEVEL // tf.size(greys))
    histogram = repeats * tf.math.bincount(tf.reshape(greys, [-1]), minlength=LEVELS)
    step = (tf.reduce_sum(histogram) - histogram[tf.reduce_max(greys)]) // (LEVELS - 1)
    table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.clip_by_value(table, 0, LEVELS - 1), tf.range(LEVELS))
    equalized = tf.cast(tf.gather(table, greys), tf.float32) / (LEVELS - 1)
    body = greys > 0
    darkest = tf.reduce_min(tf.where(body, equalized, 1.0))
    stretch = (1 - MAX_BACKGROUND_OUTPUT) / tf.where(darkest < 1, 1 - darkest, 1.0)
    stretched = tf.where(body, MAX_BACKGROUND_OUTPUT + (equalized - darkest) * stretch, 0.0)
    return tf.where((darkest > MAX_BACKGROUND_OUTPUT) & (darkest < 1), stretched, equalized)
