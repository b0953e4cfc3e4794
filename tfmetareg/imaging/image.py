"""An image: pixels with all channels, and the grid that tells where they lie."""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid

MIN_SIDE = 8
_COLOUR_SIZES = (3, 4)


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A 2D image.

    Attributes:
        pixels: (height, width) or (height, width, channels), any real dtype.
        grid: where the pixels lie; `Grid(shape)` if unknown.
        name: name in error messages: the image's path, or for instance "moving".
        spacing: pixel size (row, column) in mm of images that have one, else None.
        notes: what was done to read it that other programs do differently, a sentence each.
    """

    pixels: np.ndarray
    grid: Grid
    name: str = "image"
    spacing: Optional[tuple[float, float]] = None
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def grey(self, colour: str = "green") -> np.ndarray:
        """One channel, (height, width), in the image's dtype; see `read_image`.

        >>> import numpy as np
        >>> image = Image(np.arange(300, dtype=np.uint16).reshape(10, 10, 3), Grid((10, 10)))
        >>> image.grey()[0, :3]
        array([1, 4, 7], dtype=uint16)

        Args:
            colour: grey value of a colour image: "green" or "luminance".

        Raises:
            UserError: the image is not 2D, has fewer than 8 pixels a side, holds NaN or infinity, or is
                constant.
        """
        pixels = one_channel(self.pixels, colour)
        check_image(pixels, self.name)
        return pixels


def height_width(pixels: np.ndarray, name: str) -> tuple[int, int]:
    """(height, width) of an image with or without channels.

    Raises:
        UserError: the array has neither two nor three axes.
    """
    if pixels.ndim not in (2, 3):
        raise UserError(f"{name}: must be one 2D image, got an array of shape {pixels.shape}.")
    return pixels.shape[0], pixels.shape[1]


def check_image(image: np.ndarray, where: str) -> None:
    """Refuses an image that cannot be registered.

    Args:
        image: array of any shape and dtype.
        where: name of the image in the error.

    Raises:
        UserError: the image is not 2D or not of real numbers, has fewer than 8
            pixels a side, holds NaN or infinity, or is constant.
    """
    if image.ndim != 2:
        raise UserError(
            f"{where}: must be one 2D image, got an array of shape {image.shape}; "
            "cut slices first, or name one of a NIfTI volume, as in `volume.nii.gz#12`."
        )
    if image.dtype.kind not in "buif":
        raise UserError(f"{where}: intensities must be real numbers, got {image.dtype}; convert it.")
    if min(image.shape) < MIN_SIDE:
        raise UserError(
            f"{where}: each side must have at least {MIN_SIDE} pixels, got {image.shape}; remove it."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{where}: holds NaN or infinity; replace those pixels or remove the image.")
    if image.min() == image.max():
        raise UserError(f"{where}: constant image, every pixel is {image.flat[0]}; remove it.")


def one_channel(image: np.ndarray, colour: str) -> np.ndarray:
    """One channel, (height, width), of a grey or colour image; alpha is dropped.

    >>> import numpy as np
    >>> one_channel(np.arange(12).reshape(2, 2, 3), "green").tolist()
    [[1, 4], [7, 10]]

    Args:
        image: (height, width) or (height, width, 1 to 4); an array of any other shape is returned unchanged.
        colour: grey value of a colour image: "green" or "luminance".
    """
    if image.ndim != 3:
        return image
    channels = image.shape[-1]
    if channels in (1, 2):
        return image[..., 0]
    if channels not in _COLOUR_SIZES:
        return image
    if colour == "green":
        return image[..., 1]
    return image[..., :3].astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
