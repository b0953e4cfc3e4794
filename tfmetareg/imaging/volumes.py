"""Volumes in canonical orientation, and their slices in radiological view.

A NIfTI volume is reoriented to RAS by its affine: x grows to the patient's right, y to the front, z to the
head. Rows and columns of a slice run against these axes: an axial slice has the front at the top and the
patient's right on the left, a coronal one the head at the top and the right on the left, a sagittal one the
head at the top and the front on the left. Slices count along the axis: slice 0 is the lowest, the rearmost,
or the patient's leftmost. Nothing is resampled: the slices of an oblique volume are its own planes that are
nearest to the axial, coronal and sagittal ones.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import numpy as np

from tfmetareg.errors import UserError, one_line
from tfmetareg.imaging.names import why_missing

if TYPE_CHECKING:  # Slow to import, with pydicom, and needed for volumes alone.
    import nibabel

# Millimetres in a unit of length, for units of NIfTI files other than mm.
_MM = {"meter": 1000.0, "micron": 0.001}
_AXES = "xyz"
_SLICE_REFERENCE = re.compile(r"(?P<file>.+\.nii(?:\.gz)?)#(?P<place>[^/]*)", re.IGNORECASE)
_PAGE_REFERENCE = re.compile(r"(?P<file>.+)#(?P<page>\d+)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Volume:
    """One channel of a volume.

    Attributes:
        voxels: (x, y, z), RAS.
        spacing: voxel size (x, y, z) in mm, None if unknown.
        affine: (4, 4), from voxels to RAS, mm; None if unknown.

    >>> import numpy as np
    >>> volume = Volume(np.arange(24).reshape(2, 3, 4), (0.5, 0.6, 3.0))
    >>> volume.axial(0).shape, volume.pixel_size
    ((3, 2), (0.6, 0.5))
    """

    voxels: np.ndarray
    spacing: Optional[tuple[float, float, float]]
    affine: Optional[np.ndarray] = None

    def axial(self, index: int) -> np.ndarray:
        """Slice `index`, counted from below: (height, width), front at the top, right on the left."""
        return self.plane(2, index)

    def plane(self, axis: int, index: int) -> np.ndarray:
        """A slice across an axis, 0 to 2 for x to z: (height, width), rows and columns against their axes."""
        return self.voxels[tuple(index if at == axis else np.s_[::-1] for at in range(3))].T

    def plane_affine(self, axis: int, index: int) -> np.ndarray:
        """From (column, row, slice) of `plane` to RAS, mm: float64 (4, 4); only where `affine` is known."""
        if self.affine is None:
            raise ValueError("the volume's place is unknown")
        first, second = (at for at in range(3) if at != axis)
        to_voxels = np.zeros((4, 4))
        to_voxels[[first, second, axis], [0, 1, 2]] = -1, -1, 1
        to_voxels[[first, second, axis, 3], 3] = (
            self.voxels.shape[first] - 1,
            self.voxels.shape[second] - 1,
            index,
            1,
        )
        return self.affine @ to_voxels

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
        raise UserError(f"{path}: {why_missing(path)}")
    import nibabel

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


def canonical(image: nibabel.Nifti1Pair, channel: int = 0, *, as_stored: bool = False) -> Volume:
    """Reads one channel of an opened volume, in RAS orientation.

    Args:
        image: as returned by `open_nifti`.
        channel: index below `channel_count(image)`.
        as_stored: keeps the numbers' own dtype, float64 where the file scales them, and does not check
            them: for labels, whose numbers float32 may not hold.

    Returns:
        float32 voxels, with the file's scaling applied (Hounsfield units of a CT).

    Raises:
        UserError: the file is truncated or damaged, or holds NaN or infinity.
    """
    import nibabel

    path = Path(str(image.get_filename()))
    try:
        one_channel = (..., channel, *[0] * (len(image.shape) - 4))
        one = image.slicer[one_channel] if len(image.shape) > 3 else image
        ras = nibabel.as_closest_canonical(one)
        if as_stored:
            voxels = np.asarray(ras.dataobj)
        else:
            voxels = ras.get_fdata(dtype=np.float32, caching="unchanged")
    except Exception as error:  # noqa: BLE001 - from EOFError to zlib.error
        raise _unreadable(path, error) from None
    wrong = 0 if as_stored else voxels.size - np.count_nonzero(np.isfinite(voxels))
    if wrong:
        raise UserError(f"{path}: channel {channel} holds NaN or infinity ({wrong} voxels); replace them.")
    unit = millimetres(ras)
    x, y, z = (float(unit * size) for size in nibabel.affines.voxel_sizes(ras.affine))
    return Volume(voxels, (x, y, z), affine_in_mm(ras))


def affine_in_mm(image: Any) -> np.ndarray:
    """The affine of a nibabel image, from voxels to RAS, mm: float64 (4, 4)."""
    affine = image.header.get_best_affine() if image.affine is None else image.affine
    return np.diag([*[millimetres(image)] * 3, 1.0]) @ affine


def millimetres(image: Any) -> float:
    """Millimetres in the unit of length of a nibabel image.

    A unit that is not told, or that NIfTI does not have, is taken as mm, as everyone reads it.
    """
    try:
        return _MM.get(image.header.get_xyzt_units()[0], 1.0)
    except (AttributeError, KeyError):  # A format other than NIfTI, or an unknown code.
        return 1.0


def same_grid(one: nibabel.Nifti1Pair, other: nibabel.Nifti1Pair) -> bool:
    """Whether two opened volumes, brought to RAS, have one shape and their corners in one place.

    Within a voxel; the order in which the files store the voxels may differ.
    """
    from nibabel.affines import apply_affine

    (affine, shape), (other_affine, other_shape) = map(_canonical_frame, (one, other))
    if shape != other_shape:
        return False
    corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))))
    # Corners of the other volume in voxels of the first: independent of units of length.
    places = apply_affine(np.linalg.inv(affine) @ other_affine, corners)
    return bool(np.abs(places - corners).max() <= 1)


def _canonical_frame(image: nibabel.Nifti1Pair) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape that an opened volume has in RAS orientation."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    orientation = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(orientation, image.shape[:3])
    return affine, tuple(image.shape[axis] for axis in np.argsort(orientation[:, 0]))


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: unreadable NIfTI file ({one_line(error)}); replace the file.")


class SliceReference(NamedTuple):
    """A slice of a volume on disk, across an axis, 0 to 2 for x to z.

    The channel may be None if the volume has only one.
    """

    path: Path
    slice_index: int
    channel: Optional[int]
    axis: int = 2


def volume_file(name: str) -> str:
    """The file of a slice, a page or a frame; any other name unchanged.

    >>> volume_file("volume.nii.gz#12"), volume_file("scan.dcm#3"), volume_file("image.png")
    ('volume.nii.gz', 'scan.dcm', 'image.png')
    """
    match = _SLICE_REFERENCE.fullmatch(name) or _PAGE_REFERENCE.fullmatch(name)
    return match["file"] if match else name


def parse_page_reference(path: Path) -> Optional[tuple[Path, int]]:
    """Parses `stack.tif#3` (page 3) or `cine.dcm#3` (frame 3), counted from 0.

    >>> parse_page_reference(Path("scans/stack.tif#3"))
    (PosixPath('scans/stack.tif'), 3)

    Returns:
        The file and the page; None for any other name, for a NIfTI file, and for an existing file.
    """
    match = _PAGE_REFERENCE.fullmatch(str(path))
    if match is None or _SLICE_REFERENCE.fullmatch(str(path)) or os.path.isfile(path):
        return None
    return Path(match["file"]), int(match["page"])


def parse_slice_reference(path: Path) -> Optional[SliceReference]:
    """Parses `volume.nii.gz#12` or `#z12` (axial slice 12), `#y40`, `#x7`, `#12,1` (slice 12 of channel 1).

    >>> reference = parse_slice_reference(Path("volume.nii.gz#y40,1"))
    >>> reference.axis, reference.slice_index, reference.channel
    (1, 40, 1)

    Returns:
        The slice; None for any other name, and for an existing file.

    Raises:
        UserError: the text after `#` is not a slice.
    """
    match = _SLICE_REFERENCE.fullmatch(str(path))
    if match is None or os.path.isfile(path):
        return None
    place = re.fullmatch(r"([xyz]?)(\d+)(?:,(\d+))?", match["place"].lower(), re.ASCII)
    if place is None:
        raise UserError(
            f"{path}: name a slice as `#INDEX` (axial), `#yINDEX` (coronal) or `#xINDEX` (sagittal), of a 4D "
            f"volume `#INDEX,CHANNEL`, all from 0, got `#{match['place']}`."
        )
    axis, index, channel = place.groups()
    return SliceReference(
        Path(match["file"]), int(index), None if channel is None else int(channel), _AXES.index(axis or "z")
    )


def read_slice(reference: SliceReference, *, as_stored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Reads a slice, (height, width) float32, and its affine, from (column, row, slice) to RAS, mm.

    Args:
        reference: the slice.
        as_stored: as for `canonical`.

    Raises:
        UserError: the volume cannot be read, or has no such slice or channel.
    """
    path, index, channel, axis = reference
    if not os.path.isfile(path):
        raise UserError(f"{path}: {why_missing(path)}")
    status = path.stat()
    volume = _read_volume(path, channel, as_stored, status.st_mtime_ns, status.st_size)
    slices = volume.voxels.shape[axis]
    if index >= slices:
        letter = "" if axis == 2 else _AXES[axis]
        raise UserError(
            f"{path}: has no slice {letter}{index}; slices are {letter}0 to {letter}{slices - 1}."
        )
    return volume.plane(axis, index), volume.plane_affine(axis, index)


@functools.lru_cache(maxsize=4)  # Slices of one volume, with its labels, are mostly read in a row.
def _read_volume(path: Path, channel: Optional[int], as_stored: bool, modified: int, size: int) -> Volume:
    image = open_nifti(path)
    count = channel_count(image)
    if channel is None and count > 1:
        raise UserError(f"{path}: has {count} channels; name one, as in `#12,0`.")
    if (channel or 0) >= count:
        raise UserError(f"{path}: has no channel {channel}; channels are 0 to {count - 1}.")
    return canonical(image, channel or 0, as_stored=as_stored)
