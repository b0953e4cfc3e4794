"""How an image looks to the people who know it: colours as they are, other values stretched to grey."""

from __future__ import annotations

from typing import Optional

import numpy as np

from tfmetareg.imaging.choices import PERCENTILES

_WHITE = {"u1": 255, "u2": 65535}


def displayed(pixels: np.ndarray, range_of: Optional[np.ndarray] = None) -> np.ndarray:
    """An image in [0, 1], for the eye: not equalised, and in colour if it is.

    Colours (8 and 16 bit, and floats in [0, 1]) stay as they are; an alpha channel is left out. Other values
    are scaled linearly between two percentiles; of channels that are no colours, the first is shown.

    >>> displayed(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).shape
    (10, 10, 3)
    >>> grey = displayed(np.linspace(-1000, 1000, 10000).reshape(100, 100))
    >>> float(grey.min()), float(grey.max())
    (0.0, 1.0)

    Args:
        pixels: (height, width) or (height, width, channels), any real dtype, finite.
        range_of: an image of the same kind whose grey range is taken in place of its own, so that two
            versions of one image look alike.

    Returns:
        float32 (height, width), or (height, width, 3) for a colour image.
    """
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4) and (white := _white(pixels)):
        return np.clip(pixels[..., :3].astype(np.float32) / white, 0, 1)
    grey, reference = (_first_channel(each) for each in (pixels, pixels if range_of is None else range_of))
    low, high = np.percentile(reference, PERCENTILES).tolist()
    if low == high:  # For instance a few bright spots on an empty background.
        low, high = float(reference.min()), float(reference.max())
    return np.clip((grey.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)


def _white(pixels: np.ndarray) -> float:
    """The value of white; 0 for values that are no colours."""
    if pixels.dtype.kind == "f":
        return 1.0 if 0 <= pixels.min() and pixels.max() <= 1 else 0.0
    return _WHITE.get(pixels.dtype.str[1:], 0)


def _first_channel(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else pixels[..., 0]
