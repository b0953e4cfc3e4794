"""Intensities of any image as float32 in [0, 1]."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from skimage import exposure

from tfmetareg._compat import tfa
from tfmetareg.errors import UserError
from tfmetareg.imaging.choices import PERCENTILES

# Grey levels of the histogram: below 4 HU each over the whole range of a CT.
LEVELS = 1024
CLAHE_CLIP_LIMIT = 0.01

PIXELS_PER_LEVEL = 512
BACKGROUND_SHARE_OF_RANGE = 0.03
MAX_BACKGROUND_OUTPUT = 0.1
_WHITE = {"b1": 1, "u1": 255, "u2": 65535}


def unit_range(image: np.ndarray) -> np.ndarray:
    """float64: the lowest value becomes 0, the highest 1."""
    # In float64: float32 holds neither a small contrast on a large offset nor large numbers.
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    return (image - low) / (high - low)


def as_it_is(image: np.ndarray, where: str) -> np.ndarray:
    """float64 in [0, 1] of an image whose type tells what black and white are.

    Raises:
        UserError: `where`, if it is neither of 8 or 16 bits without sign nor of floats in [0, 1].
    """
    kind = image.dtype.str[1:]
    if kind in _WHITE:
        return image / np.float64(_WHITE[kind])
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        return image.astype(np.float64)
    raise UserError(
        f"{where}: `--intensity none` keeps the values of 8 and 16 bit images and of floats in [0, 1], got "
        f"{image.dtype} from {image.min():g} to {image.max():g}; use `--intensity percentile`."
    )


def map_intensities(image: np.ndarray, intensity: str, percentiles: tuple[float, float]) -> np.ndarray:
    """float32 (height, width) in [0, 1] of one in [0, 1] that is not constant.

    Args:
        image: float32 (height, width).
        intensity: "equalize", "clahe", "percentile", or "none".
        percentiles: what lies outside is clipped; not used for "none".
    """
    if intensity == "none":
        return np.clip(image, 0, 1)
    scaled = scale(image, percentiles)
    if intensity == "percentile":
        return scaled
    if intensity == "clahe":
        return exposure.equalize_adapthist(scaled, clip_limit=CLAHE_CLIP_LIMIT).astype(np.float32)
    return equalize(scaled)


def scale(image: np.ndarray, percentiles: tuple[float, float] = PERCENTILES) -> np.ndarray:
    """float32 in [0, 1]: linear between two percentiles, clipped outside."""
    low, high = np.percentile(image, percentiles)
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
        image: float32 (height, width) from 0 to 1.

    Returns:
        float32 (height, width) in [0, 1].
    """
    unit = (image - BACKGROUND_SHARE_OF_RANGE) / (1 - BACKGROUND_SHARE_OF_RANGE)
    quantised = np.rint(np.clip(unit, 0, 1) * (LEVELS - 1)).astype(np.int32)
    # tfa's step, pixels // levels, is an integer: with few pixels to a level the cut-off fraction turns
    # much of a small body white. Repeating the image leaves its histogram alone and makes the step exact.
    repeats = -(-LEVELS * PIXELS_PER_LEVEL // image.size)
    with tf.device("CPU"):
        repeated = tf.tile(tf.constant(quantised)[..., None], [repeats, 1, 1])
        equalized = tfa.image.equalize(repeated, bins=LEVELS)[: len(image), :, 0].numpy()
    return _limit_background((equalized / (LEVELS - 1)).astype(np.float32), quantised > 0)


def _limit_background(equalized: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Stretches the body's greys down to a tenth where a large background has pushed them up."""
    darkest = equalized[body].min()
    if not MAX_BACKGROUND_OUTPUT < darkest < 1:
        return equalized
    stretch = (1 - MAX_BACKGROUND_OUTPUT) / (1 - darkest)
    return np.where(body, MAX_BACKGROUND_OUTPUT + (equalized - darkest) * stretch, 0).astype(np.float32)
