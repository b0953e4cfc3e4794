"""Refines an alignment: Gauss-Newton steps towards the best correlation of two maps of features.

Inverse compositional: the steps are of the fixed map, whose derivatives are computed once (Baker and
Matthews, 2004); the correlation ignores differences of scale between the maps (Evangelidis and Psarakis,
2008).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfmetareg.geometry.affine import compose, invert

# Least share of the fixed image that the moving image must cover.
_MIN_OVERLAP = 0.3
# Largest factor by which an alignment may stretch or shrink, in any direction.
_MAX_STRETCH = 1.5
# Where maps correlate less than this, steps are as for this: longer ones would leave the basin.
_MIN_CORRELATION = 0.25
# Largest length of a step, as a share of the height.
_LONGEST_STEP = 0.1


class Found(NamedTuple):
    """An alignment, float64 (2, 3), and how well the maps agree under it, at most 1."""

    agreement: float
    alignment: np.ndarray


def agreement_of(moving: np.ndarray, fixed: np.ndarray, alignment: np.ndarray) -> float:
    """Correlation of two maps of features where they overlap, times the square root of the overlap.

    >>> import numpy as np
    >>> features = np.random.default_rng(0).normal(size=(2, 40, 40))
    >>> round(agreement_of(features, features, np.eye(2, 3)), 6)
    1.0

    Args:
        moving, fixed: (features, height, width).
        alignment: (2, 3).

    Returns:
        At most 1; -1 for an overlap that is too small, an implausible alignment, and constant maps.
    """
    return _compare(moving, fixed, alignment)[0]


class Refinement:
    """The search for the alignment of two maps."""

    def __init__(self, moving: np.ndarray, fixed: np.ndarray, kind: str):
        """
        Args:
            moving, fixed: (features, height, width), float32.
            kind: "rigid" or "affine".
        """
        self._moving, self._fixed, self._kind = moving, fixed, kind
        height, width = fixed.shape[1:]
        self._centre = np.array([(height - 1) / 2, (width - 1) / 2])
        # The unit of length is half the height: a step then moves the border about as far, whichever
        # parameter it changes.
        self._unit = height / 2
        self._derivatives = self._of_parameters(*np.gradient(fixed, axis=(1, 2)))
        square = np.einsum("in,jn->ij", self._derivatives, self._derivatives).astype(np.float64)
        self._inverse = np.linalg.inv(square + np.diag(1e-3 * np.diag(square) + 1e-9))

    def agreement(self, alignment: np.ndarray) -> float:
        """`agreement_of` the maps."""
        return agreement_of(self._moving, self._fixed, alignment)

    def search(self, start: np.ndarray, steps: int, tolerance: float) -> Found:
        """Takes steps from an alignment.

        Args:
            start: (2, 3).
            steps: their number at most.
            tolerance: pixels; a step that moves no corner farther is the last.

        Returns:
            The best alignment on the way, `start` included.
        """
        alignment, best = np.asarray(start, np.float64), Found(-1.0, start)
        moved = np.inf
        for remaining in range(steps, -1, -1):
            agreement, difference = _compare(self._moving, self._fixed, alignment)
            if agreement > best.agreement:
                best = Found(agreement, alignment)
            if agreement <= -1 or not remaining or moved < tolerance:
                break
            step, moved = self._step(difference)
            alignment = compose(invert(step), alignment)
        return best

    def _of_parameters(self, down: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Derivatives of the fixed map by the parameters of a step: float32 (parameters, values).

        Args:
            down, right: derivatives by row and by column, (features, height, width).
        """
        height, width = self._fixed.shape[1:]
        rows = ((np.arange(height) - self._centre[0]) / self._unit)[:, None]
        columns = ((np.arange(width) - self._centre[1]) / self._unit)[None]
        if self._kind == "rigid":
            by = [right * rows - down * columns, down, right]
        else:
            by = [down * rows, down * columns, right * rows, right * columns, down, right]
        return np.float32(self._unit) * np.stack([each.ravel() for each in by]).astype(np.float32)

    def _step(self, difference: np.ndarray) -> tuple[np.ndarray, float]:
        """The step that brings the fixed map nearest to the moving one, and the farthest that it moves."""
        gain = self._inverse @ np.einsum("in,n->i", self._derivatives, difference).astype(np.float64)
        moved = self._moves(self._transform(gain))
        longest = _LONGEST_STEP * self._fixed.shape[1]
        if moved > longest:
            gain, moved = gain * (longest / moved), longest
        return self._transform(gain), moved

    def _transform(self, parameters: np.ndarray) -> np.ndarray:
        """The alignment, (2, 3), of the parameters of a step; its fixed point is the centre."""
        if self._kind == "rigid":
            cosine, sine = np.cos(parameters[0]), np.sin(parameters[0])
            matrix = np.array([[cosine, -sine], [sine, cosine]])
        else:
            matrix = np.eye(2) + parameters[:4].reshape(2, 2)
        shift = self._unit * parameters[-2:]
        return np.column_stack([matrix, self._centre - matrix @ self._centre + shift])

    def _moves(self, alignment: np.ndarray) -> float:
        """How far an alignment moves the corner that it moves farthest, in pixels."""
        height, width = self._fixed.shape[1:]
        corners = np.array([[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]])
        carried = corners @ alignment[:, :2].T + alignment[:, 2]
        return float(np.linalg.norm(carried - corners, axis=1).max())


def _compare(moving: np.ndarray, fixed: np.ndarray, alignment: np.ndarray) -> tuple[float, np.ndarray]:
    """The agreement of two maps, and how the moving one differs from the fixed one, on the scale of that.

    Returns:
        The agreement as of `agreement_of`; the difference, (values,), empty where the agreement is -1.
    """
    nothing = -1.0, np.zeros(0, np.float32)
    matrix, shift = alignment[:, :2], alignment[:, 2]
    stretches = np.linalg.svd(matrix, compute_uv=False)
    overlap = _overlap(fixed.shape[1:], alignment)
    count = overlap.sum()
    share = count / overlap.size
    if share < _MIN_OVERLAP or stretches[0] > _MAX_STRETCH or stretches[-1] < 1 / _MAX_STRETCH:
        return nothing
    carried = np.stack([ndimage.affine_transform(each, matrix, shift, order=1) for each in moving])
    first, second = (_centred(values, overlap, count) for values in (carried, fixed))
    norms = [np.sqrt(np.square(values).sum(dtype=np.float64)) for values in (first, second)]
    if not min(norms):
        return nothing
    correlation = (first * second).sum(dtype=np.float64) / (norms[0] * norms[1])
    scale = max(correlation, _MIN_CORRELATION) * norms[0] / norms[1]
    return float(correlation * np.sqrt(share)), (first / np.float32(scale) - second).ravel()


def _overlap(shape: tuple[int, ...], alignment: np.ndarray) -> np.ndarray:
    """Where an alignment has a pixel of the moving image: bool (height, width)."""
    inside = np.ones(shape, bool)
    for side, (by_row, by_column, shift) in zip(shape, alignment):
        places = (by_row * np.arange(shape[0]) + shift)[:, None] + by_column * np.arange(shape[1])
        inside &= (places >= 0) & (places <= side - 1)
    return inside


def _centred(values: np.ndarray, overlap: np.ndarray, count: int) -> np.ndarray:
    """The values less the mean of each feature over the overlap; 0 elsewhere."""
    values = values * overlap
    means = values.sum(axis=(1, 2), keepdims=True) / count
    return (values - means) * overlap
