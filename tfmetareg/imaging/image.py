"""An image as the caller gives it: pixels with all channels, and their grid."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid, affine_grid, itk_grid, read_grid
from tfmetareg.imaging.read import check_image, is_nifti, one_channel, read_pixels, without_trailing_axes
from tfmetareg.imaging.volumes import MM, slice_spacing

# NumPy array, path, SimpleITK image or nibabel image.
ImageLike = Union[str, os.PathLike, np.ndarray, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A 2D image.

    Attributes:
        pixels: (height, width) or (height, width, channels), any real dtype.
        grid: where the pixels lie; `Grid(shape)` if unknown.
        name: name in error messages: the image's path, or for instance "moving".
        spacing: pixel size (row, column) in mm of images that have one, else None.
    """

    pixels: np.ndarray
    grid: Grid
    name: str = "image"
    spacing: Optional[tuple[float, float]] = None

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
        pixels = self.pixels if is_nifti(self.name) else one_channel(self.pixels, colour)
        check_image(pixels, self.name)
        return pixels


def open_image(source: ImageLike, name: str = "image") -> Image:
    """Opens an image of any supported kind.

    >>> import numpy as np
    >>> open_image(np.zeros((20, 30), np.uint8)).shape
    (20, 30)

    Args:
        source: path of any file that `read_image` reads, `volume.nii.gz#12` included; NumPy array
            (height, width) or (height, width, channels); 2D SimpleITK or nibabel image, with its grid.
        name: name in error messages of an image without a path.

    Raises:
        UserError: the file cannot be read, or the image is not 2D.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        pixels = read_pixels(path)
        grid = read_grid(path, _height_width(pixels, str(source)))
        return Image(pixels, grid, str(source), slice_spacing(path))
    if isinstance(source, sitk.Image):
        return _from_itk(source, name)
    if type(source).__module__.startswith("nibabel."):
        return _from_nibabel(source, name)
    if isinstance(source, np.ma.MaskedArray):
        raise UserError(f"{name}: must be a plain array, got a masked one; fill it first.")
    pixels = np.array(source)  # The caller may go on to change his.
    return Image(pixels, Grid(_height_width(pixels, name)), name)


def _from_itk(image: sitk.Image, name: str) -> Image:
    if image.GetDimension() == 3 and image.GetSize()[2] == 1:
        image = image[:, :, 0]
    if image.GetDimension() != 2:
        raise UserError(f"{name}: must be a 2D image, got {image.GetDimension()} axes; take a slice of it.")
    grid = itk_grid(image)
    return Image(sitk.GetArrayFromImage(image), grid, name, grid.spacing[::-1])


def _from_nibabel(image: Any, name: str) -> Image:
    voxels = without_trailing_axes(np.asarray(image.dataobj))
    if voxels.ndim != 2:
        raise UserError(f"{name}: must be a 2D image, got shape {voxels.shape}; take a slice of it.")
    units = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else "mm"
    scale = np.diag([*[MM.get(units, 1.0)] * 3, 1.0])
    grid = affine_grid(scale @ image.affine, (voxels.shape[1], voxels.shape[0]))
    return Image(voxels.T, grid, name, grid.spacing[::-1])


def _height_width(pixels: np.ndarray, name: str) -> tuple[int, int]:
    if pixels.ndim not in (2, 3):
        raise UserError(f"{name}: must be one 2D image, got an array of shape {pixels.shape}.")
    return pixels.shape[0], pixels.shape[1]
