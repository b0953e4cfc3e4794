"""Where the pixels of an image lie in space: origin, spacing and direction, as SimpleITK tells them."""

from __future__ import annotations

import dataclasses
import os
import re

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.files import StrPath

_SLICE = re.compile(r"(?P<volume>.+\.nii(?:\.gz)?)#(?P<index>\d+)(?:,\d+)?", re.IGNORECASE)


# A slice whose pixels' axes keep less than this of their length in the (x, y) plane stands upright on it.
_UPRIGHT = 1e-3


_MM = {"meter": 1000.0, "micron": 0.001}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the pixels of a 2D image lie, as SimpleITK tells it.

    Attributes:
        shape: (height, width) in pixels.
        spacing: pixel size (x, y), mm.
        origin: place (x, y) of the first pixel's centre, mm.
        direction: 2 x 2 by rows: the first column is the way along a row of pixels, the second down a column.
            Orthonormal.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)
    direction: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)

    def places(self, points: np.ndarray) -> np.ndarray:
        """Physical places of points: float64 (..., 2), (x, y) in mm, of (row, column) in pixels."""
        return np.asarray(points, np.float64)[..., ::-1] @ self._axes().T + self.origin

    def points(self, places: np.ndarray) -> np.ndarray:
        """Inverse of `places`."""
        return ((np.asarray(places, np.float64) - self.origin) @ np.linalg.inv(self._axes()).T)[..., ::-1]

    def image(self, values: np.ndarray) -> sitk.Image:
        """A SimpleITK image of (height, width) numbers or (height, width, n) vectors on this grid."""
        image = sitk.GetImageFromArray(values, isVector=values.ndim > 2)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def _axes(self) -> np.ndarray:
        return np.reshape(self.direction, (2, 2)) * self.spacing


def read_grid(path: StrPath, shape: tuple[int, int]) -> Grid:
    """The grid of an image file, as SimpleITK reads it.

    So pixels of a TIFF or JPEG file that tells a resolution have that size. The grid of a slice of an oblique
    volume is turned into the (x, y) plane, about its first pixel; a slice that stands upright on that plane
    (sagittal or coronal) has the identity for its direction, as SimpleITK's own slices have.

    Args:
        path: of an image, or a slice of a NIfTI volume, `volume.nii.gz#12`, as the builder shows it.
        shape: (height, width) of the image.

    Returns:
        The pixels' indices for their places (the `Grid` of a shape alone) where SimpleITK cannot read the
        file's geometry, as that of a NumPy file.
    """
    found = _SLICE.fullmatch(str(path))
    if found and not os.path.isfile(path):
        return _slice_grid(found["volume"], int(found["index"]), shape)
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
    """The grid of a 2D SimpleITK image."""
    return Grid(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def affine_grid(affine: np.ndarray, shape: tuple[int, int]) -> Grid:
    """The grid of an array whose voxel (i, j) is pixel (row j, column i), by a NIfTI affine (RAS, mm)."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    return _in_plane(shape, lps[:, :3], lps[:, 3])


def _slice_grid(volume: str, index: int, shape: tuple[int, int]) -> Grid:
    """The grid of an axial slice, patient's right on the left and front at the top, of a NIfTI volume."""
    header = nibabel.load(volume)
    turn = nibabel.io_orientation(header.affine)
    affine = header.affine @ nibabel.orientations.inv_ornt_aff(turn, header.shape[:3])
    affine[:3] *= _MM.get(header.header.get_xyzt_units()[0], 1.0)
    last = [shape[1] - 1, shape[0] - 1]
    lps = np.diag([-1.0, -1.0, 1.0])
    return _in_plane(shape, -lps @ affine[:3, :3], lps @ (affine @ [*last, index, 1])[:3])


def _in_plane(shape: tuple[int, int], axes: np.ndarray, origin: np.ndarray) -> Grid:
    """The grid of an image by its axes: the first columns of a matrix are those of its pixels, mm."""
    spacing = np.linalg.norm(axes[:, :2], axis=0)
    u, stretch, v = np.linalg.svd((axes[:, :2] / spacing)[:2])
    direction = np.eye(2) if stretch.min() < _UPRIGHT else u @ v
    return Grid(tuple(shape), _floats(spacing), _floats(origin[:2]), _floats(direction.ravel()))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
