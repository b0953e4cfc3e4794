"""Maps the intensities of any image to [0, 1]."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from skimage import exposure

from tfmetareg._compat import tfa
from tfmetareg.errors import UserError
from tfmetareg.imaging.choices import PERCENTILES

# Grey levels of the histogram: each is below 4 Hounsfield units of a CT's whole range.
LEVELS = 1024
CLAHE_CLIP_LIMIT = 0.01
# Least mean number of pixels per level when the histogram is equalised.
PIXELS_PER_LEVEL = 512
# Share of the intensity range, from the lowest value, that counts as background; the brightest grey that the
# background may push the body's darkest up to.
BACKGROUND_SHARE_OF_RANGE = 0.03
MAX_BACKGROUND_OUTPUT = 0.1
# White, by dtype.
_WHITE = {"b1": 1, "u1": 255, "u2": 65535}


def unit_range(image: np.ndarray) -> np.ndarray:
    """Scales linearly from the lowest value, 0, to the highest, 1.

    >>> import numpy as np
    >>> unit_range(np.array([[10, 20], [30, 50]])).tolist()
    [[0.0, 0.25], [0.5, 1.0]]

    Args:
        image: any shape and real dtype, not constant.

    Returns:
        float64, the same shape.
    """
    # float32 has too few digits for a small contrast on a large offset, and overflows for large numbers.
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    return (image - low) / (high - low)


def scale_by_dtype(image: np.ndarray, where: str) -> np.ndarray:
    """Maps the range of the dtype to [0, 1]; floats in [0, 1] stay as they are.

    >>> import numpy as np
    >>> scale_by_dtype(np.array([0, 51, 255], np.uint8), "image").tolist()
    [0.0, 0.2, 1.0]

    Args:
        image: bool, uint8, uint16, or floats in [0, 1].
        where: name of the image in the error.

    Returns:
        float64 in [0, 1].

    Raises:
        UserError: any other dtype or range.
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
    """Maps intensities by the chosen method.

    Args:
        image: float32 (height, width) in [0, 1], not constant.
        intensity: "equalize", "clahe", "percentile" or "none".
        percentiles: (low, high) that are scaled to 0 and 1; not used for "none".

    Returns:
        float32 (height, width) in [0, 1].
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
    """Scales linearly between two percentiles, clipped to [0, 1]; float32."""
    low, high = np.percentile(image, percentiles)
    if low == high:  # For instance a few bright spots on an empty background.
        low, high = image.min(), image.max()
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


# Without its graph, which takes seconds to make, and is made again for every size.
_equalize = tf.autograph.experimental.do_not_convert(tfa.image.equalize.python_function)


def equalize(image: np.ndarray) -> np.ndarray:
    """Equalises the histogram with `tfa.image.equalize`.

    The lowest 3 % of the intensity range count as background and become 0;
    otherwise faint noise around a body would take up half of the grey levels.
    A large background would also leave only the brightest grey levels to the
    body: the body's darkest grey level is therefore at most 0.1.

    Args:
        image: float32 (height, width) in [0, 1].

    Returns:
        float32 (height, width) in [0, 1].
    """
    unit = (image - BACKGROUND_SHARE_OF_RANGE) / (1 - BACKGROUND_SHARE_OF_RANGE)
    quantised = np.rint(np.clip(unit, 0, 1) * (LEVELS - 1)).astype(np.int32)
    # tfa rounds its step, pixels // levels, down: with few pixels per level that turns much of a small body
    # white. Repeating the image makes the step exact and does not change the shape of the histogram.
    repeats = -(-LEVELS * PIXELS_PER_LEVEL // image.size)
    with tf.device("CPU"):
        repeated = tf.tile(tf.constant(quantised)[..., None], [repeats, 1, 1])
        equalized = _equalize(repeated, bins=LEVELS)[: len(image), :, 0].numpy()
    return _limit_background((equalized / (LEVELS - 1)).astype(np.float32), quantised > 0)


def _limit_background(equalized: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Stretches the body's grey levels down to 0.1 where a large background has pushed them up."""
    darkest = equalized[body].min()
    if not MAX_BACKGROUND_OUTPUT < darkest < 1:
        return equalized
    stretch = (1 - MAX_BACKGROUND_OUTPUT) / (1 - darkest)
    return np.where(body, MAX_BACKGROUND_OUTPUT + (equalized - darkest) * stretch, 0).astype(np.float32)
