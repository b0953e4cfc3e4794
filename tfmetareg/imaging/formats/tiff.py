"""Reads TIFF files of any compression, depth and layout, with the pixels as viewers show them.

tifffile gives the samples as stored. What the header says about their meaning is applied here: white is zero,
palettes, CMYK and YCbCr colours, separate planes, the way the picture is turned.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from PIL import Image as PillowImage

from tfmetareg.errors import UserError, one_line
from tfmetareg.imaging.formats import picture
from tfmetareg.imaging.formats.orientation import UPRIGHT, known, turned, turned_grid
from tfmetareg.imaging.formats.size import check_size, size_inside
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image

if TYPE_CHECKING:
    import tifffile

# What is wrong with a file is told in one line, and not on stderr as well.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

# TIFF and BigTIFF begin so, in either byte order.
MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC, _ORIENTATION, _INK_SET = 262, 274, 332
_RESOLUTION_X, _RESOLUTION_Y, _RESOLUTION_UNIT = 282, 283, 296
_MM_OF_RESOLUTION = {2: 25.4, 3: 10.0}
_CMYK = 1
_SEPARATED_PLANES = "S"
_REDUCED, _MASK = 1, 4
_GREY = ("MINISBLACK", "MINISWHITE", "MASK")
# Samples of a pixel that are grey or a colour, by the kind of pixels; ExtraSamples for one that is alpha.
_CHANNELS = {**dict.fromkeys(_GREY, 1), "PALETTE": 1, "RGB": 3, "YCBCR": 3, "SEPARATED": 4}
_ALPHA = ((1,), (2,))
# Codecs that Pillow has and imagecodecs lacks, if not in all of its releases.
_FAX = (2, 3, 4, 32771)
# Codecs that give RGB where YCbCr is stored: JPEG and its kin, WebP, JPEG XL.
_GIVE_RGB = (6, 7, 33007, 34892, 34927, 50001, 50002, 52546)
# Codecs whose data are pictures with headers of their own: JPEG and its kin, JPEG 2000, PNG.
_PICTURES = (6, 7, 33007, 34892, 33003, 33004, 33005, 34712, 34933)
_START_OF_PICTURE = 4096
# Pixels that JPEG may add to a side.
_BLOCK = 16
# ITK exchanges no rows and columns: how its picture has to be turned to be the picture as shown.
_TURN_OF_ITK = {5: 5, 6: 7, 7: 5, 8: 7}
# Millimetres in a unit of length, as ImageJ and OME write it.
_MM = {
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1e3),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
    **dict.fromkeys(("å", "angstrom"), 1e-7),
    "pm": 1e-9,
}


def read(path: Path, page: Optional[int] = None, *, indices: bool = False) -> Image:
    """Reads one page of a TIFF file.

    >>> import tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/a.tif", np.eye(8, dtype=np.uint16), photometric="miniswhite")
    ...     image = read(Path(folder, "a.tif"))
    >>> image.pixels[0, :2], image.notes
    (array([65534, 65535], dtype=uint16), ('white is zero in this file (MINISWHITE), so its values are \
inverted; ITK and tifffile show the negative',))

    Args:
        path: of the file.
        page: which page, from 0; without it, the file must have only one. Reduced copies and masks do not
            count.
        indices: for label maps: a palette's indices instead of its colours, values as stored.

    Returns:
        The image as shown, in its own depth; a palette's colours and CMYK as RGB. Its `spacing` is that of
        ImageJ or OME; a resolution for printing is in the grid alone, where ITK has it, too.

    Raises:
        UserError: the file has several pages and `page` is None, or has no such page; its pixels are of a
            kind that is not read.
        Exception: the file is no whole TIFF file.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        chosen = _page(path, tiff, page)
        _check(path, chosen)
        orientation = known(chosen.tags.valueof(_ORIENTATION, UPRIGHT))
        pixels, notes = _as_shown(path, chosen, orientation, indices)
        spacing = _physical(tiff, chosen)
        grid = Grid((chosen.imagelength, chosen.imagewidth), _printed(chosen))
    if orientation != UPRIGHT:
        pixels = turned(pixels, orientation)
        notes.append(f"turned as its Orientation tag ({orientation}) says; {_who_does_not_turn(orientation)}")
    exchanged = orientation in _TURN_OF_ITK
    if exchanged:
        spacing = spacing and spacing[::-1]
        grid = turned_grid(grid, _TURN_OF_ITK[orientation])
    return Image(pixels, grid, str(path), spacing, tuple(notes))


def _who_does_not_turn(orientation: int) -> str:
    if orientation in _TURN_OF_ITK:
        return "tifffile does not turn it, ITK does not exchange its rows and columns"
    return "tifffile does not turn it"


