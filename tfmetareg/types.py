"""Data types that several packages exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import numpy as np


class PairBatch(NamedTuple):
    """A batch of image pairs, each (batch, height, width, 1): float32 in [0, 1], or uint8 as stored."""

    moving: Any
    fixed: Any


class ContrastPairBatch(NamedTuple):
    """A `PairBatch` of images in different contrasts.

    `moving_like_fixed` is the moving image in the contrast of the fixed one. The network sees `moving` and
    `fixed`; the loss compares the warped `moving_like_fixed` with `fixed`. Pairs of one contrast have
    `moving` itself in its place.
    """

    moving: Any
    fixed: Any
    moving_like_fixed: Any


AnyPairBatch = Union[PairBatch, ContrastPairBatch]


class Episode(NamedTuple):
    """The data of one meta-step: moving and fixed, each (m, k, batch, height, width, 1).

    Row t holds the k batches of the t-th sampled task, in the order of the
    inner loop's steps. float32 in [0, 1], or uint8 as stored, which takes a
    quarter of the memory.
    """

    moving: Any
    fixed: Any

    def pairs(self, *where: Any) -> PairBatch:
        """The pairs of task t, `pairs(t)`, or of its inner step i, `pairs(t, i)`."""
        return PairBatch(*[images[where] for images in self])


class ContrastEpisode(NamedTuple):
    """An `Episode` of tasks of which some have images in different contrasts, see `ContrastPairBatch`."""

    moving: Any
    fixed: Any
    moving_like_fixed: Any

    def pairs(self, *where: Any) -> ContrastPairBatch:
        """The pairs of task t, `pairs(t)`, or of its inner step i, `pairs(t, i)`."""
        return ContrastPairBatch(*[images[where] for images in self])


AnyEpisode = Union[Episode, ContrastEpisode]


class LossTerms(NamedTuple):
    """Eq. (1) and its terms, float32 scalars: total = similarity + lambda * smoothness."""

    total: Any
    similarity: Any
    smoothness: Any


def no_landmarks() -> np.ndarray:
    """Landmarks of a pair without landmarks: float32 (0, 2)."""
    return np.zeros((0, 2), np.float32)


def no_alignment() -> np.ndarray:
    """Alignment of an unaligned pair: the identity, float32 (2, 3)."""
    return np.eye(2, 3, dtype=np.float32)


def is_aligned(alignment: np.ndarray) -> bool:
    """Whether an alignment is other than the identity, which `geometry.align` gives where it finds none.

    >>> is_aligned(no_alignment()), is_aligned(np.array([[1.0, 0, 3], [0, 1, 0]]))
    (False, True)
    """
    return not np.array_equal(alignment, no_alignment())


def nothing_found_line(names: Sequence[str], pairs: int, most: Optional[int] = None) -> str:
    """Says of how many pairs, and of which, the alignment found nothing.

    >>> nothing_found_line(["a:b", "c:d", "e:f"], 20, most=2)
    'alignment found nothing better than leaving the images as they are in 3 of 20 pairs: a:b, c:d and 1 more'

    Args:
        names: of those pairs.
        pairs: all that were aligned.
        most: names at most; None for all.
    """
    shown = names[:most]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (
        f"alignment found nothing better than leaving the images as they are in {len(names)} of {pairs} "
        f"pair{'s' * (pairs != 1)}: {', '.join(shown)}{more}"
    )


class Note(NamedTuple):
    """A sentence on what was done to read an image that other programs do differently."""

    image: str
    text: str


@dataclasses.dataclass(frozen=True)
class ImagePair:
    """One pair of 2D images, raw as a source gives it or preprocessed as in a record.

    >>> import numpy as np
    >>> pair = ImagePair("a:b", "eye1", np.zeros((8, 8)), np.ones((8, 8)))
    >>> pair.fixed_landmarks.shape, pair.split
    ((0, 2), None)

    Attributes:
        key: name of the pair, unique within its task.
        subject: person or eye that the pair shows; a subject is never in two splits.
        moving, fixed: (height, width). Raw intensities of any real dtype from
            a source; uint8 of one common shape in a record.
        moving_landmarks, fixed_landmarks: float32 (n, 2), (row, column) in
            pixels of their image; row i of one matches row i of the other. n may be 0.
        moving_spacing, fixed_spacing: pixel size (row, column) in mm, or None.
        moving_labels, fixed_labels: (height, width) of their image, 0 for background, or None. Integers from
            a source; in a record the uint8 codes of `imaging.labels.label_codes`, of both images or neither.
        label_values: int64 (n,), in a record the labels of the codes 1 to n; None where labels from 0 to 255
            are their own codes.
        moving_like_fixed: (height, width) of `moving`, the same content in the contrast of `fixed`, for the
            training loss to compare; None where moving and fixed have one contrast. dtype as `moving`.
        alignment: float32 (2, 3), [A | t], (row, column) in pixels: the point p of
            `fixed` lies at about A p + t in `moving`. `moving` itself is not aligned.
        split: "train", "finetune" or "test" if the source prescribes it, else None.
        task: name of the task if the source prescribes it, else None.
        notes: what was done to read the images that other programs do differently.
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
    label_values: Optional[np.ndarray] = None
    moving_like_fixed: Optional[np.ndarray] = None
    alignment: np.ndarray = dataclasses.field(default_factory=no_alignment)
    split: Optional[str] = None
    task: Optional[str] = None
    notes: tuple[Note, ...] = ()
