"""Pixels of DICOM files in physical units, or as viewers show them where they have none.

pydicom reads uncompressed values, imagecodecs decodes compressed ones: GDCM, which ITK uses, inverts
MONOCHROME1 before it rescales, and never gives back the memory of a damaged file. Slope and intercept are
applied to what is stored. MONOCHROME1 (low values are shown white) is only a way of showing: values with a
unit, such as Hounsfield units, keep it; those without one are inverted, as viewers show them.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np

from tfmetareg.errors import UserError, one_line
from tfmetareg.imaging.formats.dicom_header import Header, read_header
from tfmetareg.imaging.formats.size import size_inside

# Modalities whose values have a unit even where slope and intercept change nothing.
_MEASURED = ("CT", "PT", "NM")
_WITHOUT_UNIT = ("", "US")  # RescaleType: US is "unspecified".
_RLE = "1.2.840.10008.1.2.5"
_MOST_RLE_SEGMENTS = 15
_WORDS = (8, 16, 32, 64)


def frame_pixels(path: Path, frame: int = 0) -> np.ndarray:
    """Pixels of a frame in physical units, or as viewers show them where they have no unit.

    Args:
        path: of the file.
        frame: from 0.

    Returns:
        (height, width) or (height, width, 3): integers where slope and intercept are integers, else float64.

    Raises:
        UserError: the file cannot be read, or its pixels cannot be decoded.
    """
    status = path.stat()
    header, frames = _decoded(path, status.st_mtime_ns, status.st_size)
    stored = frames[frame]
    if stored.ndim == 3:
        return stored
    if _is_shown_inverted(header, frame):
        return _inverted(stored, header.integer("BitsStored", 16))
    return _rescaled(stored, *_rescale(header, frame))


def value_notes(header: Header, frame: int = 0) -> tuple[str, ...]:
    """What `frame_pixels` does that other programs do differently, a sentence each."""
    notes = []
    if "ModalityLUTSequence" in header:
        notes.append("its Modality LUT is not applied")
    if _is_shown_inverted(header, frame):
        notes.append("MONOCHROME1 without a unit: inverted, as viewers and ITK show it")
    elif _is_monochrome1(header):
        notes.append("MONOCHROME1: its values keep their unit; viewers show the negative, ITK reads it")
    return tuple(notes)


def _is_monochrome1(header: Header) -> bool:
    return header.text("PhotometricInterpretation") == "MONOCHROME1"


def _is_shown_inverted(header: Header, frame: int) -> bool:
    """Whether low values are shown white and have no unit to keep."""
    has_unit = header.text("RescaleType", frame) not in _WITHOUT_UNIT or header.text("Modality") in _MEASURED
    return _is_monochrome1(header) and _rescale(header, frame) == (1, 0) and not has_unit


def _rescale(header: Header, frame: int) -> tuple[float, float]:
    """Slope and intercept."""
    return header.number("RescaleSlope", 1.0, frame), header.number("RescaleIntercept", 0.0, frame)


def _inverted(stored: np.ndarray, bits: int) -> np.ndarray:
    if stored.dtype.kind == "f":
        return -stored
    return ~stored if stored.dtype.kind == "i" else np.array(2**bits - 1, stored.dtype) - stored


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if (slope, intercept) == (1, 0):
        return stored
    values = stored * np.float64(slope) + intercept
    is_exact = stored.dtype.kind in "ui" and slope.is_integer() and intercept.is_integer()
    return values.astype(np.int32) if is_exact and np.abs(values).max(initial=0) < 2**31 else values


@functools.lru_cache(maxsize=2)  # Frames of one file are mostly read in a row.
def _decoded(path: Path, modified: int, size: int) -> tuple[Header, np.ndarray]:
    """The header, and all frames as stored: (frames, height, width), of RGB (frames, height, width, 3)."""
    header = read_header(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = _decode(path, header)
        colours = (3,) if header.channels > 1 else ()
        pixels = pixels.reshape(header.frames, *header.size, *colours)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken file raises anything
        raise UserError(
            f"{path}: its image cannot be decoded ({one_line(error)}); fetch the file again."
        ) from None
    pixels.flags.writeable = False  # Others get the same array.
    return header, pixels


def _decode(path: Path, header: Header) -> np.ndarray:
    """Stored values, or colours as RGB."""
    photometric = header.text("PhotometricInterpretation")
    if header.syntax in _CODECS:
        decode = _CODECS[header.syntax]
        values = np.stack([decode(frame, photometric) for frame in _checked_frames(header)])
        photometric = "RGB" if decode is _decode_jpeg and values.ndim > 3 else photometric
    elif header.syntax == _RLE:
        values = _decode_rle(header)
    elif header.syntax.is_compressed:
        raise UserError(
            f"{path}: compressed as {header.syntax.name}, which is not read; save it uncompressed "
            "(`gdcmconv --raw` does)."
        )
    elif "PixelData" in header and header.integer("BitsAllocated") in _WORDS:
        values = _words(header, photometric)
    else:  # Single bits and floats.
        header.dataset.file_meta.TransferSyntaxUID = header.syntax
        return header.dataset.pixel_array
    if header.channels == 1:
        return _significant(header, values)
    return _rgb(header, values, photometric)


def _decode_jpeg(frame: bytes, photometric: str) -> np.ndarray:
    """8 and 12 bits, or without loss; colours come as RGB, whatever the file says of itself."""
    stored = {"RGB": "RGB", "YBR_FULL": "YCBCR", "YBR_FULL_422": "YCBCR"}.get(photometric)
    if stored is None:
        return imagecodecs.jpeg_decode(frame)
    return imagecodecs.jpeg_decode(frame, colorspace=stored, outcolorspace="RGB")


def _decode_jpeg_ls(frame: bytes, photometric: str) -> np.ndarray:
    return imagecodecs.jpegls_decode(frame)


def _decode_jpeg_2000(frame: bytes, photometric: str) -> np.ndarray:
    return imagecodecs.jpeg2k_decode(frame)


_CODECS: dict[str, Callable[[bytes, str], np.ndarray]] = {
    **{f"1.2.840.10008.1.2.4.{number}": _decode_jpeg for number in (50, 51, 57, 70)},
    **{f"1.2.840.10008.1.2.4.{number}": _decode_jpeg_ls for number in (80, 81)},
    **{f"1.2.840.10008.1.2.4.{number}": _decode_jpeg_2000 for number in (90, 91, 201, 202, 203)},
}


def _checked_frames(header: Header) -> Iterator[bytes]:
    """The frames; one that claims another size than the header would take memory, and is refused."""
    for frame in _compressed_frames(header):
        claimed = size_inside(frame)
        if claimed != header.size:
            raise ValueError(f"{header.size} pixels by its header, {claimed} inside")
        yield frame


def _compressed_frames(header: Header) -> Iterator[bytes]:
    from pydicom import encaps

    data = header.dataset.PixelData
    if hasattr(encaps, "generate_frames"):
        return encaps.generate_frames(data, number_of_frames=header.frames)
    return encaps.generate_pixel_data_frame(data, header.frames)  # pydicom 2


def _decode_rle(header: Header) -> np.ndarray:
    """(frames, height, width, samples): a plane of run lengths for each byte of each sample."""
    samples, width = header.integer("SamplesPerPixel", 1), header.integer("BitsAllocated", 16) // 8
    frames = []
    for frame in _compressed_frames(header):
        count, *places = np.frombuffer(frame, "<u4", _MOST_RLE_SEGMENTS + 1).tolist()
        if count != samples * width:
            raise ValueError(f"{count} segments where {samples * width} are needed")
        ends = [*places[1:count], len(frame)]
        segments = (imagecodecs.packbits_decode(frame[at:end]) for at, end in zip(places[:count], ends))
        pixels = header.size[0] * header.size[1]
        planes = np.stack([np.frombuffer(segment, np.uint8, pixels) for segment in segments])
        words = planes.reshape(samples, width, *header.size)  # The highest byte comes first.
        frames.append(np.ascontiguousarray(np.moveaxis(words, 1, -1)).view(f">u{width}")[..., 0])
    return np.moveaxis(np.stack(frames), 1, -1)


def _words(header: Header, photometric: str) -> np.ndarray:
    """Uncompressed words with all their bits, (frames, height, width, samples)."""
    bytes_of_word = header.integer("BitsAllocated") // 8
    data, order = header.dataset.PixelData, "<" if header.syntax.is_little_endian else ">"
    if order == ">" and bytes_of_word == 1 and header.dataset["PixelData"].VR == "OW":
        data = np.frombuffer(data, np.uint16).byteswap().tobytes()
    height, width = header.size
    samples = header.integer("SamplesPerPixel", 1)
    shape: tuple[int, ...] = (header.frames, height, width, samples)
    if photometric == "YBR_FULL_422":
        shape = (header.frames, height, width // 2, 4)
    elif header.integer("PlanarConfiguration"):
        shape = (header.frames, samples, height, width)
    words = np.frombuffer(data, f"{order}u{bytes_of_word}", math.prod(shape)).reshape(shape)
    if photometric == "YBR_FULL_422":  # Two pixels with colours in common.
        luma, chroma = words[..., :2].reshape(*shape[:2], -1), words[..., 2:].repeat(2, axis=2)
        return np.concatenate([luma[..., None], chroma], axis=-1)
    return np.moveaxis(words, 1, -1) if header.integer("PlanarConfiguration") else words


def _significant(header: Header, words: np.ndarray) -> np.ndarray:
    """Values of the stored bits; the others of a word may hold anything."""
    allocated = max(header.integer("BitsAllocated", 16), words.dtype.itemsize * 8)
    words = words.astype(f"{'i' if header.integer('PixelRepresentation') else 'u'}{allocated // 8}")
    bits = header.integer("BitsStored", allocated)
    high = header.integer("HighBit", bits - 1)
    if not 0 < bits <= allocated or not bits - 1 <= high < allocated:
        return words
    # To the top of the word and back: the sign comes along.
    return (words << (allocated - 1 - high)) >> (allocated - bits)


def _rgb(header: Header, values: np.ndarray, photometric: str) -> np.ndarray:
    """RGB of stored colours or of a palette's indices."""
    from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space

    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(values.reshape(header.frames, *header.size), header.dataset)
        return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)
    if photometric.startswith("YBR_FULL"):
        return convert_color_space(values, "YBR_FULL", "RGB")
    return values
