"""Displacements as maps between two images: they carry points there and back, and warp images.

A displacement u is float32 (height, width, 2), pixels, (row, column), on the fixed grid: the point p of the
fixed image lies at p + u(p) in the moving image, which may have another size. Between pixel centres u is
interpolated bilinearly; beyond the outermost centres it is constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
from scipy import ndimage

from tfmetareg.geometry.affine import compose, compose_displacement
from tfmetareg.geometry.frame import inside_image, pixel_points

INTERPOLATIONS = ("linear", "nearest")

# Largest error of an inverted point, in pixels of the moving image.
_TOLERANCE = 1e-3
# Newton's method: largest number of steps, and largest length of one in pixels.
_MAX_STEPS, _LONGEST_STEP = 25, 2.0
# Largest number of pixels to start from, nearest first; without folds the first one is enough.
_STARTS = 8
# Width in pixels of the border around the image that the search may enter.
_MARGIN = 0.5
# Least determinant of the Jacobian for a Newton step.
_FLAT = 1e-3


def carry_to_moving(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Carries points of the fixed image to the moving image: p + u(p).

    >>> import numpy as np
    >>> carry_to_moving(np.array([[3.0, 4.0]]), np.full((10, 10, 2), 0.5)).tolist()
    [[3.5, 4.5]]

    Args:
        points: (n, 2), pixels of the fixed grid, (row, column).
        displacement: (height, width, 2), at least 2 x 2 pixels.

    Returns:
        float32 (n, 2), pixels of the moving grid; NaN where the point or the displacement is NaN.
    """
    return _carry_with_slopes(_points(points), displacement)[0].astype(np.float32)


