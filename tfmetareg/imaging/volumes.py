"""Volumes in canonical orientation, and their axial slices as radiologists show them.

A NIfTI volume is brought to RAS by its affine: x grows to the patient's right,
y to the front, z to the head. An axial slice then has the front at the top
(rows run from front to back) and the patient's right on the left (columns run
from right to left). Slice 0 is the lowest. Nothing is resampled: the slices of
an oblique volume are its own planes nearest to the axial ones.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple, Optional

import nibabel
import numpy as np

from tfmetareg.errors import UserError

_MM = {"meter": 1000.0, "micron": 0.001}
_SLICE_REFERENCE = re.compile(r"(?P<file>.+\.nii(?:\.gz)?)#(?P<place>[^/]*)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Volume:
    """One channel of a volume.

    Attributes:
        voxels: (x, y, z), RAS.
        spacing: voxel size (x, y, z) in mm, None where the file does not tell.
    """

    voxels: np.ndarray
    spacing: Optional[tuple[float, float, float]]

    def axial(self, index: int) -> np.ndarray:
        """(height, width) of slice `index`, counted from below: front at the top, right on the left."""
        return self.voxels[::-1, ::-1, index].T

    @property
    def pixel_size(self) -> Optional[tuple[float, float]]:
        """(row, column) of an axial slice in mm, None if unknown."""
        return self.spacing and (self.spacing[1], self.spacing[0])


def open_nifti(path: Path) -> nibabel.Nifti1Image:
    """Reads the header of a 3D or 4D volume and checks it.

    Raises:
        UserError: missing, not NIfTI, not a volume, not of real numbers, or of
            unknown or impossible orientation.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, False where a folder may not be entered
        raise UserError(f"{path}: no such file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nibabel.load(path)
    except Exception as error:  # noqa: BLE001 - a broken file raises anything
        raise _unreadable(path, error) from None
    if not isinstance(image, nibabel.Nifti1Pair):
        raise UserError(f"{path}: must be a NIfTI file, got {type(image).__name__}; convert it.")
    if len(image.shape) < 3 or min(image.shape) < 1 or max(image.shape[4:], default=1) > 1:
        raise UserError(f"{path}: must be a 3D volume, or 4D with channels last, has shape {image.shape}.")
    if image.get_data_dtype().kind not in "buif":
        raise UserError(f"{path}: intensities must be real numbers, got {image.get_data_dtype()}.")
    _check_affine(path, image)
    return image


def _check_affine(path: Path, image: nibabel.Nifti1Image) -> None:
    """Refuses an affine from which the orientation cannot be told."""
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise UserError(
            f"{path}: does not tell its orientation (sform and qform codes are 0); "
            "set the affine, for instance when converting from DICOM."
        )
    axes = image.affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(axes)) <= 1e-3 * lengths.prod():
        raise UserError(
            f"{path}: its affine is singular, two axes point the same way or one has no length; "
            "convert the volume again from its source."
        )


def channel_count(image: nibabel.Nifti1Image) -> int:
    """Number of channels: 1 of a 3D volume, the last axis of a 4D one."""
    return image.shape[3] if len(image.shape) > 3 else 1


def canonical(image: nibabel.Nifti1Image, channel: int = 0) -> Volume:
    """Reads one channel of an opened volume, in RAS orientation.

    Args:
        image: as `open_nifti` gives it.
        channel: index below `channel_count(image)`.

    Returns:
        float32, with the file's scaling (HU of a CT) applied.

    Raises:
        UserError: cut short or damaged, or holding NaN or infinity.
    """
    path = Path(image.get_filename())
    try:
        one = image.slicer[(..., channel, *[0] * (len(image.shape) - 4))] if len(image.shape) > 3 else image
        ras = nibabel.as_closest_canonical(one)
        voxels = ras.get_fdata(dtype=np.float32, caching="unchanged")
    except Exception as error:  # noqa: BLE001 - from EOFError to zlib.error
        raise _unreadable(path, error) from None
    wrong = voxels.size - np.count_nonzero(np.isfinite(voxels))
    if wrong:
        raise UserError(f"{path}: channel {channel} holds NaN or infinity ({wrong} voxels); replace them.")
    unit = _MM.get(ras.header.get_xyzt_units()[0], 1.0)
    x, y, z = (float(unit * size) for size in nibabel.affines.voxel_sizes(ras.affine))
    return Volume(voxels, (x, y, z))


