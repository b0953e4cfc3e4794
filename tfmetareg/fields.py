"""Displacements as maps between two images: points carried there, and back.

A displacement u is (height, width, 2) float32, pixels, (row, column), on the fixed grid: the point p of the
fixed image lies at p + u(p) in the moving one, which may have another size. Between the pixels' centres u is
read bilinearly, beyond the outermost of them it is continued as it is there.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

# A point is found where what lies there lands this near to it, in pixels of the moving image.
_TOLERANCE = 1e-3
_MAX_STEPS, _LONGEST_STEP = 25, 2.0
# Pixels to start from: the one that lands nearest serves, unless the displacement folds.
_STARTS = 8
# How far beyond the image's edge the search may pass.
_MARGIN = 0.5
# Below this determinant a Newton step leads anywhere.
_FLAT = 1e-3


def to_moving(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Where points of the fixed image lie in the moving one: p + u(p).

    Args:
        points: (n, 2), pixels of the fixed grid, (row, column).
        displacement: (height, width, 2), at least 2 x 2 pixels.

    Returns:
        float32 (n, 2), pixels of the moving grid; NaN where the point or the displacement is.
    """
    return _landing(_points(points), displacement)[0].astype(np.float32)


def to_fixed(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Inverse of `to_moving`: where points of the moving image lie in the fixed one.

    Args:
        points: (n, 2), pixels of the moving grid, (row, column).
        displacement: (height, width, 2), at least 2 x 2 pixels, finite.

    Returns:
        float32 (n, 2), pixels of the fixed grid: `to_moving` leads back to within a thousandth of a pixel.
        NaN where no point of the fixed image lands, whose pixels reach from -0.5 to size - 0.5. Where the
        displacement folds and several land, one of them (a fold at the very border may be missed).
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


def inverse(displacement: np.ndarray, moving_shape: tuple[int, int]) -> np.ndarray:
    """The displacement on the moving grid that leads back: q + v(q) is the point of the fixed image at q.

    Args:
        displacement: (height, width, 2), at least 2 x 2 pixels, finite.
        moving_shape: (height, width) of the moving image.

    Returns:
        v, float32 (*moving_shape, 2), pixels, (row, column); NaN where `to_fixed` finds nothing.
    """
    pixels = np.stack(np.indices(moving_shape, np.float32), axis=-1)
    return to_fixed(pixels.reshape(-1, 2), displacement).reshape(pixels.shape) - pixels


def continued(displacement: np.ndarray) -> np.ndarray:
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
