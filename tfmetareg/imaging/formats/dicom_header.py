"""Headers of DICOM files: which files are DICOM, what their elements say, and whether it can be true."""

from __future__ import annotations

import logging
import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats.size import check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# What is wrong with a file is told in one line, and not on stderr as well.
logging.getLogger("pydicom").addHandler(logging.NullHandler())

ENDING = ".dcm"
PREAMBLE = 128
_MARK = b"DICM"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Longer elements are read when they are needed: the pixels.
_DEFER = 4096
_MOST_INFLATED = 2**30
# Bytes of the element that tells the length of the file's meta information.
_GROUP_LENGTH = 12
_UNDEFINED = 0xFFFFFFFF


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its name or its mark; DICOMDIR and hidden files do not count.

    >>> is_dicom(Path("slice.DCM")), is_dicom(Path("notes.txt"))
    (True, False)
    """
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    if path.name.lower().endswith(ENDING):
        return True
    if not os.path.isfile(path):  # Reading a pipe would block.
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(PREAMBLE + len(_MARK))[PREAMBLE:] == _MARK
    except OSError:
        return True  # Reading its header reports the error.


class Header:
    """Elements of a DICOM file, or of an item in it. What is damaged is as good as not there.

    >>> from pydicom.dataset import Dataset
    >>> dataset = Dataset()
    >>> dataset.PixelSpacing, dataset.Rows, dataset.Columns = [0.5, 0.4], 20, 30
    >>> header = Header(dataset)
    >>> header.size, header.numbers("PixelSpacing", 2), header.numbers("RescaleSlope", 1)
    ((20, 30), (0.5, 0.4), ())

    Attributes:
        dataset: the elements, as pydicom reads them.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.dataset

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.integer("Rows"), self.integer("Columns")

    @property
    def frames(self) -> int:
        """Number of frames, 1 for a slice."""
        return max(1, self.integer("NumberOfFrames", 1))

    @property
    def channels(self) -> int:
        """Number of channels of a frame: 3 for RGB, YBR and palettes."""
        is_palette = self.text("PhotometricInterpretation") == "PALETTE COLOR"
        return 3 if is_palette else max(1, self.integer("SamplesPerPixel", 1))

    @property
    def syntax(self) -> Any:
        """The transfer syntax, pydicom's `UID`; the oldest one where none is told."""
        from pydicom.uid import ImplicitVRLittleEndian

        return getattr(self.dataset.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian)

    @property
    def is_packed(self) -> bool:
        """Whether the file may be shorter than its pixels."""
        return not self.syntax.is_transfer_syntax or self.syntax.is_compressed or self.syntax.is_deflated

    def text(self, keyword: str, frame: int = 0) -> str:
        """A text; several, joined by a backslash; empty if it is not there."""
        values = self._values(keyword, frame)
        return "\\".join(str(value).strip(" \0") for value in values)

    def numbers(self, keyword: str, count: int, frame: int = 0) -> tuple[float, ...]:
        """So many finite numbers, of the file or of a frame of it; empty if they are not all there."""
        try:
            values = tuple(float(value) for value in self._values(keyword, frame))
        except (TypeError, ValueError):
            return ()
        return values if len(values) == count and np.isfinite(values).all() else ()

    def number(self, keyword: str, default: float, frame: int = 0) -> float:
        """A finite number, or the default."""
        return (self.numbers(keyword, 1, frame) or (default,))[0]

    def integer(self, keyword: str, default: int = 0) -> int:
        """An integer, or the default."""
        return int(self.number(keyword, default))

    def items(self, keyword: str) -> list[Header]:
        """The items of a sequence."""
        return [Header(item) for item in self._values(keyword, 0)]

    def _values(self, keyword: str, frame: int) -> list[Any]:
        try:
            value = self._element(keyword, frame)
        except Exception:  # noqa: BLE001 - a damaged element raises anything
            return []
        if value is None:
            return []
        return [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else [*value]

    def _element(self, keyword: str, frame: int) -> Any:
        """An element of the file, or else of the frame's functional groups, or of those of all frames."""
        dataset = self.dataset
        if keyword in dataset:
            return dataset.get(keyword)
        per_frame = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
        for macro in (macro.value for group in (*per_frame, *shared) for macro in group if macro.VR == "SQ"):
            if macro and keyword in macro[0]:
                return macro[0].get(keyword)
        return None


def read_header(path: Path) -> Header:
    """Reads a file without decoding its pixels, and checks that they are there.

    Raises:
        UserError: the file is not DICOM, is cut short, or has no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Header(_parse(path))
            is_image = min(header.size) > 0 and any(name in header for name in _PIXELS)
            pixels = header.size[0] * header.size[1] * header.frames * header.integer("SamplesPerPixel", 1)
            claimed = pixels * header.integer("BitsAllocated", 8) // 8
            is_packed = header.is_packed
    except UserError:
        raise
    except OSError as error:
        if error.strerror is None:  # From pydicom.
            raise UserError(_why_unreadable(path)) from None
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
    except Exception:  # noqa: BLE001 - a broken file raises anything
        raise UserError(_why_unreadable(path)) from None
    if not is_image:
        raise UserError(_why_unreadable(path))
    check_size(path, claimed, *(() if is_packed else (1,)))
    return header


def _parse(path: Path) -> Dataset:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        is_deflated = _is_deflated(path)
        dataset = pydicom.dcmread(path, defer_size=None if is_deflated else _DEFER)
    except InvalidDicomError:  # Some old files have neither preamble nor mark.
        is_deflated = False
        dataset = pydicom.dcmread(path, defer_size=_DEFER, force=True)
        if "SOPClassUID" not in dataset:
            raise
    if not is_deflated:
        _check_lengths(dataset, os.path.getsize(path))
    return dataset


def _check_lengths(dataset: Dataset, length: int) -> None:
    """Refuses a file that ends within an element; GDCM would take memory for what such an element claims."""
    for tag in dataset.keys():
        raw: Any = dataset.get_item(tag)
        claimed = getattr(raw, "length", _UNDEFINED)
        if claimed != _UNDEFINED and raw.value_tell + claimed > length:
            raise EOFError("cut short")


def _is_deflated(path: Path) -> bool:
    """Whether a file is packed as a whole.

    Raises:
        UserError: it is, and unpacked it would fill the memory.
        InvalidDicomError: the file has no mark.
    """
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    unpacker, length = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open(path, "rb") as stream:
        stream.seek(PREAMBLE + len(_MARK) + _GROUP_LENGTH + meta.FileMetaInformationGroupLength)
        while packed := unpacker.unconsumed_tail or stream.read(2**16):
            length += len(unpacker.decompress(packed, 2**20))
            if length > _MOST_INFLATED:
                raise UserError(
                    f"{path}: holds over {_MOST_INFLATED:,} bytes when unpacked; save it uncompressed."
                )
    return True


def _why_unreadable(path: Path) -> str:
    """The reason, as far as the content shows it."""
    content = path.read_bytes()
    if content[PREAMBLE : PREAMBLE + len(_MARK)] != _MARK:
        return f"{path}: not a DICOM file, though its name ends in .dcm; move it out of the folder."
    if _PIXEL_DATA in content:
        return f"{path}: DICOM file cut short or damaged; fetch it again, or move it out of the folder."
    return (
        f"{path}: DICOM without pixel data (a report, a plan, or cut short before the image); "
        "move it out of the folder, or fetch it again."
    )