def same_grid(one: nibabel.Nifti1Image, other: nibabel.Nifti1Image) -> bool:
    """Whether two opened volumes have the same shape, and each corner at the same place, to a voxel."""
    if one.shape[:3] != other.shape[:3]:
        return False
    corners = np.array(list(itertools.product(*((0, size - 1) for size in one.shape[:3]))))
    # In voxels of the one: where the corners of the other lie, whatever the units of length.
    places = nibabel.affines.apply_affine(np.linalg.inv(one.affine) @ other.affine, corners)
    return bool(np.abs(places - corners).max() <= 1)


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: unreadable NIfTI file ({reason}); replace the file.")


class SliceReference(NamedTuple):
    """A slice of a volume on disk; no channel is needed where there is one only."""

    path: Path
    index: int
    channel: Optional[int]


def volume_file(name: str) -> str:
    """The file of `volume.nii.gz#12`; any other name as it is."""
    found = _SLICE_REFERENCE.fullmatch(name)
    return found["file"] if found else name


def parse_slice_reference(path: Path) -> Optional[SliceReference]:
    """What `volume.nii.gz#12` (slice 12) or `volume.nii.gz#12,1` (of channel 1) names; None of other names.

    Raises:
        UserError: what follows `#` is no slice.
    """
    found = _SLICE_REFERENCE.fullmatch(str(path))
    if found is None or os.path.isfile(path):
        return None
    numbers = re.fullmatch(r"(\d+)(?:,(\d+))?", found["place"], re.ASCII)
    if numbers is None:
        raise UserError(
            f"{path}: name a slice as `#INDEX`, or `#INDEX,CHANNEL` of a 4D volume, both from 0, "
            f"got `#{found['place']}`."
        )
    index, channel = numbers.groups()
    return SliceReference(Path(found["file"]), int(index), None if channel is None else int(channel))


def slice_spacing(path: Path) -> Optional[tuple[float, float]]:
    """Pixel size (row, column) in mm of a slice named like `parse_slice_reference`'s; None of other images.

    Raises:
        UserError: as `parse_slice_reference` and `read_slice`.
    """
    place = parse_slice_reference(path)
    return None if place is None else read_slice(place)[1]


def read_slice(place: SliceReference) -> tuple[np.ndarray, Optional[tuple[float, float]]]:
    """An axial slice (height, width) float32, and its pixel size (row, column) in mm.

    Raises:
        UserError: no readable volume, or it has no such slice or channel.
    """
    if not os.path.isfile(place.path):
        raise UserError(f"{place.path}: no such file.")
    found = place.path.stat()
    volume = _recent_volume(place.path, place.channel, found.st_mtime_ns, found.st_size)
    slices = volume.voxels.shape[2]
    if place.index >= slices:
        raise UserError(f"{place.path}: has no slice {place.index}; slices are 0 to {slices - 1}.")
    return volume.axial(place.index), volume.pixel_size


@functools.lru_cache(maxsize=2)  # the slices of a volume are mostly asked for one after the other
def _recent_volume(path: Path, channel: Optional[int], modified: int, size: int) -> Volume:
    image = open_nifti(path)
    count = channel_count(image)
    if channel is None and count > 1:
        raise UserError(f"{path}: has {count} channels; name one, as in `#12,0`.")
    if (channel or 0) >= count:
        raise UserError(f"{path}: has no channel {channel}; channels are 0 to {count - 1}.")
    return canonical(image, channel or 0)
