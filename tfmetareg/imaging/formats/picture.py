"""Reads PNG and JPEG files, with the pixels as viewers show them: turned as EXIF says; gamma is ignored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats.orientation import UPRIGHT, known, turned, turned_grid
from tfmetareg.imaging.formats.size import check_size, size_inside
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image

_ORIENTATION = 274
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
MARKS = (_PNG, _JPEG)
# Pillow reads many other formats, some of them with programs of the system.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
# Bytes of a sample in Pillow's modes, where it is not one.
_BYTES = {"I;16": 2, "I;16B": 2, "I": 4, "F": 4}
# Millimetres in the units of a JPEG file's resolution.
_MM = {1: 25.4, 2: 10.0}
_SIXTEEN_BITS, _GREY, _COLOUR, _GREY_ALPHA, _COLOUR_ALPHA = 16, 0, 2, 4, 6


def read(path: Path, *, indices: bool = False) -> Image:
    """Reads a PNG or JPEG file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exif = PillowImage.Exif()
    ...     exif[274] = 6
    ...     PillowImage.new("L", (30, 20)).save(f"{folder}/a.jpg", exif=exif)
    ...     image = read(Path(folder, "a.jpg"))
    >>> image.shape, image.notes
    ((30, 20), ('turned as its EXIF orientation (6) says, as viewers show it; ITK does not turn it',))

    Args:
        path: of the file.
        indices: for label maps: a palette's indices instead of its colours, and the numbers of 1, 2 and 4
            bits of grey, which are stretched to 8 otherwise.

    Returns:
        The image as shown: grey, RGB or RGBA, 8 or 16 bits. Its grid is where ITK, which does not turn the
        picture, has the same pixels.

    Raises:
        UserError: the file is an animation.
        Exception: the file is no whole image.
    """
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # A camera's file: further pictures belong to the first.
            raise UserError(f"{path}: must be one 2D image, is an animation of {frames}; save one of them.")
        pixels = _pixels(path, image, indices)
        spacing = _printed(image)
        orientation = _orientation(image)  # PNG may tell it after the pixels.
    grid = Grid((pixels.shape[0], pixels.shape[1]), spacing)
    if orientation == UPRIGHT:
        return Image(pixels, grid, str(path))
    note = f"turned as its EXIF orientation ({orientation}) says, as viewers show it; ITK does not turn it"
    return Image(turned(pixels, orientation), turned_grid(grid, orientation), str(path), notes=(note,))


def decode(path: Path) -> np.ndarray:
    """The pixels of any file that Pillow reads, as stored: grey, RGB or RGBA, 8 or 16 bits, or floats."""
    with _opened(path) as image:
        return _pixels(path, image, indices=False)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[PillowImage.Image]:
    """The image with its header alone read, whose claims have been checked."""
    limit, PillowImage.MAX_IMAGE_PIXELS = (
        PillowImage.MAX_IMAGE_PIXELS,
        None,
    )  # Ours goes by the file's length.
    try:
        with PillowImage.open(path, formats=_FORMATS) as image:
            sample = _BYTES.get(image.mode, 1)
            check_size(path, image.width * image.height * len(image.getbands()) * sample)
            yield image
    except UnidentifiedImageError:
        content = path.read_bytes()
        if content.startswith(_JPEG) and size_inside(content):
            raise UserError(
                f"{path}: JPEG of 12 bits or without loss is not read; save it as PNG or TIFF."
            ) from None
        raise ValueError("neither PNG nor JPEG") from None
    finally:
        PillowImage.MAX_IMAGE_PIXELS = limit


def _printed(image: PillowImage.Image) -> tuple[float, float]:
    """Pixel size (x, y) in mm by a JPEG file's resolution, as ITK reads it; 1 without one."""
    unit, (x, y) = _MM.get(image.info.get("jfif_unit", 0)), image.info.get("jfif_density", (0, 0))
    return (unit / x, unit / y) if unit and x and y else (1.0, 1.0)


def _orientation(image: PillowImage.Image) -> int:
    """EXIF's orientation; damaged EXIF data are ignored, as viewers do."""
    exif = PillowImage.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return known(exif.get(_ORIENTATION))
    except Exception:  # noqa: BLE001 - from SyntaxError to struct.error
        return UPRIGHT


def _pixels(path: Path, image: PillowImage.Image, indices: bool) -> np.ndarray:
    image.load()
    if _is_16_bit_multichannel_png(path):  # Pillow would silently reduce it to 8 bits.
        return imagecodecs.png_decode(path.read_bytes())
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P" and indices:
        pass
    elif image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    bits = _bits_of_grey(path) if indices else 8
    return pixels // (255 // (2**bits - 1)) if bits < 8 else pixels


def _bits_of_grey(path: Path) -> int:
    """Bits of a pixel of a grey PNG; 8 for any other file."""
    with open(path, "rb") as stream:
        header = stream.read(26)
    return header[24] if header[:8] == _PNG and header[25] == _GREY else 8


def _is_16_bit_multichannel_png(path: Path) -> bool:
    with open(path, "rb") as stream:
        header = stream.read(26)
    return (
        header[:8] == _PNG
        and header[24] == _SIXTEEN_BITS
        and header[25] in (_COLOUR, _GREY_ALPHA, _COLOUR_ALPHA)
    )
