"""Label maps: a whole number for each pixel, whatever file or array they come in.

The numbers are those that the file stores: the indices of a palette image, not its colours, and the values of
a NIfTI file with its scaling applied. 0 is background; all other numbers, negative ones too, are labels.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.choices import NIFTI
from tfmetareg.imaging.formats.dicom_header import is_dicom
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.read import ImageLike, open_image
from tfmetareg.imaging.volumes import (
    Volume,
    canonical,
    channel_count,
    open_nifti,
    parse_page_reference,
    same_grid,
    volume_file,
)

# Labels that a record of a pair can tell apart.
MOST_LABELS = 255
# Largest distance of a floating point number from the whole number that it stands for.
_ROUNDING = 1e-3
# Beyond this a float64 cannot tell neighbouring whole numbers apart.
_LARGEST_FLOAT = 2.0**53
_LOSSY = ("JPEG", "MPO", "OJPEG", "JPEG_LOSSY", "JPEGXR", "JPEGXR_NDPI", "JPEG_2000_LOSSY")


def open_labels(source: ImageLike, image: Image, name: str = "labels") -> Image:
    """The label map of an image, from a file or from memory.

    >>> image = open_image(np.eye(2))
    >>> open_labels(np.array([[0.0, -1.0], [70000.0, 2.00002]]), image).pixels.tolist()
    [[0, -1], [70000, 2]]

    Args:
        source: PNG, TIFF, NIfTI or NumPy file; slice of a NIfTI volume, `labels.nii.gz#12`; array; 2D
            SimpleITK or nibabel image.
        image: the image that the labels belong to.
        name: name in error messages of a label map without a path.

    Returns:
        The label map on the image's grid. Its pixels, (height, width), are the source's own integers; the
        smallest that hold the values for a source of floats.

    Raises:
        UserError: the file cannot be read; is a JPEG, a colour image or an inverted one (MINISWHITE); holds
            anything but whole numbers; or has another size than the image or, where both know their place in
            space, another place.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        _check_kind(path)
        opened, rounding = open_image(path, as_stored=True), _rounding(path)
    else:
        opened, rounding = open_image(source, name), _ROUNDING
    labels = as_labels(_one_number(opened.pixels, opened.name), opened.name, rounding)
    if labels.shape != image.shape:
        raise UserError(
            f"{opened.name}: label map of {labels.shape[0]} x {labels.shape[1]} pixels for an image of "
            f"{image.shape[0]} x {image.shape[1]} ({image.name}); both must have one size, height x width."
            + "".join(f" The image is {note}." for note in image.notes if labels.T.shape == image.shape)
        )
    _check_place(opened, image)
    return Image(labels, image.grid, opened.name, image.spacing)


def read_label_volume(path: Path, image: Path) -> Volume:
    """Reads a 3D label map in NIfTI format, in RAS orientation.

    Args:
        path: of the labels.
        image: volume that they belong to.

    Returns:
        The volume; its voxels are integers.

    Raises:
        UserError: either file cannot be read, the labels are not 3D or on another grid than the image, or
            they are not whole numbers.
    """
    labels = open_nifti(path)
    if channel_count(labels) > 1 or not same_grid(labels, open_nifti(image)):
        raise UserError(
            f"{path}: shape {labels.shape}, voxel size, orientation or origin differs from that of "
            f"{image.name}; labels must be 3D, on the image's grid."
        )
    volume = canonical(labels, as_stored=True)
    return dataclasses.replace(volume, voxels=as_labels(volume.voxels, str(path), _rounding(path)))


