"""The grid of an image: where its pixels lie in space. Origin, spacing and direction as in SimpleITK."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the pixels of an image lie, with SimpleITK's conventions: a 2D image, or one slice in 3D space.

    >>> import numpy as np
    >>> grid = Grid((48, 40), spacing=(0.5, 2.0), origin=(10.0, 20.0))
    >>> grid.places(np.array([2, 4])).tolist()  # row 2, column 4
    [12.0, 24.0]
    >>> grid.points(np.array([12.0, 24.0])).tolist()
    [2.0, 4.0]

    Attributes:
        shape: (height, width) in pixels.
        spacing: pixel size (x, y), mm; of a slice in space also its thickness, (x, y, z).
        origin: place of the first pixel's centre, mm: 2 numbers, of a slice in space 3.
        direction: orthonormal matrix, row by row: 4 numbers, of a slice in space 9. Its first column is the
            direction along a row of pixels, its second column the direction down a column of pixels.
        is_known: whether the file's header tells where the pixels lie: places are then mm in the patient's
            or scanner's frame, LPS. Else they are what ITK takes for places where nothing is told: pixel
            indices, times a printing resolution if there is one.
    """

    shape: tuple[int, int]
    spacing: tuple[float, ...] = (1.0, 1.0)
    origin: tuple[float, ...] = (0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0)
    is_known: bool = dataclasses.field(default=False, compare=False)

    @property
    def dimension(self) -> int:
        """Dimension of the space that the pixels lie in: 2, or 3 for a slice in space."""
        return len(self.origin)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Size of a pixel, (row, column)."""
        return self.spacing[1], self.spacing[0]

    @property
    def affine(self) -> np.ndarray:
        """From (column, row, slice) to RAS, mm, as NIfTI has it: float64 (4, 4).

        >>> Grid((8, 9), (0.5, 2.0), (10.0, 20.0)).affine.tolist()[0]
        [-0.5, 0.0, 0.0, -10.0]
        """
        space = self.in_space()
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(space.direction, (3, 3)) * space.spacing
        affine[:3, 3] = space.origin
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine

    def places(self, points: np.ndarray) -> np.ndarray:
        """Physical places of points.

        Args:
            points: (..., 2), (row, column), pixels.

        Returns:
            float64 (..., 2 or 3), (x, y) or (x, y, z), mm.
        """
        return np.asarray(points, np.float64)[..., ::-1] @ self._steps().T + self.origin

    def points(self, places: np.ndarray) -> np.ndarray:
        """Inverse of `places`; the foot of the perpendicular for places beside the plane of a slice.

        Args:
            places: (..., 2 or 3), mm.

        Returns:
            float64 (..., 2), (row, column), pixels.
        """
        inverse = np.linalg.pinv(self._steps())
        return ((np.asarray(places, np.float64) - self.origin) @ inverse.T)[..., ::-1]

    def from_lps(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points at physical places, and how far those are from the plane of the pixels.

        >>> import numpy as np
        >>> axial = Grid((8, 8), (0.5, 0.5, 3.0), (0.0, 0.0, 10.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        >>> points, distance = axial.from_lps(np.array([[1.0, 2.0, 10.5]]))
        >>> points.tolist(), distance.tolist()
        ([[4.0, 2.0]], [0.5])

        Args:
            places: (n, 3), mm, LPS; (n, 2) on a 2D grid. Of places in space, a 2D grid takes (x, y).

        Returns:
            float64 (n, 2), (row, column), pixels, and float64 (n,), mm; 0 on a 2D grid.

        Raises:
            ValueError: `places` of two numbers on the grid of a slice in space.
        """
        places = np.asarray(places, np.float64)
        if places.shape[1] < self.dimension:
            raise ValueError(f"places must have {self.dimension} numbers each, got shape {places.shape}")
        places = places[:, : self.dimension]
        points = self.points(places)
        return points, np.linalg.norm(self.places(points) - places, axis=1) * (self.dimension == 3)

    def in_space(self) -> Grid:
        """The grid of a slice in space; a 2D grid is put into the plane z = 0.

        >>> Grid((8, 9), (0.5, 2.0), (10.0, 20.0)).in_space().origin
        (10.0, 20.0, 0.0)
        """
        if self.dimension == 3:
            return self
        direction = np.eye(3)
        direction[:2, :2] = np.reshape(self.direction, (2, 2))
        return dataclasses.replace(
            self,
            spacing=(*self.spacing, 1.0),
            origin=(*self.origin, 0.0),
            direction=tuple(direction.ravel().tolist()),
        )

    def image(self, values: np.ndarray, slices: int = 1) -> sitk.Image:
        """A SimpleITK image on this grid.

        Args:
            values: (height, width) numbers or (height, width, n) vectors.
            slices: how often the image of a slice in space holds it, one above the other.
        """
        is_vector = values.ndim > 2
        stacked = np.stack([values] * slices) if self.dimension == 3 else values
        image = sitk.GetImageFromArray(stacked, isVector=is_vector)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def _steps(self) -> np.ndarray:
        """(2 or 3, 2), mm: the steps to the next column and to the next row."""
        axes = np.reshape(self.direction, (self.dimension, self.dimension)) * self.spacing
        return axes[:, :2]


