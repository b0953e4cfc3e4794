"""Displacements as maps between two images: points carried there, and back.

A displacement u is (height, width, 2) float32, pixels, (row, column), on the fixed grid: the point p of the
fixed image lies at p + u(p) in the moving one, which may have another size. Between the pixels' centres u is
read bilinearly, beyond the outermost of them it is continued as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from tfmetareg.geometry.affine import compose, compose_displacement

# A point is found where what lies there lands this near to it, in pixels of the moving image.
_TOLERANCE = 1e-3
_MAX_STEPS, _LONGEST_STEP = 25, 2.0
# Pixels to start from: the one that lands nearest serves, unless the displacement folds.
_STARTS = 8
# How far beyond the image's edge the search may pass.
_MARGIN = 0.5
# Below this determinant a Newton step leads anywhere.
_FLAT = 1e-3


def carry_to_moving(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Where points of the fixed image lie in the moving one: p + u(p).

    Args:
        points: (n, 2), pixels of the fixed grid, (row, column).
        displacement: (height, width, 2), at least 2 x 2 pixels.

    Returns:
        float32 (n, 2), pixels of the moving grid; NaN where the point or the displacement is.
    """
    return _landing(_points(points), displacement)[0].astype(np.float32)


def carry_to_fixed(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Inverse of `carry_to_moving`: where points of the moving image lie in the fixed one.

    Args:
        points: (n, 2), pixels of the moving grid, (row, column).
        displacement: (height, width, 2), at least 2 x 2 pixels, finite.

    Returns:
        float32 (n, 2), pixels of the fixed grid: `carry_to_moving` leads back to within a thousandth of a
        pixel. NaN where no point of the fixed image lands, whose pixels reach from -0.5 to size - 0.5. Where
        the displacement folds and several land, one of them (a fold at the very border may be missed).
    """
    targets, displacement = _points(points), displacement.astype(np.float64)
    last = np.array(displacement.shape[:2]) - 1
    pixels = np.stack(np.indices(displacement.shape[:2]), axis=-1).reshape(-1, 2)
    tree = cKDTree(pixels + displacement.reshape(-1, 2), compact_nodes=False, balanced_tree=False)
    found = np.full(targets.shape, np.nan)
    missing = np.flatnonzero(np.isfinite(targets).all(axis=1))
    for rank in range(1, _STARTS + 1):
        _, nearest = tree.query(targets[missing], [rank])
        starts = pixels[nearest[:, 0]]
        found[missing] = _search(targets[missing], starts, displacement)
        # What starts at the border and is not found lies outside.
        within = ((starts > 0) & (starts < last)).all(axis=1)
        missing = missing[within & np.isnan(found[missing, 0])]
    return found.astype(np.float32)


def invert_displacement(displacement: np.ndarray, moving_shape: tuple[int, int]) -> np.ndarray:
    """The displacement on the moving grid that leads back: q + v(q) is the point of the fixed image at q.

    Args:
        displacement: (height, width, 2), at least 2 x 2 pixels, finite.
        moving_shape: (height, width) of the moving image.

    Returns:
        v, float32 (*moving_shape, 2), pixels, (row, column); NaN where `carry_to_fixed` finds nothing.
    """
    pixels = np.stack(np.indices(moving_shape, np.float32), axis=-1)
    return carry_to_fixed(pixels.reshape(-1, 2), displacement).reshape(pixels.shape) - pixels


def fill_gaps(displacement: np.ndarray) -> np.ndarray:
    """(height, width, 2) without NaN: each such pixel is displaced as the nearest one that is not."""
    holes = np.isnan(displacement).any(axis=-1)
    if holes.all():
        raise ValueError("displacement must have a pixel that is not NaN, got none")
    rows, columns = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    return displacement[rows, columns]


def _points(points: np.ndarray) -> np.ndarray:
    return np.asarray(points, np.float64).reshape(-1, 2)


def _search(targets: np.ndarray, starts: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Newton's method for p + u(p) = target: float64 (n, 2), NaN where it does not end in the image."""
    edge = np.array(displacement.shape[:2]) - 0.5
    found = np.full(targets.shape, np.nan)
    points, searched = starts.astype(np.float64), np.arange(len(targets))
    for _ in range(_MAX_STEPS):
        landed, by_row, by_column = _landing(points, displacement)
        rest = targets[searched] - landed
        close = (np.abs(rest) <= _TOLERANCE).all(axis=1)
        found[searched[close]] = points[close]
        after = np.clip(points + _step(rest, by_row, by_column), -0.5 - _MARGIN, edge + _MARGIN)
        going = ~close & (after != points).any(axis=1)
        searched, points = searched[going], after[going]
    outside = (found < -0.5 - _TOLERANCE) | (found > edge + _TOLERANCE)
    found[outside.any(axis=1)] = np.nan
    return found


def _step(rest: np.ndarray, by_row: np.ndarray, by_column: np.ndarray) -> np.ndarray:
    """Newton's step (n, 2), shortened where it is long; where the Jacobian is flat, the rest itself."""
    (a, c), (b, d), (row, column) = by_row.T, by_column.T, rest.T
    determinant = a * d - b * c
    flat = np.abs(determinant) < _FLAT
    step = np.stack([d * row - b * column, a * column - c * row], axis=-1)
    step = np.where(flat[:, None], rest, step / np.where(flat, 1.0, determinant)[:, None])
    length = np.hypot(step[:, 0], step[:, 1])[:, None]
    return step * (_LONGEST_STEP / np.maximum(length, _LONGEST_STEP))


def _landing(points: np.ndarray, displacement: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p + u(p) of points p, and how it changes with p's row and column: each (n, 2)."""
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
    landed = points + top_left + down * by_row + right * along_top
    by_row, by_column = by_row * (points == place)[:, :1], by_column * (points == place)[:, 1:]
    return landed, by_row + (1.0, 0.0), by_column + (0.0, 1.0)


def to_image_grids(
    displacement: np.ndarray, shape: Sequence[int], to_frame: np.ndarray, from_frame: np.ndarray
) -> np.ndarray:
    """The displacement between two images as they were, from the one between what the network saw of them.

    Args:
        displacement: float32 (height, width, 2), pixels of the frame that both images were brought to.
        shape: (height, width) of the fixed image.
        to_frame: (2, 3), [A | t] with A diagonal: where the fixed image's points lie in the frame.
        from_frame: (2, 3): where the frame's points lie in the moving image, its alignment included.

    Returns:
        float32 (*shape, 2), pixels, (row, column): the fixed image's point p lies at p + u(p) in the moving
        one. Beyond the frame the displacement of its border goes on.
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
    """moving(x + displacement(x)), in the image's own dtype.

    Args:
        moving: (height, width) or (height, width, channels), any real dtype.
        displacement: (rows, columns, 2), pixels, (row, column); the grid may be of another size.
        fill: value where the moving image has no pixel; None continues its border outwards.
        interpolation: "linear", or "nearest" for label maps.

    Returns:
        (rows, columns) or (rows, columns, channels), of the dtype of `moving`.

    Raises:
        ValueError: `interpolation` is something else.
    """
    orders = {"nearest": 0, "linear": 1}
    if interpolation not in orders:
        raise ValueError(f"`interpolation` must be one of {', '.join(orders)}, got {interpolation!r}.")
    precision = np.float32 if moving.dtype.itemsize <= 2 else np.float64
    places = np.moveaxis(displacement, -1, 0) + np.indices(displacement.shape[:2], np.float32)
    channels = moving[..., None] if moving.ndim == 2 else moving
    warped = np.empty((*displacement.shape[:2], channels.shape[-1]), moving.dtype)
    for channel in range(channels.shape[-1]):
        values = ndimage.map_coordinates(
            channels[..., channel].astype(precision),
            places,
            precision,
            order=orders[interpolation],
            mode="nearest",
        )
        warped[..., channel] = values if moving.dtype.kind == "f" else np.rint(values)
    if fill is not None:
        warped[~covered_pixels(displacement, moving.shape)] = fill
    return warped[..., 0] if moving.ndim == 2 else warped


def covered_pixels(displacement: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """bool (rows, columns): whether x + displacement(x) lies on a moving image of that shape."""
    places = displacement + np.stack(np.indices(displacement.shape[:2], np.float32), axis=-1)
    return ((places >= -0.5) & (places <= np.asarray(shape[:2]) - 0.5)).all(axis=-1)


def _between(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Values along an axis at places between them, linear; those of the border beyond it."""
    last = values.shape[axis] - 1
    places = np.clip(places, 0, last)
    before = np.minimum(places.astype(np.intp), max(last - 1, 0))
    share = (places - before).astype(np.float32)
    one, other = (np.take(values, indices, axis) for indices in (before, np.minimum(before + 1, last)))
    return one + share.reshape([-1 if at == axis else 1 for at in range(values.ndim)]) * (other - one)
