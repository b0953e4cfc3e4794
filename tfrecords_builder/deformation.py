"""Smooth random deformations, and the intensity differences between two scans of the same tissue.

Convention: `warped(x) = moving(x + displacement(x))`. A pair made from a base image `I` is `fixed = I`,
`moving(y) = I(y + v(y))`, so that the point y of `moving` is exactly the point `y + v(y)` of `fixed`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, sparse

_LEAST_JACOBIAN = 0.2


def smooth_noise(shape: Sequence[int], rng: np.random.Generator, *, smoothness_px: float) -> np.ndarray:
    """Gaussian random field with zero mean and unit standard deviation over the ensemble.

    White noise on a lattice, interpolated by a separable Gaussian: two small matrix products in place of a
    convolution with a kernel that may be wider than the image.

    >>> import numpy as np
    >>> smooth_noise((40, 50), np.random.default_rng(0), smoothness_px=5.0).shape
    (40, 50)

    Args:
        shape: (height, width).
        rng: source of randomness.
        smoothness_px: standard deviation of the Gaussian, pixels.

    Returns:
        float32 (height, width).
    """
    rows, columns = (_gaussian_basis(length, smoothness_px) for length in shape)
    return separable(rows, rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32), columns)


def separable(rows: sparse.csr_matrix, weights: np.ndarray, columns: sparse.csr_matrix) -> np.ndarray:
    """`rows @ weights @ columns.T`, float32 (height, width).

    The last bits of sparse products, unlike those of dense ones, do not depend on the number of threads: the
    same seed gives the same bytes on every machine of a kind.
    """
    return np.ascontiguousarray((columns @ (rows @ weights).T).T)


def random_displacement(
    shape: Sequence[int],
    rng: np.random.Generator,
    *,
    rms_px: float,
    smoothness_px: float,
    rotation_deg: float = 0.0,
    translation_px: float = 0.0,
) -> np.ndarray:
    """Smooth displacement without folds: a random rigid motion plus a Gaussian random field.

    >>> import numpy as np
    >>> v = random_displacement((40, 50), np.random.default_rng(0), rms_px=2.0, smoothness_px=8.0)
    >>> v.shape, bool(jacobian_determinant(v).min() > 0)
    ((40, 50, 2), True)

    Args:
        shape: (height, width).
        rng: source of randomness.
        rms_px: root mean square length of the smooth part, pixels; reduced where it would cause folds.
        smoothness_px: standard deviation of the Gaussian that smooths it, pixels.
        rotation_deg: largest rotation about the image's centre, degrees; uniform, either way.
        translation_px: largest translation, pixels; uniform over a disc of this radius.

    Returns:
        float32 (height, width, 2), pixels, last axis (row, column). The Jacobian determinant of
        x + displacement(x) is above 0 everywhere.
    """
    rigid = _rigid_displacement(shape, rng, rotation_deg, translation_px)
    smooth = np.stack([smooth_noise(shape, rng, smoothness_px=smoothness_px) for _ in range(2)], axis=-1)
    smooth *= rms_px / max(float(np.sqrt(np.mean(np.sum(smooth**2, axis=-1)))), 1e-6)
    return unfold(smooth, rigid)


def unfold(smooth: np.ndarray, rigid: np.ndarray) -> np.ndarray:
    """`rigid + a * smooth` with the largest a among 1, 0.9, 0.81, ... that has no folds.

    Args:
        smooth, rigid: displacements, (height, width, 2), pixels.

    Returns:
        float32 (height, width, 2), pixels.
    """
    displacement = rigid + smooth
    while jacobian_determinant(displacement).min() < _LEAST_JACOBIAN:
        smooth = 0.9 * smooth
        displacement = rigid + smooth
    return displacement.astype(np.float32)


def jacobian_determinant(displacement: np.ndarray) -> np.ndarray:
    """Determinant of the Jacobian of x + displacement(x); where it is 0 or below, the map folds.

    >>> import numpy as np
    >>> float(jacobian_determinant(np.zeros((4, 5, 2))).mean())
    1.0

    Args:
        displacement: (height, width, 2), pixels, (row, column).

    Returns:
        (height, width).
    """
    along_rows, along_columns = np.gradient(displacement, axis=(0, 1))
    row_term = 1.0 + along_rows[..., 0]
    column_term = 1.0 + along_columns[..., 1]
    return row_term * column_term - along_columns[..., 0] * along_rows[..., 1]


def warp(image: np.ndarray, displacement: np.ndarray, *, order: int = 3) -> np.ndarray:
    """`warped(x) = image(x + displacement(x))`.

    Args:
        image: float (height, width); continued beyond its border by the nearest pixel.
        displacement: (height, width, 2), pixels, (row, column).
        order: order of the interpolation; 1 is bilinear, 3 cubic (sharper, may overshoot slightly).

    Returns:
        float32 (height, width).
    """
    rows, columns = np.indices(image.shape, dtype=np.float64)
    where = [rows + displacement[..., 0], columns + displacement[..., 1]]
    return ndimage.map_coordinates(image, where, order=order, mode="nearest", output=np.float32)


def carry_points(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """`points + displacement(points)`, with the displacement interpolated bilinearly.

    >>> import numpy as np
    >>> carry_points(np.array([[3.0, 4.0]]), np.full((10, 10, 2), 0.5)).tolist()
    [[3.5, 4.5]]

    Args:
        points: (n, 2), pixels, (row, column).
        displacement: (height, width, 2), pixels, (row, column).

    Returns:
        float32 (n, 2), pixels, (row, column).
    """
    where = np.asarray(points, np.float64).reshape(-1, 2)
    moved = [
        ndimage.map_coordinates(displacement[..., axis], where.T, order=1, mode="nearest")
        for axis in range(2)
    ]
    return (where + np.stack(moved, axis=-1)).astype(np.float32)


def pull_points(points: np.ndarray, displacement: np.ndarray, *, iterations: int = 10) -> np.ndarray:
    """Inverse of `carry_points`: the points y with y + displacement(y) = points, by fixed-point iteration."""
    target = np.asarray(points, np.float32).reshape(-1, 2)
    pulled = target
    for _ in range(iterations):
        pulled = pulled + target - carry_points(pulled, displacement)
    return pulled


def perturb(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = 0.03,
    speckle: float = 0.05,
    illumination: float = 0.1,
    illumination_px: float | None = None,
) -> np.ndarray:
    """Adds the noise and the illumination that differ between two scans of the same tissue.

    Args:
        image: float (height, width) in [0, 1].
        rng: source of randomness.
        noise: standard deviation of additive white noise.
        speckle: relative standard deviation of multiplicative white noise.
        illumination: relative standard deviation of a smooth multiplicative gain.
        illumination_px: smoothness of that gain, pixels; by default a quarter of the width.

    Returns:
        float32 (height, width), clipped to [0, 1].
    """
    smoothness = illumination_px or image.shape[1] / 4
    gain = np.exp(illumination * smooth_noise(image.shape, rng, smoothness_px=smoothness))
    grain = 1.0 + speckle * rng.standard_normal(image.shape, np.float32)
    lit = image * gain * grain + noise * rng.standard_normal(image.shape, np.float32)
    return np.clip(lit, 0.0, 1.0).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _gaussian_basis(length: int, smoothness_px: float) -> sparse.csr_matrix:
    """Gaussians at lattice nodes one standard deviation apart: float32 (length, nodes), rows of unit norm."""
    # The nodes reach three standard deviations beyond the border; otherwise the field would fade there.
    nodes = smoothness_px * np.arange(-3, math.ceil(length / smoothness_px) + 4)
    offset = (np.arange(length)[:, None] - nodes) / smoothness_px
    basis = np.where(np.abs(offset) < 5, np.exp(-0.5 * offset**2), 0.0)
    return sparse.csr_matrix((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))


def _rigid_displacement(
    shape: Sequence[int], rng: np.random.Generator, rotation_deg: float, translation_px: float
) -> np.ndarray:
    """Displacement (height, width, 2) of a random rotation about the centre and a random translation."""
    angle = math.radians(rotation_deg) * rng.uniform(-1, 1)
    heading, length = rng.uniform(0, 2 * math.pi), translation_px * math.sqrt(rng.uniform())
    rows, columns = np.indices(shape, dtype=np.float64)
    rows -= (shape[0] - 1) / 2
    columns -= (shape[1] - 1) / 2
    cosine, sine = math.cos(angle) - 1, math.sin(angle)
    along_rows = cosine * rows - sine * columns + length * math.sin(heading)
    along_columns = sine * rows + cosine * columns + length * math.cos(heading)
    return np.stack([along_rows, along_columns], axis=-1)
