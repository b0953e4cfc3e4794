"""Values that travel between the parts."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Optional

import numpy as np


class PairBatch(NamedTuple):
    """A batch of image pairs, each (batch, height, width, 1): float32 in [0, 1], or uint8 as stored."""

    moving: Any
    fixed: Any


class Episode(NamedTuple):
    """One meta-step's data: moving and fixed (m, k, batch, height, width, 1).

    Row t holds the k batches of the t-th sampled task, in the order in which
    the inner loop takes them. float32 in [0, 1], or uint8 as stored: a quarter
    of the memory, for all the m k batches that wait while one is used.
    """

    moving: Any
    fixed: Any


class LossTerms(NamedTuple):
    """Eq. (1) and its terms, float32 scalars: total = similarity + lambda * smoothness."""

    total: Any
    similarity: Any
    smoothness: Any


def no_landmarks() -> np.ndarray:
    """Landmarks of a pair that has none: float32 (0, 2)."""
    return np.zeros((0, 2), np.float32)


def no_alignment() -> np.ndarray:
    """Alignment of a pair that needs none: the identity, float32 (2, 3)."""
    return np.eye(2, 3, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class ImagePair:
    """One pair of 2D images as a source delivers it, or as a record holds it.

    Attributes:
        key: name of the pair, unique within its task.
        subject: person or eye that the pair shows; splits never divide one.
        moving, fixed: (height, width). Raw intensities in any real dtype when
            delivered by a source; uint8 of one common shape in a record.
        moving_landmarks, fixed_landmarks: float32 (n, 2), (row, column) in
            pixels of the image beside them, row i matching row i; n may be 0.
        moving_spacing, fixed_spacing: pixel size (row, column) in mm, or None.
        moving_labels, fixed_labels: uint8 (height, width) of the image beside
            them, 0 for background, or None; both or neither.
        alignment: float32 (2, 3), [A | t] in pixels, (row, column): the point p
            of `fixed` lies about at A p + t in `moving`, which is as it was before.
        split: "train", "finetune" or "test" where the source prescribes it.
        task: task that the pair belongs to where the source prescribes it.
    """

    key: str
    subject: str
    moving: np.ndarray
    fixed: np.ndarray
    moving_landmarks: np.ndarray = dataclasses.field(default_factory=no_landmarks)
    fixed_landmarks: np.ndarray = dataclasses.field(default_factory=no_landmarks)
    moving_spacing: Optional[tuple[float, float]] = None
    fixed_spacing: Optional[tuple[float, float]] = None
    moving_labels: Optional[np.ndarray] = None
    fixed_labels: Optional[np.ndarray] = None
    alignment: np.ndarray = dataclasses.field(default_factory=no_alignment)
    split: Optional[str] = None
    task: Optional[str] = None
