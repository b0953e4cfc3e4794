"""DICOM series: which files belong together, in which order, and whether they form one volume.

A file is DICOM if it has the mark "DICM" after its preamble or a name ending in `.dcm`. Other files, hidden
files and DICOMDIR are ignored. Slices are used as acquired and stored; nothing is resampled or rotated.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.errors import UserError
from tfmetareg.imaging.volumes import Volume

_PREAMBLE = 128
_MARK = b"DICM"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_TAGS = {
    "image_type": "0008|0008",
    "modality": "0008|0060",
    "description": "0008|103e",
    "patient": "0010|0020",
    "uid": "0020|000e",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
}
_TOLERANCE = 1e-3
# Largest deviation of a slice's distance from the usual one, as a share of it: positions are often rounded.
_UNEVEN = 0.1


@dataclasses.dataclass(frozen=True)
class Slice:
    """The header of one file.

    Attributes:
        path: the file's path.
        uid, description, modality: SeriesInstanceUID, SeriesDescription and Modality.
        patient: PatientID, empty where it was removed.
        localizer: whether it is a scout image.
        size: (height, width) in pixels.
        frames, channels: more than 1 in a multi-frame or a colour image.
        spacing: pixel size (row, column) in mm; empty if unknown.
        orientation: ImageOrientationPatient, 6 numbers; empty if unknown.
        position: ImagePositionPatient, place of the first pixel, 3 numbers in mm; empty if unknown.
    """

    path: Path
    uid: str
    description: str
    modality: str
    patient: str
    localizer: bool
    size: tuple[int, int]
    frames: int
    channels: int
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]

    @property
    def location(self) -> float:
        """Position along the slice's normal in mm; for usual axial slices it grows towards the head."""
        row, column = np.reshape(self.orientation, (2, 3))
        return float(np.cross(row, column) @ np.asarray(self.position))


@dataclasses.dataclass(frozen=True)
class Series:
    """Files of one SeriesInstanceUID, in the order of their paths."""

    slices: tuple[Slice, ...]

    def __str__(self) -> str:
        scout = "localizer, " if all(item.localizer for item in self.slices) else ""
        patient = f", patient {self.first.patient}" if self.first.patient else ""
        name = f"{self.first.uid} `{self.first.description}`: {self.first.modality}"
        return f"{name}, {scout}{len(self.slices)} slices{patient}"

    @property
    def first(self) -> Slice:
        """The first slice, for properties that all slices share."""
        return self.slices[0]

    @property
    def where(self) -> str:
        """Folder, UID and description: the beginning of a message about this series."""
        return f"{self.first.path.parent}: series {self.first.uid} `{self.first.description}`"

    @functools.cached_property
    def ordered(self) -> list[Slice]:
        """Slices in their order along the normal; only for a series without problems."""
        return sorted(self.slices, key=lambda item: item.location)


def dicom_files(root: Path) -> list[Path]:
    """DICOM files in a folder and below it, by their mark or their name, sorted.

    Raises:
        UserError: a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(_unreadable(error))

    return sorted(
        path
        for folder, _, names in os.walk(root, onerror=refuse)
        for path in (Path(folder, name) for name in names)
        if _claims_dicom(path)
    )


def _claims_dicom(path: Path) -> bool:
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    if path.name.lower().endswith(".dcm"):
        return True
    if not path.is_file():  # Reading a pipe would block.
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(_PREAMBLE + len(_MARK))[_PREAMBLE:] == _MARK
    except OSError:
        return True  # Reading its header reports the error.


def _unreadable(error: OSError) -> str:
    return f"{error.filename}: cannot be read ({error.strerror}); check its permissions."


def read_header(path: Path) -> Slice:
    """Reads one file without decoding its pixels.

    Raises:
        UserError: the file is not DICOM, is truncated, or has no image or no SeriesInstanceUID.
    """
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise UserError(_why_unreadable(path)) from None
    tags = {name: _tag(reader, key) for name, key in _TAGS.items()}
    if not tags["uid"]:
        raise UserError(f"{path}: has no SeriesInstanceUID; fetch it again, or move it out of the folder.")
    width, height, frames = (*reader.GetSize(), 1)[:3]
    return Slice(
        path=path,
        uid=tags["uid"],
        description=tags["description"],
        modality=tags["modality"],
        patient=tags["patient"],
        localizer="LOCALIZER" in tags["image_type"].upper().split("\\"),
        size=(height, width),
        frames=frames,
        channels=reader.GetNumberOfComponents(),
        spacing=_numbers(tags["spacing"], 2),
        orientation=_numbers(tags["orientation"], 6),
        position=_numbers(tags["position"], 3),
    )


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _why_unreadable(path: Path) -> str:
    """The reason, which the library does not give."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return _unreadable(error)
    if content[_PREAMBLE : _PREAMBLE + len(_MARK)] != _MARK:
        return f"{path}: not a DICOM file, though its name ends in .dcm; move it out of the folder."
    if _PIXEL_DATA in content:
        return f"{path}: DICOM file cut short or damaged; fetch it again, or move it out of the folder."
    return (
        f"{path}: DICOM without pixel data (a report, a plan, or cut short before the image); "
        "move it out of the folder, or fetch it again."
    )


