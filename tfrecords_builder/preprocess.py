"""The paper's preprocessing: one size, equalised histogram, intensities in [0, 1]."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfmetareg._compat import tfa
from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair
from tfrecords_builder.images import check_image
from tfrecords_builder.tables import check_inside

# Raised whenever the same input gives other records, so that old and new ones are never mixed.
VERSION = 1

# Grey levels of the histogram: below 4 HU each over the whole range of a CT.
_LEVELS = 1024
_PIXELS_PER_LEVEL = 512
_CLIPPED_PERCENT = 0.1
_BACKGROUND_SHARE_OF_RANGE = 0.03
_MAX_BACKGROUND_OUTPUT = 0.1


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to each image.

    Attributes:
        image_size: (height, width) of the records.
        equalize: whether the histogram is equalised.
        colour: what stands for a colour image when it is read.
    """

    image_size: tuple[int, int] = (400, 400)
    equalize: bool = True
    colour: str = "green"

    def describe(self) -> dict[str, Any]:
        """What the manifest tells about it."""
        return {
            "version": VERSION,
            "resize": "bilinear, antialiased, half-pixel centres",
            "intensity": "histogram equalisation" if self.equalize else "percentile scaling",
            "clipped_percent": _CLIPPED_PERCENT,
            "equalize_levels": _LEVELS if self.equalize else None,
            "colour": self.colour,
        }


def prepare_pair(pair: ImagePair, preprocessing: Preprocessing) -> ImagePair:
    """Brings both images of a pair to the records' size and intensities.

    Images of different size are each resampled to the target size; landmarks
    and spacing follow the resampling of their own image.

    Args:
        pair: raw images (height, width), any real dtype.
        preprocessing: what to do.

    Returns:
        The pair with uint8 images of `image_size`.

    Raises:
        UserError: an image that is not 2D, finite and of varying intensity,
            or landmarks outside their image or not equal in number.
    """
    check_pair(pair)
    changed: dict[str, Any] = {}
    for name in ("moving", "fixed"):
        image = getattr(pair, name)
        spacing = getattr(pair, f"{name}_spacing")
        changed[name] = prepare_image(image, preprocessing, f"pair {pair.key}, {name} image")
        changed[f"{name}_landmarks"] = resize_points(
            getattr(pair, f"{name}_landmarks"), image.shape, preprocessing.image_size
        )
        if spacing is not None:
            changed[f"{name}_spacing"] = resize_spacing(spacing, image.shape, preprocessing.image_size)
    return dataclasses.replace(pair, **changed)


def check_pair(pair: ImagePair) -> None:
    """Refuses a pair that cannot become a record.

    Raises:
        UserError: which pair, and what is wrong with it.
    """
    for name in ("moving", "fixed"):
        check_image(getattr(pair, name), f"pair {pair.key}, {name} image")
        check_inside(
            getattr(pair, f"{name}_landmarks"),
            getattr(pair, name).shape,
            f"pair {pair.key}, {name} landmarks",
        )
    if len(pair.moving_landmarks) != len(pair.fixed_landmarks):
        raise UserError(
            f"pair {pair.key}: {len(pair.moving_landmarks)} moving and {len(pair.fixed_landmarks)} fixed "
            "landmarks; row i of one must match row i of the other."
        )


def prepare_image(image: np.ndarray, preprocessing: Preprocessing, where: str = "image") -> np.ndarray:
    """uint8 (height, width) of a raw image: resized, then equalised or scaled.

    Raises:
        UserError: `where`, if the image is constant once it has been resized.
    """
    # To [0, 1] in float64 first: float32 holds neither a small contrast on a large offset nor large numbers.
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    resized = resize((image - low) / (high - low), preprocessing.image_size)
    check_image(resized, f"{where}, resized to {preprocessing.image_size}")
    unit = equalize(resized) if preprocessing.equalize else scale(resized)
    return np.rint(255 * unit).astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 `size` of a real (height, width): bilinear, antialiased, half-pixel centres."""
    with tf.device("CPU"):
        return tf.image.resize(image.astype(np.float32)[..., None], size, antialias=True).numpy()[..., 0]


def resize_points(points: np.ndarray, old: tuple[int, ...], new: tuple[int, int]) -> np.ndarray:
    """Where points (n, 2) of an image of shape `old` lie after `resize` to `new`."""
    scale_by = np.asarray(new) / np.asarray(old)
    return ((points + 0.5) * scale_by - 0.5).astype(np.float32)


def resize_spacing(
    spacing: tuple[float, float], old: tuple[int, ...], new: tuple[int, int]
) -> tuple[float, float]:
    """Pixel size (row, column) in mm after `resize` from shape `old` to `new`."""
    return spacing[0] * old[0] / new[0], spacing[1] * old[1] / new[1]


def scale(image: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]: linear between the 0.1 and 99.9 percentiles, clipped outside."""
    low, high = np.percentile(image, [_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT])
    if low == high:  # a few bright spots on nothing
        low, high = image.min(), image.max()
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def equalize(image: np.ndarray) -> np.ndarray:
    """Equalises the histogram with `tfa.image.equalize`.

    The lowest 3 % of the intensity range count as background and become 0:
    faint noise around a body would otherwise be spread over half of the greys.
    The background then counts as at most a tenth of the image, or a large one
    would leave the body only the brightest greys.

    Args:
        image: float32 (height, width), not constant.

    Returns:
        float32 (height, width) in [0, 1].
    """
    unit = (scale(image) - _BACKGROUND_SHARE_OF_RANGE) / (1 - _BACKGROUND_SHARE_OF_RANGE)
    quantised = np.rint(np.clip(unit, 0, 1) * (_LEVELS - 1)).astype(np.int32)
    # tfa's step, pixels // levels, is an integer: with few pixels to a level the cut-off fraction turns
    # much of a small body white. Repeating the image leaves its histogram alone and makes the step exact.
    repeats = -(-_LEVELS * _PIXELS_PER_LEVEL // image.size)
    with tf.device("CPU"):
        repeated = tf.tile(tf.constant(quantised)[..., None], [repeats, 1, 1])
        equalized = tfa.image.equalize(repeated, bins=_LEVELS)[: len(image), :, 0].numpy()
    return _limit_background((equalized / (_LEVELS - 1)).astype(np.float32), quantised > 0)


def _limit_background(equalized: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Stretches the body's greys down to a tenth where a large background has pushed them up."""
    darkest = equalized[body].min()
    if not _MAX_BACKGROUND_OUTPUT < darkest < 1:
        return equalized
    stretch = (1 - _MAX_BACKGROUND_OUTPUT) / (1 - darkest)
    return np.where(body, _MAX_BACKGROUND_OUTPUT + (equalized - darkest) * stretch, 0).astype(np.float32)
