"""Reads NumPy files, which hold pixels alone: nothing tells where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image, height_width


def read(path: Path) -> Image:
    """Reads an `.npy` file, (height, width) or (height, width, channels).

    Raises:
        UserError: the array has other axes.
        Exception: the file is no whole NumPy file.
    """
    pixels = np.load(path, allow_pickle=False)
    while pixels.ndim > 2 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return Image(pixels, Grid(height_width(pixels, str(path))), str(path))