def _page(path: Path, tiff: tifffile.TiffFile, index: Optional[int]) -> tifffile.TiffPage:
    """The chosen page; reduced copies and masks, as slide scanners write them, are no pages of their own."""
    every: list[Any] = [*tiff.pages]  # Their type is that of pages or frames, which have no kind.
    pages = [page for page in every if not page.subfiletype & (_REDUCED | _MASK)] or every[:1]
    behind = _images_behind_one_page(tiff) if len(pages) == 1 else 1
    if behind > 1:
        raise UserError(f"{path}: must be one 2D image, holds a stack of {behind}; save one of them.")
    if index is None and len(pages) > 1:
        raise UserError(
            f"{path}: must be one 2D image, got {len(pages)} pages; name one, as in `{path.name}#0`, or save "
            "one page."
        )
    if (index or 0) >= len(pages):
        raise UserError(f"{path}: has no page {index}; pages are 0 to {len(pages) - 1}.")
    return pages[index or 0]


def _images_behind_one_page(tiff: tifffile.TiffFile) -> int:
    """ImageJ and tifffile write a large stack as one page with all its pixels behind it."""
    imagej, shaped = tiff.imagej_metadata, tiff.shaped_metadata
    if imagej and imagej.get("images"):
        return int(imagej["images"])
    if shaped and shaped[0].get("truncated"):
        return math.prod(shaped[0]["shape"]) // max(tiff.pages[0].size, 1)
    return 1


def _check(path: Path, page: tifffile.TiffPage) -> None:
    """Refuses pixels that are not there, or that would be read as something else."""
    if page.imagedepth > 1:
        raise UserError(f"{path}: must be one 2D image, is a volume of {page.imagedepth} slices; save one.")
    if page.dtype is None:
        raise UserError(
            f"{path}: samples of {page.bitspersample} bits and format {page.sampleformat} are not read; "
            "save it with 8, 16 or 32 bits."
        )
    check_size(path, page.nbytes)
    segments = math.prod(page.chunked)
    if not len(page.dataoffsets) == len(page.databytecounts) == segments:
        raise ValueError(f"{len(page.dataoffsets)} strips or tiles where {segments} are needed")
    file = page.parent.filehandle
    for at, count in zip(page.dataoffsets, page.databytecounts):
        if count and at + count > file.size:
            raise ValueError("cut short")
    if page.compression in _PICTURES:
        _check_pictures(page)


def _check_pictures(page: tifffile.TiffPage) -> None:
    """Refuses strips and tiles that are pictures of their own and claim to be larger than their place."""
    file = page.parent.filehandle
    place = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    for at, count in zip(page.dataoffsets, page.databytecounts):
        file.seek(at)
        start = file.read(min(count, _START_OF_PICTURE))
        claimed = size_inside(start) or size_inside(start + file.read(count - len(start)))
        if claimed and any(side > most + _BLOCK for side, most in zip(claimed, place)):
            raise ValueError(f"{claimed} pixels where {place} belong")


def _as_shown(
    path: Path, page: tifffile.TiffPage, orientation: int, indices: bool
) -> tuple[np.ndarray, list[str]]:
    """Pixels as shown, but not turned yet, and notes."""
    kind, notes = _kind(page)
    if kind not in _CHANNELS:
        raise UserError(f"{path}: pixels of kind {kind} are not read; save it in grey or as RGB.")
    if page.compression in _FAX:
        _check_upright(path, page, kind, orientation)
        return picture.decode(path), notes
    if page.is_subsampled and page.compression not in _GIVE_RGB:
        _check_upright(path, page, kind, orientation)
        return _by_itk(path, (page.imagelength, page.imagewidth)), notes
    samples, note = _channels(path, _samples(path, page), kind, page.extrasamples)
    notes += note
    if kind == "MINISWHITE" and not indices:
        samples = np.concatenate([_inverted(samples[..., :1], page.bitspersample), samples[..., 1:]], axis=-1)
        notes.append(
            "white is zero in this file (MINISWHITE), so its values are inverted; ITK and tifffile show the "
            "negative"
        )
    elif kind == "PALETTE" and not indices:
        samples = _colours(page)[samples[..., 0]]
    elif kind == "SEPARATED":
        samples = _rgb_of_cmyk(path, page, samples[..., :4])
    elif kind == "YCBCR" and page.compression not in _GIVE_RGB:
        samples = _rgb_of_ycbcr(path, samples[..., :3])
    return samples[..., 0] if samples.shape[-1] == 1 else samples, notes


def _channels(
    path: Path, samples: np.ndarray, kind: str, extra: tuple[int, ...]
) -> tuple[np.ndarray, list[str]]:
    """The colours of each pixel and alpha, without further samples, and a note where there are some."""
    count, channels = samples.shape[-1], _CHANNELS[kind]
    if count < channels or (kind in _GREY and count > 2):
        raise UserError(
            f"{path}: {count} samples in a pixel of kind {kind}, which are not the channels of a picture; "
            "save one channel, or RGB."
        )
    if count == channels or (count == channels + 1 and extra in _ALPHA):
        return samples, []
    note = f"{count - channels} of its samples are neither grey nor a colour; left out"
    return samples[..., :channels], [note]


