"""Pairs of neighbouring axial slices of one volume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.volumes import Volume
from tfmetareg.types import ImagePair

_PERCENTILES = (1, 99)
_FOREGROUND_SHARE_OF_RANGE = 0.1


def foreground_slices(voxels: np.ndarray, share: float) -> list[int]:
    """Indices of the axial slices that are not empty.

    A voxel is foreground if it exceeds the volume's darkest value by more than
    a tenth of its range (1st to 99th percentile). A slice is empty if less
    than `share` of it is foreground, or if all its values are equal.

    >>> import numpy as np
    >>> voxels = np.zeros((4, 4, 3))
    >>> voxels[1:3, 1:3, 1] = [[5, 6], [7, 8]]
    >>> foreground_slices(voxels, share=0.1)
    [1]

    Args:
        voxels: (x, y, z), any real dtype.
        share: smallest share of foreground, 0 to 1.
    """
    low, high = np.percentile(voxels, _PERCENTILES)
    foreground = (voxels > low + _FOREGROUND_SHARE_OF_RANGE * (high - low)).mean(axis=(0, 1))
    varied = voxels.max(axis=(0, 1)) > voxels.min(axis=(0, 1))
    return [int(index) for index in np.flatnonzero((foreground >= share) & varied)]


def adjacent(indices: list[int], gap: int, stride: int) -> list[tuple[int, int]]:
    """Pairs (moving, fixed) of slices, the moving one `gap` slices above the fixed one, both in `indices`.

    The fixed slices are the first of `indices` and every `stride`-th slice above it.

    >>> adjacent([2, 3, 4, 6], gap=1, stride=1)
    [(3, 2), (4, 3)]
    """
    if not indices:
        return []
    kept = set(indices)
    fixed = range(min(indices), max(indices) + 1, stride)
    return [(index + gap, index) for index in fixed if index in kept and index + gap in kept]


def slice_pairs(
    volume: Volume,
    labels: Optional[Volume],
    subject: str,
    where: str,
    *,
    gap: int = 1,
    stride: int = 1,
    foreground: float = 0.1,
    window: Optional[tuple[float, float]] = None,
    names: Optional[Sequence[str]] = None,
) -> Iterator[ImagePair]:
    """Yields pairs of neighbouring axial slices of one volume.

    Args:
        volume: volume of one patient.
        labels: integers on the volume's grid, or None.
        subject: name of the patient.
        where: name of the volume in an error.
        gap, stride: see `adjacent`.
        foreground: smallest share of foreground in a slice, see `foreground_slices`.
        window: (low, high) that intensities are clipped to first; None for no clipping.
        names: names of all slices, for the keys of pairs; by default `subject#index`.

    Raises:
        UserError: no pair is left.
    """
    voxels = np.clip(volume.voxels, *window) if window else volume.voxels
    volume = dataclasses.replace(volume, voxels=voxels)
    kept = foreground_slices(voxels, foreground)
    pairs = adjacent(kept, gap, stride)
    if not pairs:
        raise UserError(
            f"{where}: no pair of slices is left; {len(kept)} of {voxels.shape[2]} are not empty. "
            "Lower `--foreground` or `--gap`, or leave this volume out."
        )
    names = names or [f"{subject}#{index}" for index in range(voxels.shape[2])]
    for moving, fixed in pairs:
        yield ImagePair(
            key=f"{names[moving]}:{names[fixed]}",
            subject=subject,
            moving=volume.axial(moving),
            fixed=volume.axial(fixed),
            moving_spacing=volume.pixel_size,
            fixed_spacing=volume.pixel_size,
            moving_labels=None if labels is None else labels.axial(moving),
            fixed_labels=None if labels is None else labels.axial(fixed),
        )