def as_labels(values: np.ndarray, where: str, rounding: float = _ROUNDING) -> np.ndarray:
    """Numbers as integers: truth values as 0 and 1, floating point numbers rounded.

    >>> as_labels(np.array([0.0, 1.00002, 300.0]), "labels")
    array([  0,   1, 300], dtype=int16)

    Args:
        values: of any shape.
        where: name of the label map in the error.
        rounding: largest distance of a number from a whole one.

    Returns:
        Integers, of the dtype of `values` if that is an integer one; at most 64 bits with a sign.

    Raises:
        UserError: values that are no whole numbers, or too large.
    """
    kind = values.dtype.kind
    if kind == "f":
        return _rounded(values, where, rounding)
    if kind not in "bui":
        raise UserError(f"{where}: labels must be whole numbers, got {values.dtype}; convert them.")
    if kind == "b":
        return values.astype(np.uint8)
    if values.dtype == np.uint64:
        if values.size and values.max() > np.iinfo(np.int64).max:
            raise UserError(f"{where}: labels must be below 2^63, got {values.max()}; renumber them.")
        return values.astype(np.int64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def label_codes(
    moving: np.ndarray, fixed: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, Optional[np.ndarray]]:
    """The labels of a pair as a record holds them, in 8 bits.

    Labels from 0 to 255 are their own codes. Otherwise the labels of the pair are numbered from 1 in
    ascending order; the background stays 0.

    >>> label_codes(np.array([[0, -4]]), np.array([[1000, -4]]), "pair")
    (array([[0, 1]], dtype=uint8), array([[2, 1]], dtype=uint8), array([  -4, 1000]))

    Args:
        moving, fixed: integers of any shape.
        where: name of the pair in the error.

    Returns:
        The codes of `moving` and `fixed`, uint8; and int64 (n,), the labels of the codes 1 to n, or None
        where labels are their own codes.

    Raises:
        UserError: more than 255 labels in the pair, not all from 0 to 255.
    """
    labels = np.union1d(moving.astype(np.int64), fixed.astype(np.int64))
    labels = labels[labels != 0]
    if not len(labels) or (labels[0] > 0 and labels[-1] <= MOST_LABELS):
        return moving.astype(np.uint8), fixed.astype(np.uint8), None
    if len(labels) > MOST_LABELS:
        raise UserError(
            f"{where}: {len(labels)} different labels, of which a record holds {MOST_LABELS}; join some, or "
            "name label maps where these are images."
        )
    coded = (np.where(each == 0, 0, np.searchsorted(labels, each) + 1) for each in (moving, fixed))
    moving_codes, fixed_codes = (codes.astype(np.uint8) for codes in coded)
    return moving_codes, fixed_codes, labels


def labels_of_codes(codes: np.ndarray, labels: Optional[np.ndarray]) -> np.ndarray:
    """Inverse of `label_codes`: int64 labels, of the shape of `codes`.

    >>> labels_of_codes(np.array([[2, 0, 1]]), np.array([-4, 1000])).tolist()
    [[1000, 0, -4]]
    """
    if labels is None or not len(labels):
        return codes.astype(np.int64)
    return np.concatenate([[0], labels])[codes]


def shared_labels_note(moving: np.ndarray, fixed: np.ndarray) -> str:
    """A line where both label maps have labels but none in common; empty otherwise.

    >>> shared_labels_note(np.array([0, 1]), np.array([0, 255]))
    'the label maps have no label in common (moving: 1; fixed: 255): check how they are numbered'
    """
    one, other = (sorted({*np.unique(labels).tolist()} - {0}) for labels in (moving, fixed))
    if not one or not other or {*one} & {*other}:
        return ""
    first, second = (", ".join(map(str, labels[:5])) + ", ..." * (len(labels) > 5) for labels in (one, other))
    return (
        f"the label maps have no label in common (moving: {first}; fixed: {second}): check how they "
        "are numbered"
    )


def _rounded(values: np.ndarray, where: str, rounding: float) -> np.ndarray:
    finite = np.isfinite(values)
    if not finite.all():
        raise UserError(f"{where}: labels hold NaN or infinity ({(~finite).sum()} pixels); replace them.")
    nearest = np.rint(values)
    wrong = np.abs(values - nearest) > rounding
    if wrong.any():
        raise UserError(
            f"{where}: labels must be whole numbers, got {values[wrong][0]:.6g} ({wrong.sum()} of "
            f"{wrong.size} pixels are none); name a label map, saved as integers, or resample by nearest "
            "neighbour."
        )
    low, high = (nearest.min(), nearest.max()) if nearest.size else (0, 0)
    if max(-low, high) > _LARGEST_FLOAT:
        raise UserError(f"{where}: labels up to {high:g} in floating point; save them as integers.")
    return nearest.astype(
        next(
            kind
            for kind in (np.uint8, np.int16, np.uint16, np.int32, np.int64)
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
        )
    )


def _rounding(path: Path) -> float:
    """Largest distance from a whole number that a file explains by its scaling.

    The nearest number to a label that a file with a slope below 1 can hold is half a slope away at most.

    Raises:
        UserError: a slope at which neighbouring labels are one number.
    """
    file = volume_file(str(path))
    if not file.lower().endswith(NIFTI):
        return _ROUNDING
    import nibabel

    image: Any = nibabel.load(file)  # Its type is that of any image, which has no slope.
    slope = abs(float(image.dataobj.slope))
    if slope > 1 and not slope.is_integer():
        raise UserError(
            f"{path}: its numbers are scaled by {slope:g} (scl_slope), so that labels were lost on saving; "
            "save the label map as integers."
        )
    return max(_ROUNDING, 0.5001 * slope) if slope < 1 else _ROUNDING


def _check_kind(path: Path) -> None:
    """Refuses files whose numbers are no label numbers, or are ambiguous ones."""
    file, page = parse_page_reference(path) or (path, 0)
    if not os.path.isfile(file) or file.name.lower().endswith((".npy", *NIFTI)):
        return
    if is_dicom(file):
        raise UserError(f"{path}: DICOM holds images; save label maps as PNG, TIFF, NIfTI or npy.")
    try:
        meaning, compression = _stored_as(file, page)
    except Exception:  # noqa: BLE001 - what is wrong with a broken file, reading it tells
        return
    if compression in _LOSSY:
        raise UserError(
            f"{path}: JPEG changes label numbers; save label maps as PNG, TIFF, NIfTI or npy, without loss."
        )
    if meaning == "MINISWHITE":
        raise UserError(
            f"{path}: inverted grey values (MINISWHITE), so that its label numbers are ambiguous; save the "
            "label map as plain grey (MINISBLACK)."
        )


def _stored_as(file: Path, page: int) -> tuple[str, str]:
    """What the numbers of a picture mean, where that is told, and how they are compressed."""
    if file.name.lower().endswith((".tif", ".tiff")):
        import tifffile

        with tifffile.TiffFile(file) as tiff:
            chosen = tiff.pages[page]
            return chosen.photometric.name, chosen.compression.name
    from PIL import Image as Pillow

    with Pillow.open(file) as image:
        return "", image.format or ""


def _one_number(pixels: np.ndarray, where: str) -> np.ndarray:
    """One number for each pixel, (height, width), of grey values in several equal channels; no alpha."""
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[-1] in (1, 3):
        if (pixels != pixels[..., :1]).any():
            raise UserError(
                f"{where}: a colour image; a label map holds one number for each pixel: save the numbers, in "
                "grey or with a palette."
            )
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise UserError(
            f"{where}: must be one 2D label map, got an array of shape {pixels.shape}; name the slice of a "
            "volume, as in `labels.nii.gz#12`."
        )
    return pixels


def _check_place(labels: Image, image: Image) -> None:
    """Refuses a label map that lies elsewhere than its image, where both tell where they lie."""
    ours, theirs = labels.grid, image.grid
    if not (ours.is_known and theirs.is_known) or ours.dimension != theirs.dimension:
        return
    height, width = ours.shape
    corners = np.array([[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]])
    points, distances = theirs.from_lps(ours.places(corners))
    if np.abs(points - corners).max() > 1 or (2 * distances > theirs.spacing[-1]).any():
        raise UserError(
            f"{labels.name}: its pixel size, orientation, origin or slice differs from that of its image, "
            f"{image.name}; resample the label map onto the image's grid."
        )
