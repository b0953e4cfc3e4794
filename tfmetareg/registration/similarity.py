"""Which similarity a pair is adapted by: one that needs like contrast, or MIND where the contrast differs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tfmetareg.geometry.align import NETWORK_REACH
from tfmetareg.report.contrast import LEAST_AGREEMENT, agreement
from tfmetareg.training.mind import mind_similarity

Similarity = Literal["auto", "ncc", "voxelmorph", "mind"]

# How many times more the descriptors must differ at a further shift than where they fit best. Seen, where
# brightness disagrees: 1.6 to 3.1 for FLAIR and T2 against T1; 1.4 and less in stained sections, retinas and
# imaginal discs.
_LEAST_PEAK = 1.5
# Images are compared at this many pixels a side at most.
_SIDE = 128


class Similarities(NamedTuple):
    """The names of two similarities, as `registration_loss` takes them.

    Attributes:
        like: for images of like contrast.
        unlike: for images of different contrast.
    """

    like: str = "ncc"
    unlike: str = "mind"


AUTOMATIC = Similarities()


def similarities(choice: str, like: str = "ncc") -> Similarities:
    """The similarities that a choice stands for.

    >>> similarities("auto"), similarities("ncc")
    (Similarities(like='ncc', unlike='mind'), Similarities(like='ncc', unlike='ncc'))

    Args:
        choice: "auto" leaves it to the images; a name is taken for all of them.
        like: what "auto" takes for images of like contrast.
    """
    return Similarities(like=like) if choice == "auto" else Similarities(choice, choice)


def differ_in_contrast(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether more than half of the pairs differ in contrast, as `differs_in_contrast` tells of each."""
    differing = [differs_in_contrast(moving, fixed) for moving, fixed in pairs]
    return 2 * sum(differing) > len(differing)


def differs_in_contrast(moving: np.ndarray, fixed: np.ndarray) -> bool:
    """Whether two images show the same structure, nearly in place, in different contrast.

    The moving image is first shifted, by as much as a network finds, to where the MIND-SSC descriptors fit
    best. There, brightness must disagree (`agreement` below `LEAST_AGREEMENT`), and structure must agree: the
    descriptors must fit clearly better than at further shifts. Brightness alone would not do: it disagrees as
    well where images of one contrast lie far apart, and there MIND would not help.

    >>> rows, columns = np.mgrid[:64, :64]
    >>> image = np.exp(-((rows - 30) ** 2 + (columns - 34) ** 2) / 90.0)
    >>> differs_in_contrast(image, image), differs_in_contrast(image, 1 - image)
    (False, True)
    >>> differs_in_contrast(np.roll(image, 12, axis=1), image)
    False

    Args:
        moving, fixed: (height, width) of one shape, uint8 or float in [0, 1], aligned, before the network,
            which bends images of different contrast until brightness agrees, at wrong places.
    """
    if agreement(moving, fixed) >= LEAST_AGREEMENT:
        return False
    moving, fixed = (_reduced(image) for image in (moving, fixed))
    far = round(NETWORK_REACH * fixed.shape[1])
    if far < 2 or min(fixed.shape) < 8 * far:
        return False
    near = _offsets(-far, -(far // 2), 0, far // 2, far)
    distances = _mind_distances(moving, fixed, near, 2 * far)
    place = near[int(np.argmin(distances))]
    around = [(place[0] + down, place[1] + right) for down, right in _offsets(-far, 0, far) if down or right]
    if _mind_distances(moving, fixed, around, 2 * far).min() <= _LEAST_PEAK * distances.min():
        return False
    return agreement(np.roll(moving, place, axis=(0, 1)), fixed) < LEAST_AGREEMENT


def _offsets(*sides: int) -> list[tuple[int, int]]:
    """Shifts by each of these, down and right."""
    return [(down, right) for down in sides for right in sides]


def _mind_distances(
    moving: np.ndarray, fixed: np.ndarray, offsets: list[tuple[int, int]], border: int
) -> np.ndarray:
    """How much the descriptors differ at each shift; not at the border, where the other side comes in."""
    inner = (slice(border, -border),) * 2
    shifted = np.stack([np.roll(moving, offset, axis=(0, 1))[inner] for offset in offsets])[..., None]
    same = np.broadcast_to(fixed[inner][None, ..., None], shifted.shape)
    return 1.0 - mind_similarity(same, shifted).numpy()


def _reduced(image: np.ndarray) -> np.ndarray:
    """float32 in [0, 1], reduced by block means to at most _SIDE pixels a side."""
    grey = tf.image.convert_image_dtype(image[..., None], tf.float32)
    factor = -(-max(image.shape) // _SIDE)
    rows, columns = (max(side // factor, 1) for side in image.shape)
    return tf.image.resize(grey, (rows, columns), method="area").numpy()[..., 0]
