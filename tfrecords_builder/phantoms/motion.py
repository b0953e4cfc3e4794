"""Random motion between two images of one scene: a smooth field on several scales and a small affine map."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfrecords_builder.deformation import smooth_noise, unfold

# Largest standard deviation of a displacement relative to the smoothness of its field: more would fold.
_STEEPEST = 0.4
# Share of the tasks by their largest motion, and the limits of that motion as shares of the width.
_REACHES = ((0.10, 0.003, 0.02), (0.60, 0.02, 0.07), (0.30, 0.07, 0.15))


@dataclasses.dataclass(frozen=True)
class Motion:
    """How the scenes of a task move. Lengths as shares of the image's width.

    Attributes:
        reach: largest length of the smooth displacement in any pair.
        smoothness: standard deviation of the Gaussian that smooths the coarse field.
        fine: share of the displacement on a scale of a third of that.
        rotation_deg: largest rotation about the image's centre, degrees.
        scaling: largest relative change of size along each axis.
        shift: largest translation.
        identity: share of the pairs that do not move at all.
    """

    reach: float
    smoothness: float
    fine: float
    rotation_deg: float
    scaling: float
    shift: float
    identity: float


def random_motion(rng: np.random.Generator) -> Motion:
    """Draws how the scenes of a task move."""
    shares, lowest, highest = zip(*_REACHES)
    limits = int(rng.choice(len(_REACHES), p=shares))
    reach = float(np.exp(rng.uniform(math.log(lowest[limits]), math.log(highest[limits]))))
    # A field of this reach varies by about a third of it; where it is not much smoother, it folds.
    least = max(0.05, 0.33 * reach / _STEEPEST)
    affine = float(rng.choice([0.0, 1.0], p=[0.35, 0.65])) * min(1.0, reach / 0.04)
    return Motion(
        reach=reach,
        smoothness=float(np.exp(rng.uniform(math.log(least), math.log(0.3)))),
        fine=float(rng.choice([0.0, rng.uniform(0.05, 0.2)])),
        rotation_deg=4.0 * affine * float(rng.uniform()),
        scaling=0.04 * affine * float(rng.uniform()),
        shift=0.02 * affine * float(rng.uniform()),
        identity=0.04,
    )


def draw_displacement(motion: Motion, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draws the motion of one pair, without folds.

    >>> rng = np.random.default_rng(0)
    >>> draw_displacement(random_motion(rng), rng, (40, 50)).shape
    (40, 50, 2)

    Args:
        motion: of the task.
        rng: source of randomness.
        shape: (height, width).

    Returns:
        float32 (height, width, 2), pixels, (row, column); all 0 for a pair that does not move.
    """
    if rng.uniform() < motion.identity:
        return np.zeros((*shape, 2), np.float32)
    width = shape[1]
    smooth = _field(rng, shape, motion.smoothness * width)
    if motion.fine:
        smooth += motion.fine * _field(rng, shape, max(2.0, motion.smoothness * width / 3))
    longest = float(np.sqrt(np.max(np.sum(smooth**2, axis=-1))))
    smooth *= motion.reach * width * rng.uniform(0.5, 1.0) / longest
    return unfold(smooth, _affine(motion, rng, shape))


def _field(rng: np.random.Generator, shape: tuple[int, int], smoothness_px: float) -> np.ndarray:
    return np.stack([smooth_noise(shape, rng, smoothness_px=smoothness_px) for _ in range(2)], axis=-1)


def _affine(motion: Motion, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Displacement (height, width, 2) of a random rotation, scaling and translation, pixels."""
    angle = math.radians(motion.rotation_deg) * rng.uniform(-1, 1)
    scale = 1 + motion.scaling * rng.uniform(-1, 1, 2)
    shift = motion.shift * shape[1] * rng.uniform(-1, 1, 2)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = rotation * scale - np.eye(2)
    centred = np.moveaxis(np.indices(shape, dtype=np.float64), 0, -1) - (np.array(shape) - 1) / 2
    return centred @ matrix.T + shift
