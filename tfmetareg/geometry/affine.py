"""Affine alignments as (2, 3) matrices: composed, inverted, applied to points, images and displacements."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def resample(image: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """The moving image on the fixed grid: bilinear, 0 where it has no pixel.

    Args:
        image: (height, width), real, or integers, which are then rounded to.
        alignment: (2, 3).

    Returns:
        (height, width), of the dtype of `image`.
    """
    matrix, shift = alignment[:, :2], alignment[:, 2]
    if image.dtype.kind not in "iu":
        return ndimage.affine_transform(image, matrix, shift, order=1, mode="grid-constant")
    return np.rint(resample(image.astype(np.float32), alignment)).astype(image.dtype)


def points_to_moving(points: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Where points of the fixed (or aligned) grid lie in the moving image as it was: float32 (n, 2)."""
    return (points @ alignment[:, :2].T + alignment[:, 2]).astype(np.float32)


def points_to_aligned(points: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Inverse of `points_to_moving`: where points of the moving image come to lie on the fixed grid."""
    inverse = np.linalg.inv(alignment[:, :2].astype(np.float64))
    return ((points - alignment[:, 2]) @ inverse.T).astype(np.float32)


def compose_displacement(displacement: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """The one displacement of an alignment and of what was found after it: A (p + u(p)) + t - p.

    Args:
        displacement: u, (height, width, 2) float32, pixels, (row, column): registers the aligned moving
            image to the fixed one.
        alignment: [A | t], (2, 3), as `align` gives it.

    Returns:
        (height, width, 2) float32 on the fixed grid: warps the moving image as it was, in one interpolation.
    """
    reached = np.stack(np.indices(displacement.shape[:2], np.float32), axis=-1) + displacement
    # A q + t - p is u(p) + (A - I) q + t for q = p + u(p): without an alignment exactly u.
    return (displacement + reached @ (alignment[:, :2] - np.eye(2)).T + alignment[:, 2]).astype(np.float32)


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The alignment, float64 (2, 3), that is `first` and then `second`."""
    matrix = second[:, :2].astype(np.float64)
    return np.column_stack([matrix @ first[:, :2], matrix @ first[:, 2] + second[:, 2]])


def invert(alignment: np.ndarray) -> np.ndarray:
    """The alignment, float64 (2, 3), that leads back."""
    matrix = np.linalg.inv(alignment[:, :2].astype(np.float64))
    return np.column_stack([matrix, -matrix @ alignment[:, 2]])