def _kind(page: tifffile.TiffPage) -> tuple[str, list[str]]:
    """What the samples mean, and a note where the file does not tell."""
    if _PHOTOMETRIC in page.tags:
        return _name(page.photometric), []
    kind = "RGB" if page.samplesperpixel > 2 else "MINISBLACK"
    return kind, [f"the file does not tell what its values mean; they are taken as {kind}"]


def _samples(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    """(height, width, samples) as stored."""
    from tifffile import TIFF

    what = f"{path}: TIFF compression {_name(page.compression)}"
    remedy = "save it again uncompressed or with LZW (`tiffcp -c lzw` does)."
    if page.compression != 1 and page.compression not in TIFF.DECOMPRESSORS:
        raise UserError(f"{what} is not read; {remedy}")
    try:
        pixels = page.asarray()
    except (ImportError, NotImplementedError) as error:
        raise UserError(f"{what} is not read here ({one_line(error)}); {remedy}") from None
    if page.axes.startswith(_SEPARATED_PLANES):
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _check_upright(path: Path, page: tifffile.TiffPage, kind: str, orientation: int) -> None:
    """Refuses what ITK and Pillow turn in part, or scramble."""
    if orientation != UPRIGHT or page.index:
        raise UserError(
            f"{path}: {kind} with compression {_name(page.compression)} is not read where it is turned, or "
            "not on the first page; save it again with LZW, in grey or as RGB."
        )


def _by_itk(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """RGB of colours stored in blocks: libtiff makes it, tifffile and, uncompressed, Pillow do not."""
    colours = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    if colours.shape[:-1] != shape:
        raise ValueError("several pages of YCbCr")
    return colours[..., :3]


def _name(code: int) -> str:
    return getattr(code, "name", f"number {code}")


def _inverted(values: np.ndarray, bits: int) -> np.ndarray:
    """Values that are the darker the greater, turned round within their range."""
    if values.dtype.kind == "f":
        return 1 - values
    if values.dtype.kind == "u":
        return np.array(2**bits - 1, values.dtype) - values
    return ~values


def _colours(page: tifffile.TiffPage) -> np.ndarray:
    """(entries, 3) uint8: what viewers make of a table of 16 bits; some programs store 8 bits in it."""
    colormap = page.colormap
    if colormap is None:
        raise ValueError("a palette without colours")
    return (colormap if colormap.max() < 256 else colormap >> 8).astype(np.uint8).T


def _rgb_of_cmyk(path: Path, page: tifffile.TiffPage, inks: np.ndarray) -> np.ndarray:
    """RGB of the same depth, as Pillow computes it."""
    if page.tags.valueof(_INK_SET, _CMYK) != _CMYK or inks.dtype.kind != "u":
        raise UserError(f"{path}: inks other than CMYK are not read; save it as RGB.")
    full = np.iinfo(inks.dtype).max
    light = full - inks[..., 3:].astype(np.float64)
    return (light - np.floor(inks[..., :3] * light / full + 0.5)).astype(inks.dtype)


def _rgb_of_ycbcr(path: Path, samples: np.ndarray) -> np.ndarray:
    if samples.dtype != np.uint8:
        raise UserError(f"{path}: YCbCr colours of {samples.dtype} are not read; save it as RGB.")
    return np.asarray(PillowImage.fromarray(samples, "YCbCr").convert("RGB"))


def _printed(page: tifffile.TiffPage) -> tuple[float, float]:
    """Pixel size (x, y) in mm by the resolution for printing, as ITK reads it; 1 where none is told."""
    unit = _MM_OF_RESOLUTION.get(page.tags.valueof(_RESOLUTION_UNIT))
    x, y = _size(page, _RESOLUTION_X), _size(page, _RESOLUTION_Y)
    return (unit * x, unit * y) if unit and x and y else (1.0, 1.0)


def _physical(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> Optional[tuple[float, float]]:
    """Pixel size (row, column) in mm as ImageJ or OME tells it, None if neither does."""
    if tiff.is_ome:
        return _of_ome(page.parent.ome_metadata or "")
    unit = (tiff.imagej_metadata or {}).get("unit", "")
    sizes = [_size(page, tag) for tag in (_RESOLUTION_Y, _RESOLUTION_X)]
    return _millimetres(sizes, [str(unit)] * 2)


def _size(page: tifffile.TiffPage, tag: int) -> float:
    """Size of a pixel in the resolution's unit, 0 where it is not told."""
    pixels, units = page.tags.valueof(tag, (0, 0))
    return units / pixels if pixels else 0.0


def _of_ome(description: str) -> Optional[tuple[float, float]]:
    try:
        pixels = ElementTree.fromstring(description).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    sizes = [float(pixels.get(f"PhysicalSize{axis}", 0)) for axis in "YX"]
    return _millimetres(sizes, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"])


def _millimetres(sizes: list[float], units: list[str]) -> Optional[tuple[float, float]]:
    scales = [_MM.get(unit.strip().lower()) for unit in units]
    known_sizes = [size * scale for size, scale in zip(sizes, scales) if scale and 0 < size < math.inf]
    return (known_sizes[0], known_sizes[1]) if len(known_sizes) == 2 else None