def carry_to_fixed(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Inverse of `carry_to_moving`: carries points of the moving image to the fixed image.

    >>> import numpy as np
    >>> carry_to_fixed(np.array([[3.5, 4.5], [50.0, 4.5]]), np.full((10, 10, 2), 0.5)).tolist()
    [[3.0, 4.0], [nan, nan]]

    Args:
        points: (n, 2), pixels of the moving grid, (row, column).
        displacement: (height, width, 2), at least 2 x 2 pixels, finite.

    Returns:
        float32 (n, 2), pixels of the fixed grid; `carry_to_moving` returns them to within a thousandth of a
        pixel. NaN where no point of the fixed image, which extends from -0.5 to size - 0.5, is carried to
        the target. Where the displacement folds and several are, one of them (points that a fold carries
        there from the very border may be missed).
    """
    from scipy.spatial import cKDTree  # Slow to import, and seldom needed.

    targets, displacement = _points(points), displacement.astype(np.float64)
    last = np.array(displacement.shape[:2]) - 1
    pixels = pixel_points(displacement.shape[:2]).reshape(-1, 2)
    tree = cKDTree(pixels + displacement.reshape(-1, 2), compact_nodes=False, balanced_tree=False)
    carried = np.full(targets.shape, np.nan)
    missing = np.flatnonzero(np.isfinite(targets).all(axis=1))
    for rank in range(1, _STARTS + 1):
        _, nearest = tree.query(targets[missing], [rank])
        starts = pixels[nearest[:, 0]]
        carried[missing] = _search(targets[missing], starts, displacement)
        # A failed search from a pixel at the border means that the point lies outside.
        within = ((starts > 0) & (starts < last)).all(axis=1)
        missing = missing[within & np.isnan(carried[missing, 0])]
    return carried.astype(np.float32)


def carry_both_ways(
    points: np.ndarray, points_in: str, displacement: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points in the fixed and in the moving image, (n, 2) each: those that are given, and where they lie.

    Args:
        points: (n, 2), (row, column), pixels.
        points_in: image that they are given in, "fixed" or "moving".
        displacement: (height, width, 2), pixels, on the fixed grid.
    """
    if points_in == "fixed":
        return points, carry_to_moving(points, displacement)
    return carry_to_fixed(points, displacement), points


def invert_displacement(displacement: np.ndarray, moving_shape: tuple[int, int]) -> np.ndarray:
    """The inverse displacement v on the moving grid: `carry_to_fixed` carries q to q + v(q).

    Args:
        displacement: (height, width, 2), at least 2 x 2 pixels, finite.
        moving_shape: (height, width) of the moving image.

    Returns:
        v, float32 (*moving_shape, 2), pixels, (row, column); NaN where `carry_to_fixed` returns NaN.
    """
    pixels = pixel_points(moving_shape, np.float32)
    return carry_to_fixed(pixels.reshape(-1, 2), displacement).reshape(pixels.shape) - pixels


def _points(points: np.ndarray) -> np.ndarray:
    return np.asarray(points, np.float64).reshape(-1, 2)


def _search(targets: np.ndarray, starts: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Newton's method for p + u(p) = target: float64 (n, 2), NaN where it does not end in the image."""
    edge = np.array(displacement.shape[:2]) - 0.5
    solutions = np.full(targets.shape, np.nan)
    points, searched = starts.astype(np.float64), np.arange(len(targets))
    for _ in range(_MAX_STEPS):
        carried, by_row, by_column = _carry_with_slopes(points, displacement)
        rest = targets[searched] - carried
        close = (np.abs(rest) <= _TOLERANCE).all(axis=1)
        solutions[searched[close]] = points[close]
        after = np.clip(points + _step(rest, by_row, by_column), -0.5 - _MARGIN, edge + _MARGIN)
        going = ~close & (after != points).any(axis=1)
        searched, points = searched[going], after[going]
    outside = (solutions < -0.5 - _TOLERANCE) | (solutions > edge + _TOLERANCE)
    solutions[outside.any(axis=1)] = np.nan
    return solutions


def _step(rest: np.ndarray, by_row: np.ndarray, by_column: np.ndarray) -> np.ndarray:
    """Newton's step (n, 2), shortened where it is long; the rest itself for a nearly singular Jacobian."""
    (a, c), (b, d), (row, column) = by_row.T, by_column.T, rest.T
    determinant = a * d - b * c
    flat = np.abs(determinant) < _FLAT
    step = np.stack([d * row - b * column, a * column - c * row], axis=-1)
    step = np.where(flat[:, None], rest, step / np.where(flat, 1.0, determinant)[:, None])
    length = np.hypot(step[:, 0], step[:, 1])[:, None]
    return step * (_LONGEST_STEP / np.maximum(length, _LONGEST_STEP))


def _carry_with_slopes(
    points: np.ndarray, displacement: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p + u(p) of points p, and its derivatives by p's row and by p's column: each (n, 2)."""
    height, width = displacement.shape[:2]
    last = np.array([height - 1, width - 1])
    place = np.clip(points, 0, last)
    first = np.minimum(np.nan_to_num(place).astype(np.intp), last - 1)
    down, right = (place - first).T[..., None]
    index = first[:, 0] * width + first[:, 1]
    top_left, top_right, bottom_left, bottom_right = (
        displacement.reshape(-1, 2).take(index + step, axis=0) for step in (0, 1, width, width + 1)
    )
    along_top, along_left = top_right - top_left, bottom_left - top_left
    twist = bottom_right - bottom_left - along_top
    by_row, by_column = along_left + right * twist, along_top + down * twist
    carried = points + top_left + down * by_row + right * along_top
    by_row, by_column = by_row * (points == place)[:, :1], by_column * (points == place)[:, 1:]
    return carried, by_row + (1.0, 0.0), by_column + (0.0, 1.0)


def to_image_grids(
    displacement: np.ndarray, shape: Sequence[int], to_frame: np.ndarray, from_frame: np.ndarray
) -> np.ndarray:
    """Converts a displacement between preprocessed images to one between the original images.

    Args:
        displacement: float32 (height, width, 2), pixels of the frame of both preprocessed images.
        shape: (height, width) of the original fixed image.
        to_frame: (2, 3), [A | t] with A diagonal; carries points of the fixed image to the frame.
        from_frame: (2, 3); carries points of the frame to the moving image, including its alignment.

    Returns:
        u, float32 (*shape, 2), pixels, (row, column): the point p of the fixed image lies at p + u(p) in the
        moving image. Outside the frame, the displacement is that of the frame's border.
    """
    scale = np.diag(to_frame)
    for axis in (0, 1):
        places = np.arange(shape[axis]) * scale[axis] + to_frame[axis, 2]
        displacement = _between(displacement, places, axis)
    return compose_displacement((displacement / scale).astype(np.float32), compose(from_frame, to_frame))


def warp_image(
    moving: np.ndarray,
    displacement: np.ndarray,
    fill: Optional[float] = None,
    interpolation: str = "linear",
) -> np.ndarray:
    """Warps an image: warped(x) = moving(x + displacement(x)), in the image's own dtype.

    >>> import numpy as np
    >>> image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> warp_image(image, np.ones((2, 3, 2)))
    array([[ 5,  6,  7],
           [ 9, 10, 11]], dtype=uint8)

    Args:
        moving: (height, width) or (height, width, channels), any real dtype.
        displacement: (rows, columns, 2), pixels, (row, column); its grid may have another size.
        fill: value where the moving image has no pixel; None continues its border outwards.
        interpolation: "linear", or "nearest" for label maps.

    Returns:
        (rows, columns) or (rows, columns, channels), of the dtype of `moving`.

    Raises:
        ValueError: any other `interpolation`.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}."
        )
    places = np.moveaxis(displacement, -1, 0) + np.indices(displacement.shape[:2], np.float32)
    channels = moving[..., None] if moving.ndim == 2 else moving
    if interpolation == "nearest":
        rows, columns = (
            np.clip(np.floor(place + 0.5), 0, side - 1).astype(np.intp)
            for place, side in zip(places, moving.shape)
        )
        warped = channels[rows, columns]
    else:
        warped = np.empty((*displacement.shape[:2], channels.shape[-1]), moving.dtype)
        precision = np.float32 if moving.dtype.itemsize <= 2 else np.float64
        for channel in range(channels.shape[-1]):
            values = ndimage.map_coordinates(
                channels[..., channel].astype(precision), places, precision, order=1, mode="nearest"
            )
            warped[..., channel] = values if moving.dtype.kind == "f" else np.rint(values)
    if fill is not None:
        warped[~covered_pixels(displacement, moving.shape)] = fill
    return warped[..., 0] if moving.ndim == 2 else warped


def warp_labels(moving: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Warps a label map by nearest neighbour; a pixel whose partner lies beyond the moving image gets 0.

    >>> import numpy as np
    >>> warp_labels(np.array([[7, -3], [7, 7]]), np.full((1, 2, 2), [0.0, 0.6]))
    array([[-3,  0]])

    Args:
        moving: (height, width), any dtype.
        displacement: (rows, columns, 2), pixels, (row, column); its grid may have another size.

    Returns:
        (rows, columns), of the dtype of `moving`.
    """
    return warp_image(moving, displacement, fill=0, interpolation="nearest")


def covered_pixels(displacement: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Which pixels x have x + displacement(x) on the moving image.

    Args:
        displacement: (rows, columns, 2), pixels, (row, column).
        shape: (height, width) of the moving image.

    Returns:
        bool (rows, columns).
    """
    return inside_image(displacement + pixel_points(displacement.shape[:2], np.float32), shape[:2])


def _between(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Values interpolated linearly along an axis; beyond the border, those of the border."""
    last = values.shape[axis] - 1
    places = np.clip(places, 0, last)
    before = np.minimum(places.astype(np.intp), max(last - 1, 0))
    share = (places - before).astype(np.float32)
    one, other = (np.take(values, indices, axis) for indices in (before, np.minimum(before + 1, last)))
    return one + share.reshape([-1 if at == axis else 1 for at in range(values.ndim)]) * (other - one)
