"""The one reader of images: it decides what the pixels are, and where they lie."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.errors import UserError, one_line
from tfmetareg.imaging.choices import FORMATS, NIFTI
from tfmetareg.imaging.formats import dicom, nifti, numpy_file, picture, tiff
from tfmetareg.imaging.formats.dicom_header import ENDING as DICOM_ENDING
from tfmetareg.imaging.formats.dicom_header import is_dicom
from tfmetareg.imaging.grid import Grid, itk_grid
from tfmetareg.imaging.image import Image, height_width
from tfmetareg.imaging.names import why_missing
from tfmetareg.imaging.volumes import parse_page_reference, parse_slice_reference

# NumPy array, path, SimpleITK image or nibabel image.
ImageLike = Union[str, os.PathLike, np.ndarray, Any]


class _Format(NamedTuple):
    """How files of some endings are read.

    Attributes:
        endings: of the files.
        read: the reader.
        has_pages: whether `#3` may name one of several images.
        has_palettes: whether the reader gives `indices` in place of what they stand for.
        marks: what files begin with, of formats whose files often have another one's ending.
    """

    endings: tuple[str, ...]
    read: Callable[..., Image]
    has_pages: bool = False
    has_palettes: bool = False
    marks: tuple[bytes, ...] = ()


_DICOM = _Format((DICOM_ENDING,), dicom.read, has_pages=True)
_FORMATS = (
    _Format(NIFTI, nifti.read),
    _Format((".tif", ".tiff"), tiff.read, has_pages=True, has_palettes=True, marks=tiff.MARKS),
    _Format((".png", ".jpg", ".jpeg"), picture.read, has_palettes=True, marks=picture.MARKS),
    _Format((".npy",), numpy_file.read),
    _DICOM,
)
_LONGEST_MARK = max(len(mark) for each in _FORMATS for mark in each.marks)


def is_image(path: Path) -> bool:
    """Whether `read_image` reads this file: by its ending, or by the mark of a DICOM file without one.

    >>> is_image(Path("scan.TIF")), is_image(Path("notes.txt"))
    (True, False)
    """
    return path.name.lower().endswith(FORMATS) or is_dicom(path)


def stem(path: Path) -> str:
    """The file's name without the ending of its format.

    >>> stem(Path("scans/eye1.nii.gz"))
    'eye1'
    """
    ending = max((ending for ending in FORMATS if path.name.lower().endswith(ending)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def open_image(source: ImageLike, name: str = "image", *, as_stored: bool = False) -> Image:
    """Opens an image of any supported kind.

    >>> import numpy as np
    >>> open_image(np.zeros((20, 30), np.uint8)).shape
    (20, 30)

    Args:
        source: path of any file that `read_image` reads, `volume.nii.gz#12` included; NumPy array
            (height, width) or (height, width, channels); SimpleITK or nibabel image, 2D or of one slice, with
            its grid.
        name: name in error messages of an image without a path.
        as_stored: for label maps: numbers as a file stores them, the indices of a palette, and the slices of
            volumes in their own dtype.

    Raises:
        UserError: the file cannot be read, or the image is not 2D.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _open_file(Path(source), str(source), as_stored)
    if isinstance(source, sitk.Image):
        return _from_itk(source, name)
    if type(source).__module__.startswith("nibabel."):
        return nifti.from_nibabel(source, name)
    if isinstance(source, np.ma.MaskedArray):
        raise UserError(f"{name}: must be a plain array, got a masked one; fill it first.")
    pixels = np.array(source)  # The caller may go on to change his.
    return Image(pixels, Grid(height_width(pixels, name)), name)


def read_image(path: Path, colour: str = "green") -> np.ndarray:
    """Reads a PNG, TIFF, JPEG, NumPy, NIfTI or DICOM file as one 2D image.

    The array of a NIfTI file of one slice is transposed: the voxel (i, j) is the
    pixel with x = i and y = j. `volumes` describes the orientation of slices of
    volumes. TIFF, PNG and JPEG files are turned as their orientation tags say.

    Args:
        path: a file; a page of a TIFF file or a frame of a DICOM file, `stack.tif#3`, counted from 0; or a
            slice of a NIfTI volume, axial (`volume.nii.gz#12`), coronal (`#y40`) or sagittal (`#x7`), of a
            4D one with the channel, `volume.nii.gz#12,1`.
        colour: grey value of a colour image: "green", the channel in which
            retinal vessels have the highest contrast, or "luminance".

    Returns:
        (height, width), raw intensities in the file's own real dtype (float32
        for luminance).

    Raises:
        UserError: the file is missing, of an unknown format or unreadable, or
            the image is not 2D, has fewer than 8 pixels a side, holds NaN or
            infinity, or is constant.
    """
    return open_image(path).grey(colour)


def _open_file(path: Path, name: str, as_stored: bool) -> Image:
    reference = parse_slice_reference(path)
    if reference is not None:
        return nifti.read_volume_slice(reference, name, as_stored=as_stored)
    path, page = parse_page_reference(path) or (path, None)
    if not os.path.isfile(path):  # Path.is_file raises where a parent folder may not be entered.
        raise UserError(f"{path}: {_why_no_file(path)}")
    if path.name.lower().endswith((".hdr", ".img")):
        raise UserError(f"{path}: a pair of .hdr and .img files cannot be read; save it as one .nii.gz file.")
    if not is_image(path):
        raise UserError(f"{path}: unknown image format; use one of {', '.join(FORMATS)}.")
    file_format = _format(path)
    if page is not None and not file_format.has_pages:
        raise UserError(f"{name}: `#{page}` names a page of a TIFF or DICOM file; take it away here.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"indices": True} if as_stored and file_format.has_palettes else {}
            image = file_format.read(path, *[page] * file_format.has_pages, **options)
            return dataclasses.replace(image, name=name)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from OSError to zlib.error
        raise UserError(f"{path}: unreadable image ({one_line(error)}); replace the file.") from None


def _format(path: Path) -> _Format:
    """The format by the ending; of TIFF, PNG and JPEG files by how they begin."""
    named = next((each for each in _FORMATS if path.name.lower().endswith(each.endings)), _DICOM)
    if not named.marks:
        return named
    try:
        with open(path, "rb") as stream:
            start = stream.read(_LONGEST_MARK)
    except OSError:
        return named  # Reading it reports the error.
    return next((each for each in _FORMATS if start.startswith(each.marks)), named)


def _why_no_file(path: Path) -> str:
    if os.path.isdir(path):
        return "is a folder; name an image file."
    if os.path.islink(path):
        return "a link that leads nowhere or in circles; link to an image file."
    return why_missing(path)


def _from_itk(image: sitk.Image, name: str) -> Image:
    try:
        grid = itk_grid(image)
    except ValueError as error:
        raise UserError(f"{name}: {error}; take a slice of it.") from None
    pixels = sitk.GetArrayFromImage(image)
    channels = pixels.shape[image.GetDimension() :]
    return Image(
        pixels.reshape(*grid.shape, *channels), grid, name, grid.pixel_size if grid.is_known else None
    )
