"""Building blocks of the phantoms: frame coordinates, solid noise, distances, partial volume."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from tfrecords_builder.deformation import separable

# Standard deviation, per axis, of a uniform cubic B-spline with white-noise coefficients, averaged over
# position.
_SPLINE_DEVIATION = 0.6923


def keyed_rng(seed: int, *key: str | int) -> np.random.Generator:
    """A random generator for a key, so that any subject, slice or pair can be made without the others.

    >>> draws = [int(keyed_rng(0, "brain", subject).integers(100)) for subject in ("a", "b", "a")]
    >>> draws[0] == draws[2] != draws[1]
    True

    Args:
        seed: seed of the data set, at least 0.
        key: parts of the key; ints at least 0.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def frame_coordinates(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (down, right) of the pixel centres, relative to the image's middle.

    >>> down, right = frame_coordinates((2, 4))
    >>> right[0].tolist()
    [-0.75, -0.25, 0.25, 0.75]

    Args:
        shape: (height, width).

    Returns:
        Two float32 (height, width), frames.
    """
    rows, columns = np.indices(shape, dtype=np.float32)
    frame = min(shape)
    return (rows - (shape[0] - 1) / 2) / frame, (columns - (shape[1] - 1) / 2) / frame


class SolidNoise:
    """Smooth random function of (z, down, right) with zero mean and about unit standard deviation.

    Cubic B-splines on a random lattice, periodic with a period of more than a frame. As all pixels of a slice
    have the same z, the lattice is first contracted to two dimensions: 16 instead of 64 taps per pixel.
    """

    def __init__(self, rng: np.random.Generator, scale: float):
        """Draws the lattice.

        Args:
            rng: source of randomness.
            scale: lattice spacing in frames; features are about 2.5 times as wide.
        """
        self._scale = scale
        self._nodes = max(8, int(np.ceil(1.6 / scale)))
        self._lattice = rng.standard_normal((self._nodes,) * 3).astype(np.float32)
        self._lattice /= _SPLINE_DEVIATION**3

    def __call__(self, z: float, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Values at height z and at (down, right), arrays of one shape; float32."""
        where = np.stack([down, right]) / self._scale
        return ndimage.map_coordinates(
            self._plane(z), where, order=3, mode="grid-wrap", prefilter=False, output=np.float32
        )

    def on_pixels(self, z: float, shape: Sequence[int], zoom: float = 1.0) -> np.ndarray:
        """Values at height z on the pixels of an image, their coordinates multiplied by `zoom`; fast."""
        step = zoom / (min(shape) * self._scale)
        rows, columns = (_spline_basis(length, step, self._nodes) for length in shape)
        return separable(rows, self._plane(z), columns)

    def _plane(self, z: float) -> np.ndarray:
        """Coefficients of the slice at height z, float32 (nodes, nodes)."""
        base = int(np.floor(z / self._scale))
        weights = _cubic_weights(z / self._scale - base).astype(np.float32)
        layers = self._lattice[np.arange(base - 1, base + 3) % self._nodes]
        return np.einsum("z,zrc->rc", weights, layers)


@functools.lru_cache(maxsize=64)
def _spline_basis(length: int, step: float, nodes: int) -> sparse.csr_matrix:
    """Periodic cubic B-splines at `length` positions centred on 0, `step` apart; float32 (length, nodes)."""
    where = (np.arange(length) - (length - 1) / 2) * step
    base = np.floor(where).astype(int)
    weights = _cubic_weights(where - base)
    basis = np.zeros((length, nodes), np.float32)
    for tap in range(4):
        np.add.at(basis, (np.arange(length), (base - 1 + tap) % nodes), weights[tap])
    return sparse.csr_matrix(basis)


def _cubic_weights(t: float | np.ndarray) -> np.ndarray:
    """The four weights of a uniform cubic B-spline at fraction t of an interval."""
    return np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6


def coverage(distance: np.ndarray, pixel: float) -> np.ndarray:
    """Share of each pixel inside a boundary.

    Args:
        distance: signed distance to the boundary, positive inside.
        pixel: size of a pixel, in the same unit.
    """
    return np.clip(0.5 + distance / pixel, 0.0, 1.0)


def ellipsoid(points: tuple, centre: tuple, axes: tuple) -> np.ndarray:
    """Approximate signed distance to an ellipsoid's surface, positive inside.

    Args:
        points: coordinates, one array or number per axis.
        centre: of the ellipsoid.
        axes: half axes.
    """
    radius = np.sqrt(sum(((p - c) / a) ** 2 for p, c, a in zip(points, centre, axes)))
    return (1.0 - radius) * min(axes)


def tube(points: tuple, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Signed distance to the surface of a tube around a polyline, positive inside.

    Args:
        points: coordinates, one array or number per axis.
        centres: (n, axes), nodes of the polyline.
        radii: (n,), radius at each node, linear in between.
    """
    inside: Any = -np.inf
    for start, end, first, last in zip(centres[:-1], centres[1:], radii[:-1], radii[1:]):
        along = end - start
        share = sum((p - s) * a for p, s, a in zip(points, start, along)) / float(along @ along)
        share = np.clip(share, 0.0, 1.0)
        squared = sum((p - s - share * a) ** 2 for p, s, a in zip(points, start, along))
        inside = np.maximum(inside, first + share * (last - first) - np.sqrt(squared))
    return inside


def distance_to_zero(values: np.ndarray, pixel: float) -> np.ndarray:
    """Approximate distance, in frames, to the zeros of a smooth function given on pixels of size `pixel`."""
    gradient = np.hypot(*np.gradient(values)) / pixel
    # Near an extremum the gradient vanishes: a lower limit keeps the distance finite.
    return np.abs(values) / np.maximum(gradient, 0.3 * float(gradient.mean()) + 1e-6)
