"""Smooth random deformations and the intensity changes that set two scans of the same tissue apart.

Convention: `warped(x) = moving(x + displacement(x))`. A pair made from a base image `I` is `fixed = I`,
`moving(y) = I(y + v(y))`, so that the point y of `moving` is exactly the point `y + v(y)` of `fixed`.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import ndimage, sparse

_LEAST_JACOBIAN = 0.2


def smooth_noise(shape: tuple[int, int], rng: np.random.Generator, *, smoothness_px: float) -> np.ndarray:
    """Gaussian random field of zero mean and unit standard deviation over the ensemble, float32 `shape`.

    A lattice of white noise under a separable Gaussian of standard deviation `smoothness_px`: two small
    matrix products in place of a convolution whose kernel may be wider than the image.
    """
    rows, columns = (_gaussian_basis(length, smoothness_px) for length in shape)
    return separable(rows, rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32), columns)


def separable(rows: sparse.csr_matrix, weights: np.ndarray, columns: sparse.csr_matrix) -> np.ndarray:
    """`rows @ weights @ columns.T`, float32 (height, width).

    Sparse products do not depend on the number of threads to the last bit, as dense ones do: the same seed
    gives the same bytes on every machine of a kind.
    """
    return np.ascontiguousarray((columns @ (rows @ weights).T).T)


def random_displacement(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    rms_px: float,
    smoothness_px: float,
    rotation_deg: float = 0.0,
    translation_px: float = 0.0,
) -> np.ndarray:
    """Smooth, fold-free displacement: a random rigid motion plus a Gaussian random field.

    Args:
        shape: (height, width).
        rng: source of randomness.
        rms_px: root mean square length of the smooth part, pixels. Less comes out where that much would fold.
        smoothness_px: standard deviation of the Gaussian that the smooth part is made of, pixels.
        rotation_deg: the rotation about the image's centre is uniform in [-rotation_deg, rotation_deg].
        translation_px: the translation is uniform over a disc of this radius.

    Returns:
        float32 (height, width, 2), pixels, last axis (row, column). The Jacobian determinant of
        x + displacement(x) is above 0 everywhere.
    """
    rigid = _rigid_displacement(shape, rng, rotation_deg, translation_px)
    smooth = np.stack([smooth_noise(shape, rng, smoothness_px=smoothness_px) for _ in range(2)], axis=-1)
    smooth *= rms_px / max(float(np.sqrt(np.mean(np.sum(smooth**2, axis=-1)))), 1e-6)
    return unfold(smooth, rigid)


def unfold(smooth: np.ndarray, rigid: np.ndarray) -> np.ndarray:
    """`rigid + a * smooth` with the largest a in 1, 0.9, 0.81, ... without a fold; (height, width, 2), px."""
    displacement = rigid + smooth
    while jacobian_determinant(displacement).min() < _LEAST_JACOBIAN:
        smooth = 0.9 * smooth
        displacement = rigid + smooth
    return displacement.astype(np.float32)


def jacobian_determinant(displacement: np.ndarray) -> np.ndarray:
    """Determinant of the Jacobian of x + displacement(x), (height, width); at or below 0 the map folds."""
    along_rows, along_columns = np.gradient(displacement, axis=(0, 1))
    row_term = 1.0 + along_rows[..., 0]
    column_term = 1.0 + along_columns[..., 1]
    return row_term * column_term - along_columns[..., 0] * along_rows[..., 1]


def warp(image: np.ndarray, displacement: np.ndarray, *, order: int = 3) -> np.ndarray:
    """`warped(x) = image(x + displacement(x))`.

    Args:
        image: float (height, width); beyond its border the nearest pixel is repeated.
        displacement: (height, width, 2), pixels, (row, column).
        order: 1 is bilinear, 3 cubic (sharper, may overshoot slightly).

    Returns:
        float32 (height, width).
    """
    rows, columns = np.indices(image.shape, dtype=np.float64)
    where = [rows + displacement[..., 0], columns + displacement[..., 1]]
    return ndimage.map_coordinates(image, where, order=order, mode="nearest", output=np.float32)


def carry_points(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """`points + displacement(points)`, read bilinearly; float32 (n, 2), pixels, (row, column)."""
    where = np.asarray(points, np.float64).reshape(-1, 2)
    moved = [
        ndimage.map_coordinates(displacement[..., axis], where.T, order=1, mode="nearest")
        for axis in range(2)
    ]
    return (where + np.stack(moved, axis=-1)).astype(np.float32)


def pull_points(points: np.ndarray, displacement: np.ndarray, *, iterations: int = 10) -> np.ndarray:
    """Inverse of `carry_points`: the points y with y + displacement(y) = points, by fixed-point iteration."""
    target = np.asarray(points, np.float32).reshape(-1, 2)
    found = target
    for _ in range(iterations):
        found = found + target - carry_points(found, displacement)
    return found


def perturb(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    noise: float = 0.03,
    speckle: float = 0.05,
    illumination: float = 0.1,
    illumination_px: float | None = None,
) -> np.ndarray:
    """What differs between two scans of the same tissue, apart from its position.

    Args:
        image: float (height, width) in [0, 1].
        rng: source of randomness; give each image its own draws.
        noise: standard deviation of additive white noise.
        speckle: relative standard deviation of multiplicative white noise.
        illumination: relative standard deviation of a smooth multiplicative gain.
        illumination_px: smoothness of that gain in pixels, by default a quarter of the width.

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
    # Nodes reach three deviations past the border: else the field would fade there.
    nodes = smoothness_px * np.arange(-3, math.ceil(length / smoothness_px) + 4)
    offset = (np.arange(length)[:, None] - nodes) / smoothness_px
    basis = np.where(np.abs(offset) < 5, np.exp(-0.5 * offset**2), 0.0)
    return sparse.csr_matrix((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))


def _rigid_displacement(
    shape: tuple[int, int], rng: np.random.Generator, rotation_deg: float, translation_px: float
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
