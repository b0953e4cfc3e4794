"""The grid of an image: where its pixels lie in space. Origin, spacing and direction as in SimpleITK."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.files import StrPath
from tfmetareg.imaging.volumes import MM, parse_slice_reference

# A slice is perpendicular to the (x, y) plane if one of its axes, projected onto the plane, is shorter than
# this.
_PERPENDICULAR = 1e-3


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the pixels of a 2D image lie in space, with SimpleITK's conventions.

    >>> import numpy as np
    >>> grid = Grid((48, 40), spacing=(0.5, 2.0), origin=(10.0, 20.0))
    >>> grid.places(np.array([2, 4])).tolist()  # row 2, column 4
    [12.0, 24.0]
    >>> grid.points(np.array([12.0, 24.0])).tolist()
    [2.0, 4.0]

    Attributes:
        shape: (height, width) in pixels.
        spacing: pixel size (x, y), mm.
        origin: place (x, y) of the first pixel's centre, mm.
        direction: orthonormal 2 x 2 matrix, row by row. Its first column is the direction along a row of
            pixels, its second column the direction down a column of pixels.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)
    direction: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)

    def places(self, points: np.ndarray) -> np.ndarray:
        """Physical places of points.

        Args:
            points: (..., 2), (row, column), pixels.

        Returns:
            float64 (..., 2), (x, y), mm.
        """
        return np.asarray(points, np.float64)[..., ::-1] @ self._axes().T + self.origin

    def points(self, places: np.ndarray) -> np.ndarray:
        """Inverse of `places`: the points, (row, column) in pixels, at places (x, y) in mm."""
        return ((np.asarray(places, np.float64) - self.origin) @ np.linalg.inv(self._axes()).T)[..., ::-1]

    def image(self, values: np.ndarray) -> sitk.Image:
        """A SimpleITK image on this grid, of (height, width) numbers or (height, width, n) vectors."""
        image = sitk.GetImageFromArray(values, isVector=values.ndim > 2)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def _axes(self) -> np.ndarray:
        return np.reshape(self.direction, (2, 2)) * self.spacing


def read_grid(path: StrPath, shape: tuple[int, int]) -> Grid:
    """The grid of an image file, as SimpleITK reads it.

    A TIFF or JPEG file with a resolution has the pixel size of that resolution. The grid of a slice of an
    oblique volume is rotated into the (x, y) plane about its first pixel. A slice perpendicular to that
    plane (sagittal or coronal) gets the identity as its direction, as SimpleITK's own slices do.

    Args:
        path: an image, or a slice of a NIfTI volume: `volume.nii.gz#12`, see `volumes`.
        shape: (height, width) of the image.

    Returns:
        The grid; `Grid(shape)`, in which places are pixel indices, if SimpleITK cannot read the file's
        geometry, for instance that of a NumPy file.

    Raises:
        UserError: the text after `#` is not a slice.
    """
    reference = parse_slice_reference(Path(path))
    if reference is not None:
        return _slice_grid(reference.path, reference.slice_index, shape)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return Grid(shape)
    if reader.GetSize()[1::-1] != tuple(shape):
        return Grid(shape)
    dimensions = reader.GetDimension()
    axes = np.reshape(reader.GetDirection(), (dimensions, dimensions)) * reader.GetSpacing()
    return _in_plane(shape, axes, reader.GetOrigin())


def itk_grid(image: sitk.Image) -> Grid:
    """The grid of a 2D SimpleITK image.

    >>> itk_grid(sitk.Image(40, 48, sitk.sitkUInt8)).shape
    (48, 40)
    """
    return Grid(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def affine_grid(affine: np.ndarray, shape: tuple[int, int]) -> Grid:
    """The grid of a 2D image whose pixel in row j and column i is voxel (i, j) of a NIfTI file.

    >>> import numpy as np
    >>> affine_grid(np.diag([2.0, 3.0, 1.0, 1.0]), (48, 40)).spacing
    (2.0, 3.0)

    Args:
        affine: (4, 4), from voxels to RAS, mm.
        shape: (height, width) of the image.
    """
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    return _in_plane(shape, lps[:, :3], lps[:, 3])


def _slice_grid(path: Path, index: int, shape: tuple[int, int]) -> Grid:
    """The grid of an axial slice of a NIfTI volume: patient's right on the left, front at the top."""
    volume: Any = nibabel.load(path)  # Its type is that of any image, which has no affine.
    orientation = nibabel.io_orientation(volume.affine)
    affine = volume.affine @ nibabel.orientations.inv_ornt_aff(orientation, volume.shape[:3])
    affine[:3] *= MM.get(volume.header.get_xyzt_units()[0], 1.0)
    last = [shape[1] - 1, shape[0] - 1]
    lps = np.diag([-1.0, -1.0, 1.0])
    return _in_plane(shape, -lps @ affine[:3, :3], lps @ (affine @ [*last, index, 1])[:3])


def _in_plane(shape: tuple[int, int], axes: np.ndarray, origin: Sequence[float]) -> Grid:
    """The grid in the (x, y) plane of an image in space.

    Args:
        shape: (height, width).
        axes: (2 or 3, 2 or more); the first two columns are the steps along a row and down a column, mm.
        origin: place of the first pixel, mm.
    """
    spacing = np.linalg.norm(axes[:, :2], axis=0)
    u, stretch, v = np.linalg.svd((axes[:, :2] / spacing)[:2])
    direction = np.eye(2) if stretch.min() < _PERPENDICULAR else u @ v
    a, b, c, d = direction.ravel().tolist()
    height, width = shape
    return Grid(
        (height, width),
        (float(spacing[0]), float(spacing[1])),
        (float(origin[0]), float(origin[1])),
        (a, b, c, d),
    )
