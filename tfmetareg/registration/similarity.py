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

# How many times more the descriptors must differ at a shift than in place. Seen, where brightness disagrees:
# 1.6 to 3.1 for FLAIR and T2 against T1 within two pixels; 1.4 and less in stained sections, retinas and
# imaginal discs; below 1 in images of one contrast that lie far apart.
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

    Brightness must disagree (`agreement` below `LEAST_AGREEMENT`), and structure must agree: by their
    MIND-SSC descriptors, the images must fit clearly better as they lie than shifted to any side by as
    much as a network finds. Brightness alone would not do: it disagrees as well where images of one
    contrast lie far apart, and a similarity for different contrast would not help there.

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
    shift = round(NETWORK_REACH * fixed.shape[1])
    if min(fixed.shape) < 4 * max(shift, 1):
        return False
    offsets = [(down * shift, right * shift) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    inner = (slice(shift, -shift or None),) * 2  # Beyond, a shift brings in the other side.
    shifted = np.stack([np.roll(moving, offset, axis=(0, 1))[inner] for offset in offsets])[..., None]
    same = np.broadcast_to(fixed[inner][None, ..., None], shifted.shape)
    distances = list(1.0 - mind_similarity(same, shifted).numpy())
    in_place = distances.pop(len(distances) // 2)
    return bool(min(distances) > _LEAST_PEAK * in_place)


def _reduced(image: np.ndarray) -> np.ndarray:
    """float32 in [0, 1], reduced by block means to at most _SIDE pixels a side."""
    grey = tf.image.convert_image_dtype(image[..., None], tf.float32)
    factor = -(-max(image.shape) // _SIDE)
    rows, columns = (max(side // factor, 1) for side in image.shape)
    return tf.image.resize(grey, (rows, columns), method="area").numpy()[..., 0]
