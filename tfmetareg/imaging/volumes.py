"""Volumes in canonical orientation, and their axial slices in radiological view.

A NIfTI volume is reoriented to RAS by its affine: x grows to the patient's right, y to the front, z to the
head. An axial slice has the front at the top (rows run from front to back) and the patient's right on the
left (columns run from right to left). Slice 0 is the lowest. Nothing is resampled: the slices of an oblique
volume are its own planes that are nearest to the axial ones.
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

from tfmetareg.errors import UserError, one_line

# Millimetres in a unit of length, for units of NIfTI files other than mm.
MM = {"meter": 1000.0, "micron": 0.001}
_SLICE_REFERENCE = re.compile(r"(?P<file>.+\.nii(?:\.gz)?)#(?P<place>[^/]*)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Volume:
    """One channel of a volume.

    Attributes:
        voxels: (x, y, z), RAS.
        spacing: voxel size (x, y, z) in mm, None if unknown.

    >>> import numpy as np
    >>> volume = Volume(np.arange(24).reshape(2, 3, 4), (0.5, 0.6, 3.0))
    >>> volume.axial(0).shape, volume.pixel_size
    ((3, 2), (0.6, 0.5))
    """

    voxels: np.ndarray
    spacing: Optional[tuple[float, float, float]]

    def axial(self, index: int) -> np.ndarray:
        """Slice `index`, counted from below: (height, width), front at the top, right on the left."""
        return self.voxels[::-1, ::-1, index].T

    @property
    def pixel_size(self) -> Optional[tuple[float, float]]:
        """Pixel size (row, column) of an axial slice in mm, None if unknown."""
        return self.spacing and (self.spacing[1], self.spacing[0])


def open_nifti(path: Path) -> nibabel.Nifti1Pair:
    """Reads the header of a 3D or 4D volume and checks it.

    Raises:
        UserError: the file is missing, not NIfTI or not a volume, has no real
            numbers, or its orientation is unknown or impossible.
    """
    if not os.path.isfile(path):  # Path.is_file raises where a parent folder may not be entered.
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


def _check_affine(path: Path, image: nibabel.Nifti1Pair) -> None:
    """Refuses an affine that does not determine the orientation."""
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


def channel_count(image: nibabel.Nifti1Pair) -> int:
    """Number of channels: 1 for a 3D volume, the length of the last axis for a 4D one."""
    return image.shape[3] if len(image.shape) > 3 else 1


def canonical(image: nibabel.Nifti1Pair, channel: int = 0) -> Volume:
    """Reads one channel of an opened volume, in RAS orientation.

    Args:
        image: as returned by `open_nifti`.
        channel: index below `channel_count(image)`.

    Returns:
        float32 voxels, with the file's scaling applied (Hounsfield units of a CT).

    Raises:
        UserError: the file is truncated or damaged, or holds NaN or infinity.
    """
    path = Path(str(image.get_filename()))
    try:
        one_channel = (..., channel, *[0] * (len(image.shape) - 4))
        one = image.slicer[one_channel] if len(image.shape) > 3 else image
        ras = nibabel.as_closest_canonical(one)
        voxels = ras.get_fdata(dtype=np.float32, caching="unchanged")
    except Exception as error:  # noqa: BLE001 - from EOFError to zlib.error
        raise _unreadable(path, error) from None
    wrong = voxels.size - np.count_nonzero(np.isfinite(voxels))
    if wrong:
        raise UserError(f"{path}: channel {channel} holds NaN or infinity ({wrong} voxels); replace them.")
    unit = MM.get(ras.header.get_xyzt_units()[0], 1.0)
    x, y, z = (float(unit * size) for size in nibabel.affines.voxel_sizes(ras.affine))
    return Volume(voxels, (x, y, z))


def same_grid(one: nibabel.Nifti1Pair, other: nibabel.Nifti1Pair) -> bool:
    """Whether two opened volumes have the same shape and their corners the same places, within a voxel."""
    if one.shape[:3] != other.shape[:3]:
        return False
    corners = np.array(list(itertools.product(*((0, size - 1) for size in one.shape[:3]))))
    # Corners of the other volume in voxels of the first: independent of units of length.
    places = nibabel.affines.apply_affine(np.linalg.inv(one.affine) @ other.affine, corners)
    return bool(np.abs(places - corners).max() <= 1)


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: unreadable NIfTI file ({one_line(error)}); replace the file.")


class SliceReference(NamedTuple):
    """A slice of a volume on disk; the channel may be None if the volume has only one."""

    path: Path
    slice_index: int
    channel: Optional[int]


def volume_file(name: str) -> str:
    """The file of a slice; any other name unchanged.

    >>> volume_file("volume.nii.gz#12"), volume_file("image.png")
    ('volume.nii.gz', 'image.png')
    """
    match = _SLICE_REFERENCE.fullmatch(name)
    return match["file"] if match else name


def parse_slice_reference(path: Path) -> Optional[SliceReference]:
    """Parses `volume.nii.gz#12` (slice 12) or `volume.nii.gz#12,1` (slice 12 of channel 1).

    >>> reference = parse_slice_reference(Path("volume.nii.gz#12,1"))
    >>> reference.slice_index, reference.channel
    (12, 1)

    Returns:
        The slice; None for any other name, and for an existing file.

    Raises:
        UserError: the text after `#` is not a slice.
    """
    match = _SLICE_REFERENCE.fullmatch(str(path))
    if match is None or os.path.isfile(path):
        return None
    numbers = re.fullmatch(r"(\d+)(?:,(\d+))?", match["place"], re.ASCII)
    if numbers is None:
        raise UserError(
            f"{path}: name a slice as `#INDEX`, or `#INDEX,CHANNEL` of a 4D volume, both from 0, "
            f"got `#{match['place']}`."
        )
    index, channel = numbers.groups()
    return SliceReference(Path(match["file"]), int(index), None if channel is None else int(channel))


def slice_spacing(path: Path) -> Optional[tuple[float, float]]:
    """Pixel size (row, column) in mm of a slice like `volume.nii.gz#12`; None for other images.

    Raises:
        UserError: as `parse_slice_reference` and `read_slice`.
    """
    reference = parse_slice_reference(path)
    return None if reference is None else read_slice(reference)[1]


def read_slice(reference: SliceReference) -> tuple[np.ndarray, Optional[tuple[float, float]]]:
    """Reads an axial slice, (height, width) float32, and its pixel size (row, column) in mm.

    Raises:
        UserError: the volume cannot be read, or has no such slice or channel.
    """
    path, index, channel = reference
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file.")
    status = path.stat()
    volume = _read_volume(path, channel, status.st_mtime_ns, status.st_size)
    slices = volume.voxels.shape[2]
    if index >= slices:
        raise UserError(f"{path}: has no slice {index}; slices are 0 to {slices - 1}.")
    return volume.axial(index), volume.pixel_size


@functools.lru_cache(maxsize=2)  # Slices of one volume are mostly read in a row.
def _read_volume(path: Path, channel: Optional[int], modified: int, size: int) -> Volume:
    image = open_nifti(path)
    count = channel_count(image)
    if channel is None and count > 1:
        raise UserError(f"{path}: has {count} channels; name one, as in `#12,0`.")
    if (channel or 0) >= count:
        raise UserError(f"{path}: has no channel {channel}; channels are 0 to {count - 1}.")
    return canonical(image, channel or 0)
