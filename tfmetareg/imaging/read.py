"""Reads a 2D image from PNG, TIFF, JPEG, NumPy and NIfTI files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfmetareg.errors import UserError, one_line
from tfmetareg.files import StrPath
from tfmetareg.imaging.choices import FORMATS, NIFTI
from tfmetareg.imaging.volumes import parse_slice_reference, read_slice, volume_file

MIN_SIDE = 8
_COLOUR_SIZES = (3, 4)


def is_image(path: Path) -> bool:
    """Whether `read_image` reads files with this ending.

    >>> is_image(Path("scan.TIF")), is_image(Path("notes.txt"))
    (True, False)
    """
    return path.name.lower().endswith(FORMATS)


def is_nifti(name: StrPath) -> bool:
    """Whether a file, or the volume of a slice like `volume.nii.gz#12`, is NIfTI by its ending."""
    return volume_file(str(name)).lower().endswith(NIFTI)


def stem(path: Path) -> str:
    """The file's name without the ending of its format.

    >>> stem(Path("scans/eye1.nii.gz"))
    'eye1'
    """
    ending = max((ending for ending in FORMATS if path.name.lower().endswith(ending)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def read_image(path: Path, colour: str = "green") -> np.ndarray:
    """Reads a PNG, TIFF, JPEG, NumPy or NIfTI file as one 2D image.

    The array of a 2D NIfTI file is transposed: the voxel (i, j) is the pixel
    with x = i and y = j. `volumes` describes the orientation of slices of
    volumes. Orientation flags of camera files are not applied.

    Args:
        path: a file; or a slice of a NIfTI volume, `volume.nii.gz#12`, of a 4D
            one with the channel, `volume.nii.gz#12,1`.
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
    image = read_pixels(path)
    if not is_nifti(path):  # The axes of a NIfTI file are spatial, never colour.
        image = one_channel(image, colour)
    check_image(image, str(path))
    return image


def read_pixels(path: Path) -> np.ndarray:
    """Reads any file that `read_image` reads, with all its channels.

    Returns:
        (height, width) or (height, width, channels), in the file's own dtype; not checked.

    Raises:
        UserError: the file is missing, of an unknown format or unreadable.
    """
    reference = parse_slice_reference(path)
    if reference is not None:
        return read_slice(reference)[0]
    if not os.path.isfile(path):  # Path.is_file raises where a parent folder may not be entered.
        raise UserError(f"{path}: {_why_no_file(path)}")
    if not is_image(path):
        raise UserError(f"{path}: unknown image format; use one of {', '.join(FORMATS)}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(path)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from OSError to zlib.error
        raise UserError(f"{path}: unreadable image ({one_line(error)}); replace the file.") from None


def _why_no_file(path: Path) -> str:
    if os.path.isdir(path):
        return "is a folder; name an image file."
    if os.path.islink(path):
        return "a link that leads nowhere or in circles; link to an image file."
    return "no such file; put it there, or correct its name."


def check_image(image: np.ndarray, where: str) -> None:
    """Refuses an image that cannot be registered.

    Args:
        image: array of any shape and dtype.
        where: name of the image in the error.

    Raises:
        UserError: the image is not 2D or not of real numbers, has fewer than 8
            pixels a side, holds NaN or infinity, or is constant.
    """
    if image.ndim != 2:
        raise UserError(
            f"{where}: must be one 2D image, got an array of shape {image.shape}; "
            "cut slices first, or name one of a NIfTI volume, as in `volume.nii.gz#12`."
        )
    if image.dtype.kind not in "buif":
        raise UserError(f"{where}: intensities must be real numbers, got {image.dtype}; convert it.")
    if min(image.shape) < MIN_SIDE:
        raise UserError(
            f"{where}: each side must have at least {MIN_SIDE} pixels, got {image.shape}; remove it."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{where}: holds NaN or infinity; replace those pixels or remove the image.")
    if image.min() == image.max():
        raise UserError(f"{where}: constant image, every pixel is {image.flat[0]}; remove it.")


def _decode(path: Path) -> np.ndarray:
    name = path.name.lower()
    if name.endswith(".npy"):
        return without_trailing_axes(np.load(path, allow_pickle=False))
    if name.endswith(NIFTI):
        return _read_nifti(path)
    if name.endswith((".tif", ".tiff")):
        return _read_tiff(path)
    return _read_png_or_jpeg(path)


def without_trailing_axes(image: np.ndarray) -> np.ndarray:
    """Drops last axes of length 1 until the array is 2D.

    >>> import numpy as np
    >>> without_trailing_axes(np.zeros((20, 30, 1, 1))).shape
    (20, 30)
    """
    while image.ndim > 2 and image.shape[-1] == 1:
        image = image[..., 0]
    return image


def _read_nifti(path: Path) -> np.ndarray:
    import nibabel

    image: Any = nibabel.load(path)  # Its type is that of any image, which has no data.
    return without_trailing_axes(np.asarray(image.dataobj)).T


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) > 1:
            raise UserError(f"{path}: must be one 2D image, got {len(tiff.pages)} pages; save one page.")
        page = tiff.pages[0]
        photometric = page.photometric.name
        if photometric in ("MINISBLACK", "RGB"):
            return page.asarray()
    # Palettes, inverted grey values and JPEG colours need a conversion that tifffile does not do.
    return _read_png_or_jpeg(path)


def _read_png_or_jpeg(path: Path) -> np.ndarray:
    if _is_16_bit_multichannel_png(path):
        return _read_16_bit_png(path)
    with Image.open(path) as image:
        if image.mode == "1":
            image = image.convert("L")
        elif image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("RGB")
        return np.asarray(image)


def _is_16_bit_multichannel_png(path: Path) -> bool:
    """Whether Pillow would silently reduce the file to 8 bits."""
    with open(path, "rb") as stream:
        header = stream.read(26)
    return (
        header[:8] == b"\x89PNG\r\n\x1a\n"
        and header[24:25] == b"\x10"
        and header[25:26] in (b"\x02", b"\x04", b"\x06")
    )


def _read_16_bit_png(path: Path) -> np.ndarray:
    import tensorflow as tf

    return tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()


def one_channel(image: np.ndarray, colour: str) -> np.ndarray:
    """One channel, (height, width), of a grey or colour image; alpha is dropped.

    >>> import numpy as np
    >>> one_channel(np.arange(12).reshape(2, 2, 3), "green").tolist()
    [[1, 4], [7, 10]]

    Args:
        image: (height, width) or (height, width, 1 to 4); an array of any other shape is returned unchanged.
        colour: grey value of a colour image: "green" or "luminance".
    """
    if image.ndim != 3:
        return image
    channels = image.shape[-1]
    if channels in (1, 2):
        return image[..., 0]
    if channels not in _COLOUR_SIZES:
        return image
    if colour == "green":
        return image[..., 1]
    return image[..., :3].astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
