"""What figures show of a registered pair; without matplotlib, so that another process can draw it."""

from __future__ import annotations

from typing import Literal, NamedTuple, Optional, Union

import numpy as np

from tfmetareg.report.contrast import Comparison, fitting_comparison

# Images are reduced to this many rows and columns at most: a figure shows no more.
_MOST_PIXELS = 900


class RegistrationPanels(NamedTuple):
    """A registered pair to draw; images are (rows, columns) or (rows, columns, 3) float32 in [0, 1].

    Attributes:
        moving, fixed: `shrunk`.
        before, warped: the moving image on the grid of `fixed`, before and after registration; 0 outside the
            moving image.
        moving_shape, fixed_shape: (height, width) of the images before they were shrunk, whose pixels are the
            unit of all that follows.
        displacement: (height, width, 2) pixels, (row, column): fixed point p is at p + u(p) in moving.
        determinant: (height - 1, width - 1) Jacobian determinant of p + u(p); 1 where areas are preserved.
        comparison: picture that compares two images; "auto" for what suits them, see `decided`.
        fixed_points, moving_points: (n, 2), (row, column), matched row by row; None without points.
        points_in: image in which the points were given, "fixed" or "moving".
        before_labels, warped_labels: (height, width) integers, labels of the moving image like `before` and
            `warped`; None without labels.
        fixed_labels: (height, width) integers, None without labels.
    """

    moving: np.ndarray
    fixed: np.ndarray
    before: np.ndarray
    warped: np.ndarray
    moving_shape: tuple[int, int]
    fixed_shape: tuple[int, int]
    displacement: np.ndarray
    determinant: np.ndarray
    comparison: Union[Comparison, Literal["auto"]] = "overlay"
    fixed_points: Optional[np.ndarray] = None
    moving_points: Optional[np.ndarray] = None
    points_in: str = "fixed"
    before_labels: Optional[np.ndarray] = None
    warped_labels: Optional[np.ndarray] = None
    fixed_labels: Optional[np.ndarray] = None

    def decided(self) -> RegistrationPanels:
        """The same, with the picture that suits the images in place of "auto"."""
        if self.comparison != "auto":
            return self
        return self._replace(comparison=fitting_comparison([(self.fixed, self.warped)]))


def shrink_factors(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of the blocks that `shrunk` takes the mean of."""
    factor = -(-max(shape[:2]) // _MOST_PIXELS)
    return min(factor, shape[0]), min(factor, shape[1])


def shrunk(image: np.ndarray) -> np.ndarray:
    """The image reduced by block means to at most 900 rows and columns: figures show no more.

    >>> shrunk(np.ones((1000, 1900, 3))).shape
    (333, 633, 3)

    Args:
        image: (height, width, ...).
    """
    return _blocks(image).mean(axis=(1, 3)) if max(shrink_factors(image.shape)) > 1 else image


def shrunk_to_maxima(image: np.ndarray) -> np.ndarray:
    """The image reduced by block maxima, so that rare values stay visible."""
    return _blocks(image).max(axis=(1, 3))


def _blocks(image: np.ndarray) -> np.ndarray:
    """The image as blocks, (rows, factor, columns, factor, ...); incomplete blocks at the end are dropped."""
    factors = shrink_factors(image.shape)
    rows, columns = (side // factor for side, factor in zip(image.shape, factors))
    cut = image[: rows * factors[0], : columns * factors[1]]
    return cut.reshape(rows, factors[0], columns, factors[1], *image.shape[2:])
