"""The graph twin of `imaging.preprocessing`: `prepare_image` as TensorFlow operations, for serving."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfmetareg.imaging.intensity import (
    BACKGROUND_SHARE_OF_RANGE,
    LEVELS,
    MAX_BACKGROUND_OUTPUT,
    PIXELS_PER_LEVEL,
)
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.read import MIN_SIDE
from tfmetareg.serving.checks import passed

# A PNG header may claim any size, and decoding allocates that much memory first.
_MOST_PIXELS = 2**26
_MAGIC = b"\x89PNG\r\n\x1a\n"
_LUMINANCE = (0.299, 0.587, 0.114, 0.0)


class DecodedImage(NamedTuple):
    """A decoded PNG file.

    Attributes:
        pixels: (height, width, channels) float32, the values as stored.
        white: float32 scalar, 255 or 65535: the file's largest value.
    """

    pixels: tf.Tensor
    white: tf.Tensor


class FramedImage(NamedTuple):
    """An image as the network sees it, and where it lies there.

    Attributes:
        image: (1, height, width, 1) float32 in [0, 1], of the records' size.
        scale, shift: (2,) float32; point p of the file lies at (p + 0.5) scale + shift - 0.5.
    """

    image: tf.Tensor
    scale: tf.Tensor
    shift: tf.Tensor


def unservable(preprocessing: Preprocessing) -> str:
    """Why no graph does this preprocessing to a PNG file; empty if one can."""
    if preprocessing.intensity == "clahe":
        return "the records' `--intensity clahe` has no graph operations here"
    if preprocessing.spacing is not None:
        return "the records' `--spacing` needs a pixel size, which a PNG file does not tell"
    return ""


def decode(file: tf.Tensor, name: str) -> DecodedImage:
    """The pixels of a PNG file (string scalar), in 8 or 16 bits as it came; `name` is that of the input."""
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
    # Decoded to 16 bits, a value of 8 becomes 257 times what it was.
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


def encode(picture: DecodedImage) -> tf.Tensor:
    """A PNG file (string scalar) with 8 or 16 bits; its channels may be 1 to 4."""
    rounded = tf.round(picture.pixels)
    return tf.cond(
        picture.white > 255,
        lambda: tf.io.encode_png(tf.cast(rounded, tf.uint16)),
        lambda: tf.io.encode_png(tf.cast(rounded, tf.uint8)),
    )


def place(picture: DecodedImage, preprocessing: Preprocessing, name: str) -> FramedImage:
    """What `prepare_image` makes of the picture, to one grey level of 255.

    Args:
        picture: decoded.
        preprocessing: of the records; `align` is left out.
        name: of the input.
    """
    pixels = picture.pixels
    if preprocessing.intensity == "none" and preprocessing.colour == "luminance":
        pixels = passed(
            pixels,
            tf.shape(pixels)[-1] < 3,
            f"`{name}` must be grey, as its values are to be kept; got channels",
            tf.shape(pixels)[-1],
        )
    image = _one_channel(pixels, preprocessing.colour)
    low, high = tf.reduce_min(image), tf.reduce_max(image)
    image = passed(image, low < high, f"`{name}` must not be constant; every pixel is", low)
    if preprocessing.intensity == "none":
        low, high = tf.zeros(()), picture.white
    # In float64, as in the builder: 16 bits on a large offset leave float32 little.
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
    # By way of uint8, since the records hold that.
    return FramedImage(tf.image.convert_image_dtype(tf.cast(image, tf.uint8), tf.float32), scale, shift)


def _one_channel(pixels: tf.Tensor, colour: str) -> tf.Tensor:
    """(height, width) of (height, width, 1 to 4); grey with alpha loses its alpha."""
    is_colour = tf.shape(pixels)[-1] > 2
    if colour == "green":
        return tf.gather(pixels, tf.where(is_colour, 1, 0), axis=-1)
    shares = tf.where(is_colour, _LUMINANCE, (1.0, 0.0, 0.0, 0.0))
    return tf.linalg.matvec(pixels, shares[: tf.shape(pixels)[-1]])


def _resample(
    image: tf.Tensor, preprocessing: Preprocessing, name: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """What of an image comes to lie in the frame, unpadded; its scale, shift, and first row and column."""
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
    """(height, width) in [0, 1] of one that is not constant."""
    if preprocessing.intensity == "none":
        return tf.clip_by_value(image, 0.0, 1.0)
    scaled = _scale(image, preprocessing.percentiles)
    return scaled if preprocessing.intensity == "percentile" else _equalize(scaled)


def _scale(image: tf.Tensor, percentiles: tuple[float, float]) -> tf.Tensor:
    """In [0, 1]: linear between two percentiles, clipped outside."""
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
    """Its histogram made even, after `tfa.image.equalize`; the background black."""
    unit = (image - BACKGROUND_SHARE_OF_RANGE) / (1 - BACKGROUND_SHARE_OF_RANGE)
    greys = tf.cast(tf.round(tf.clip_by_value(unit, 0.0, 1.0) * (LEVELS - 1)), tf.int32)
    # The builder repeats the image, so that the step between levels is an exact integer.
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
