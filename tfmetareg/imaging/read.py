"""Reads one 2D image from any of the formats that people have it in."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath
from tfmetareg.imaging.choices import FORMATS
from tfmetareg.imaging.volumes import parse_slice_reference, read_slice, volume_file

MIN_SIDE = 8
_COLOUR_SIZES = (3, 4)
_NIFTI = (".nii", ".nii.gz")


def is_image(path: Path) -> bool:
    """Whether the name has one of the endings that `read_image` reads."""
    return path.name.lower().endswith(FORMATS)


def is_nifti(name: StrPath) -> bool:
    """Whether the name, of a file or of a slice of a volume, is NIfTI's."""
    return volume_file(str(name)).lower().endswith(_NIFTI)


def stem(path: Path) -> str:
    """The file's name without the ending that tells its format."""
    ending = max((ending for ending in FORMATS if path.name.lower().endswith(ending)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def read_image(path: Path, colour: str = "green") -> np.ndarray:
    """Reads a PNG, TIFF, JPEG, NumPy or NIfTI file as one 2D image.

    The array of a 2D NIfTI file is transposed, so that its first axis (i) runs
    along the columns and its second (j) along the rows: a landmark x,y is
    voxel (i,j). Slices of volumes are turned as `volumes` tells. Orientation
    flags of camera files are not applied.

    Args:
        path: of the file, or a slice of a NIfTI volume: `volume.nii.gz#12`,
            of channel 1 of a 4D one `volume.nii.gz#12,1`.
        colour: what stands for a colour image: "green", the channel in which
            retinal vessels have the highest contrast, or "luminance".

    Returns:
        (height, width), raw intensities in the file's own real dtype (float32
        for luminance).

    Raises:
        UserError: missing, unknown format, unreadable or cut short, not 2D,
            smaller than 8 pixels, holding NaN or infinity, or constant.
    """
    image = read_pixels(path)
    if not is_nifti(path):  # whose axes are space, never colour
        image = one_channel(image, colour)
    check_image(image, str(path))
    return image


def read_pixels(path: Path) -> np.ndarray:
    """Reads what `read_image` reads, with all its channels.

    Returns:
        (height, width) or (height, width, channels), in the file's own dtype; not checked.

    Raises:
        UserError: missing, unknown format, unreadable or cut short.
    """
    place = parse_slice_reference(path)
    if place is not None:
        return read_slice(place)[0]
    if not os.path.isfile(path):  # Path.is_file raises where a folder above may not be entered.
        raise UserError(f"{path}: {_what_instead(path)}")
    if not is_image(path):
        raise UserError(f"{path}: unknown image format; use one of {', '.join(FORMATS)}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(path)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from OSError to zlib.error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: unreadable image ({reason}); replace the file.") from None


def _what_instead(path: Path) -> str:
    if os.path.isdir(path):
        return "is a folder; name an image file."
    if os.path.islink(path):
        return "a link that leads nowhere or in circles; link to an image file."
    return "no such file; put it there, or correct its name."


def check_image(image: np.ndarray, where: str) -> None:
    """Refuses what cannot be registered.

    Raises:
        UserError: `where`, and which rule the image breaks.
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
        return _without_last_axis_of_one(np.load(path, allow_pickle=False))
    if name.endswith(_NIFTI):
        return _read_nifti(path)
    if name.endswith((".tif", ".tiff")):
        return _read_tiff(path)
    return _read_png_or_jpeg(path)


def _without_last_axis_of_one(image: np.ndarray) -> np.ndarray:
    while image.ndim > 2 and image.shape[-1] == 1:
        image = image[..., 0]
    return image


def _read_nifti(path: Path) -> np.ndarray:
    import nibabel

    return _without_last_axis_of_one(np.asarray(nibabel.load(path).dataobj)).T


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) > 1:
            raise UserError(f"{path}: must be one 2D image, got {len(tiff.pages)} pages; save one page.")
        page = tiff.pages[0]
        photometric = page.photometric.name
        if photometric in ("MINISBLACK", "RGB"):
            return page.asarray()
    # Palettes, inverted greys and JPEG colour need conversion, which tifffile leaves to its caller.
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
    """Pillow would silently cut these to 8 bits."""
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
    """(height, width) of (height, width[, 1 to 4]); grey with alpha loses its alpha."""
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