def in_one_space(one: Grid, other: Grid) -> tuple[Grid, Grid]:
    """Two grids in a space of one dimension: both 2D, or both as slices in space."""
    if one.dimension == other.dimension:
        return one, other
    return one.in_space(), other.in_space()


def itk_grid(image: sitk.Image) -> Grid:
    """The grid of a SimpleITK image, 2D or of one slice.

    Its place is known unless the image has the geometry that SimpleITK gives to images without one: spacing
    1, origin 0, no turn.

    >>> itk_grid(sitk.Image(40, 48, sitk.sitkUInt8)).shape
    (48, 40)

    Raises:
        ValueError: the image has more axes, or more than one slice.
    """
    size, dimension = image.GetSize(), image.GetDimension()
    axes = np.array([*in_plane_axes(size), *range(2, dimension)])
    axes[2:] = sorted({*range(dimension)} - {*axes[:2]})
    direction = np.reshape(image.GetDirection(), (dimension, dimension))
    width, height = (size[axis] for axis in axes[:2])
    grid = Grid(
        (height, width),
        tuple(image.GetSpacing()[axis] for axis in axes),
        image.GetOrigin(),
        tuple(direction[:, axes].ravel().tolist()),
    )
    none = Grid((height, width)) if dimension == 2 else Grid((height, width)).in_space()
    return dataclasses.replace(grid, is_known=grid != none)


def in_plane_axes(size: Sequence[int]) -> tuple[int, int]:
    """The axes along a row and down a column of an image that may be a volume of one slice.

    >>> in_plane_axes((40, 48)), in_plane_axes((40, 48, 1)), in_plane_axes((1, 40, 48))
    ((0, 1), (0, 1), (1, 2))

    Args:
        size: length of each axis.

    Raises:
        ValueError: there are more than three axes, or three longer than 1, or only one.
    """
    if len(size) not in (2, 3) or (len(size) == 3 and 1 not in size):
        raise ValueError(f"must be one 2D image, got an array of shape {tuple(size)}")
    across = len(size) - 1 - [*size][::-1].index(1) if len(size) == 3 else None
    first, second = (axis for axis in range(len(size)) if axis != across)
    return first, second


def affine_grid(affine: np.ndarray, shape: tuple[int, ...]) -> Grid:
    """The grid of a slice in space from a NIfTI affine; for axes not quite perpendicular, the nearest such.

    >>> import numpy as np
    >>> affine_grid(np.diag([2.0, 3.0, 5.0, 1.0]), (48, 40)).spacing
    (2.0, 3.0, 5.0)

    Args:
        affine: (4, 4), from (column, row, slice) to RAS, mm.
        shape: (height, width) of the image.

    Returns:
        The grid, with a place that is known, on which the image's centre lies where the affine has it.
    """
    steps, origin = np.split(np.diag([-1.0, -1.0, 1.0]) @ affine[:3], [3], axis=1)
    spacing = np.linalg.norm(steps, axis=0)
    u, _, v = np.linalg.svd(steps[:, :2] / spacing[:2], full_matrices=False)
    plane = u @ v
    normal = np.cross(*plane.T)
    height = normal @ steps[:, 2]
    thickness = abs(height) if height else 1.0
    rows, columns = shape
    centre = (np.array([columns, rows]) - 1) / 2
    first = origin[:, 0] + (steps[:, :2] - plane * spacing[:2]) @ centre
    direction = np.column_stack([plane, normal * (np.sign(height) or 1.0)])
    return Grid(
        (rows, columns),
        (float(spacing[0]), float(spacing[1]), float(thickness)),
        tuple(first.tolist()),
        tuple(direction.ravel().tolist()),
        is_known=True,
    )


def in_plane_grid(grid: Grid) -> Grid:
    """The 2D grid of a slice in an axial plane, without its height."""
    direction = np.reshape(grid.direction, (3, 3))[:2, :2]
    return dataclasses.replace(
        grid,
        spacing=grid.spacing[:2],
        origin=grid.origin[:2],
        direction=tuple(direction.ravel().tolist()),
    )
