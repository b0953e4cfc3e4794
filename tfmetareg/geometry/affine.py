"""Affine alignments, (2, 3) matrices [A | t]: compose them, invert them, apply them to points and images.

The point p of the fixed image lies at A p + t in the moving image; points are (row, column) in pixels.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tfmetareg.geometry.frame import pixel_points


def resample(image: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """The aligned moving image, on the fixed grid: bilinear, 0 where the moving image has no pixel.

    >>> import numpy as np
    >>> image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> resample(image, np.array([[1.0, 0, 0], [0, 1, 1]]))  # column c shows column c + 1
    array([[ 1,  2,  3,  0],
           [ 5,  6,  7,  0],
           [ 9, 10, 11,  0]], dtype=uint8)

    Args:
        image: (height, width), any real dtype; integers are rounded.
        alignment: (2, 3).

    Returns:
        (height, width), of the dtype of `image`.
    """
    matrix, shift = alignment[:, :2], alignment[:, 2]
    if image.dtype.kind not in "iu":
        return ndimage.affine_transform(image, matrix, shift, order=1, mode="grid-constant")
    return np.rint(resample(image.astype(np.float32), alignment)).astype(image.dtype)


def points_to_moving(points: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Carries points, (n, 2), of the fixed grid to the moving image: float32 (n, 2).

    >>> import numpy as np
    >>> points_to_moving(np.array([[2.0, 3.0]]), np.array([[1.0, 0, 5], [0, 1, -1]])).tolist()
    [[7.0, 2.0]]
    """
    return (points @ alignment[:, :2].T + alignment[:, 2]).astype(np.float32)


def points_to_aligned(points: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Inverse of `points_to_moving`: carries points of the moving image to the fixed grid."""
    inverse = np.linalg.inv(alignment[:, :2].astype(np.float64))
    return ((points - alignment[:, 2]) @ inverse.T).astype(np.float32)


def compose_displacement(displacement: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """The displacement of an alignment and a displacement after it: A (p + u(p)) + t - p.

    >>> import numpy as np
    >>> shift = np.array([[1.0, 0, 5], [0, 1, -1]])
    >>> compose_displacement(np.zeros((4, 4, 2), np.float32), shift)[0, 0].tolist()
    [5.0, -1.0]

    Args:
        displacement: u, float32 (height, width, 2), pixels, (row, column), which registers the aligned moving
            image to the fixed image.
        alignment: [A | t], (2, 3), as returned by `align`.

    Returns:
        float32 (height, width, 2) on the fixed grid; warps the unaligned moving image in one interpolation.
    """
    displaced = pixel_points(displacement.shape[:2], np.float32) + displacement
    # With q = p + u(p), A q + t - p equals u(p) + (A - I) q + t, which is exactly u for the identity.
    return (displacement + displaced @ (alignment[:, :2] - np.eye(2)).T + alignment[:, 2]).astype(np.float32)


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The alignment that applies `first`, then `second`: float64 (2, 3)."""
    matrix = second[:, :2].astype(np.float64)
    return np.column_stack([matrix @ first[:, :2], matrix @ first[:, 2] + second[:, 2]])


def invert(alignment: np.ndarray) -> np.ndarray:
    """The inverse alignment, float64 (2, 3).

    >>> import numpy as np
    >>> alignment = np.array([[0.0, -1, 5], [1, 0, -1]])
    >>> compose(invert(alignment), alignment).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    matrix = np.linalg.inv(alignment[:, :2].astype(np.float64))
    return np.column_stack([matrix, -matrix @ alignment[:, 2]])