def _tag(reader: sitk.ImageFileReader, key: str) -> str:
    value = reader.GetMetaData(key) if reader.HasMetaDataKey(key) else ""
    try:
        raw = value.encode("utf-8", "surrogateescape")
        return raw.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip(" \0")


def _numbers(text: str, count: int) -> tuple[float, ...]:
    """The `count` finite numbers of a text like `a\\b\\c`; empty if it holds anything else."""
    try:
        values = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()
    return values if len(values) == count and np.isfinite(values).all() else ()


def problems_of(series: Series) -> list[str]:
    """Reasons why the files of a series do not form one volume, a line each."""
    scouts = [item for item in series.slices if item.localizer]
    slices = [item for item in series.slices if not item.localizer]
    if not slices:
        return [f"{series.where} is a localizer (scout images); choose another series."]
    lines = []
    if scouts:
        lines.append(
            f"{series.where}: {len(scouts)} of its {len(series.slices)} files are localizers, "
            f"{scouts[0].path.name} for one; move them out of the folder."
        )
    other = [*_not_slices(series.where, slices), *_mixtures(series.where, slices)]
    return lines + (other or list(_wrong_steps(series.where, slices)))


def _not_slices(where: str, slices: Sequence[Slice]) -> Iterator[str]:
    rules = (
        (
            "hold several frames each",
            lambda item: item.frames > 1,
            "convert them to a file per slice, or to NIfTI for `--source pairs` (dcm2niix does).",
        ),
        ("are colour images", lambda item: item.channels > 1, "choose a series of grey slices."),
        (
            "have no ImagePositionPatient or ImageOrientationPatient, so that their order is unknown",
            lambda item: not (item.position and item.orientation),
            "choose a series of slices, or fetch it again.",
        ),
    )
    for what, breaks, remedy in rules:
        wrong = [item.path.name for item in slices if breaks(item)]
        if wrong:
            yield f"{where}: {len(wrong)} of its files {what}, {wrong[0]} for one; {remedy}"


def _mixtures(where: str, slices: Sequence[Slice]) -> Iterator[str]:
    for what, name in (
        ("sizes", "size"),
        ("pixel spacings", "spacing"),
        ("orientations", "orientation"),
        ("patients", "patient"),
    ):
        first = getattr(slices[0], name)
        others = [item for item in slices if not _alike(getattr(item, name), first)]
        if others:
            one, other = (_readable(value) for value in (first, getattr(others[0], name)))
            yield (
                f"{where}: mixed {what}, {one} in {slices[0].path.name}, {other} in {others[0].path.name} "
                f"({len(others)} of {len(slices)} files differ from the first); keep one kind in the folder."
            )


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, str) or len(one) != len(other):
        return one == other
    return np.allclose(one, other, rtol=0, atol=_TOLERANCE)


def _readable(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else " ".join(f"{part:.4g}" for part in value) or "none"


def _wrong_steps(where: str, slices: Sequence[Slice]) -> Iterator[str]:
    """A line if slices coincide, are missing, or are unevenly spaced."""
    ordered = sorted(slices, key=lambda item: item.location)
    steps = np.diff([item.location for item in ordered])
    twins = np.flatnonzero(steps < _TOLERANCE)
    if len(twins):
        one, other = (ordered[twins[0] + offset].path.name for offset in (0, 1))
        yield (
            f"{where}: {len(slices)} slices at {len(slices) - len(twins)} places, {one} and {other} at "
            "the same; remove duplicates, or keep one time point or echo in the folder."
        )
        return
    usual = float(np.median(steps)) if len(steps) else 0.0
    odd = np.flatnonzero(np.abs(steps - usual) > _UNEVEN * usual)
    if len(odd):
        one, other = (ordered[odd[0] + offset].path.name for offset in (0, 1))
        yield (
            f"{where}: slices are missing or unevenly spaced: {one} and {other} are {steps[odd[0]]:.4g} mm "
            f"apart, {usual:.4g} mm is usual ({len(odd)} such gaps); fetch the whole series."
        )


def read_volume(series: Series) -> Volume:
    """Reads the slices in order into a volume; its `axial(index)` gives each slice as stored.

    Returns:
        float32 voxels with rescale slope and intercept applied (Hounsfield units
        of a CT); the spacing is None where the files have no pixel size.

    Raises:
        UserError: a file whose pixels cannot be decoded.
    """
    ordered = series.ordered
    images = np.stack([_read_pixels(item.path) for item in ordered])
    step = float(np.median(np.diff([item.location for item in ordered]))) if len(ordered) > 1 else 1.0
    pixel = ordered[0].spacing
    return Volume(images.T[::-1, ::-1], (pixel[1], pixel[0], step) if pixel else None)


def _read_pixels(path: Path) -> np.ndarray:
    try:
        image = _reader(path).Execute()
    except RuntimeError:
        raise UserError(f"{path}: its image cannot be decoded; fetch the file again.") from None
    return sitk.GetArrayFromImage(image).reshape(image.GetHeight(), image.GetWidth()).astype(np.float32)
