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
    """Indices of the axial slices that show something.

    A voxel is foreground if it lies above the volume's darkest value by more
    than a tenth of its range (1st to 99th percentile). A slice is empty if
    less than `share` of it is foreground, or if all its values are equal.
    """
    low, high = np.percentile(voxels, _PERCENTILES)
    foreground = (voxels > low + _FOREGROUND_SHARE_OF_RANGE * (high - low)).mean(axis=(0, 1))
    varied = voxels.max(axis=(0, 1)) > voxels.min(axis=(0, 1))
    return [int(index) for index in np.flatnonzero((foreground >= share) & varied)]


def adjacent(indices: list[int], gap: int, stride: int) -> list[tuple[int, int]]:
    """Pairs (moving, fixed) of slices, moving `gap` above fixed, both among `indices`.

    Fixed slices are the first of `indices` and every `stride`-th above it.
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
    """Neighbouring axial slices of one volume as pairs.

    Args:
        volume: of one patient.
        labels: uint8 on the volume's grid, or None.
        subject: the patient.
        where: name of the volume in an error.
        gap, stride: see `adjacent`.
        foreground: least share of a slice, see `foreground_slices`.
        window: intensities are cut off below and above, before anything else.
        names: of the slices, for the keys of pairs; by default `subject#index`.

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
