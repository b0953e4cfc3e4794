"""DICOM series: which files belong together, in which order, and whether they form one volume.

`imaging.formats.dicom_header` tells which files are DICOM. Slices are used as acquired and stored; nothing is
resampled or rotated.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats import dicom_header
from tfmetareg.imaging.formats.dicom import pixel_size
from tfmetareg.imaging.formats.dicom_header import is_dicom
from tfmetareg.imaging.formats.dicom_pixels import frame_pixels, value_notes
from tfmetareg.imaging.volumes import Volume
from tfmetareg.types import Note

# Elements that tell the order of images in time, the surest first.
TIMES = ("TriggerTime", "InstanceNumber", "AcquisitionTime")
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
        times: value of each of `TIMES`, None where it is not told.
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
    times: tuple[Optional[float], ...] = (None,) * len(TIMES)

    @property
    def location(self) -> float:
        """Position along the slice's normal in mm; for usual axial slices it grows towards the head."""
        row, column = np.reshape(self.orientation, (2, 3))
        return float(np.cross(row, column) @ np.asarray(self.position))

    @property
    def pixel_size(self) -> Optional[tuple[float, float]]:
        """Pixel size (row, column) in mm, None if unknown."""
        return (self.spacing[0], self.spacing[1]) if self.spacing else None


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
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions.")

    return sorted(
        path
        for folder, _, names in os.walk(root, onerror=refuse)
        for path in (Path(folder, name) for name in names)
        if is_dicom(path)
    )


def read_header(path: Path) -> Slice:
    """Reads one file without decoding its pixels.

    Raises:
        UserError: the file is not DICOM, is truncated, or has no image or no SeriesInstanceUID.
    """
    header = dicom_header.read_header(path)
    uid = header.text("SeriesInstanceUID")
    if not uid:
        raise UserError(f"{path}: has no SeriesInstanceUID; fetch it again, or move it out of the folder.")
    return Slice(
        path=path,
        uid=uid,
        description=header.text("SeriesDescription"),
        modality=header.text("Modality"),
        patient=header.text("PatientID"),
        localizer="LOCALIZER" in header.text("ImageType").upper().split("\\"),
        size=header.size,
        frames=header.frames,
        channels=header.channels,
        spacing=pixel_size(header)[0] or (),
        orientation=header.numbers("ImageOrientationPatient", 6),
        position=header.numbers("ImagePositionPatient", 3),
        times=tuple((header.numbers(name, 1) or (None,))[0] for name in TIMES),
    )


def problems_of(series: Series) -> list[str]:
    """Reasons why the files of a series do not form one volume, a line each."""
    slices, lines = without_localizers(series)
    if not slices:
        return lines
    other = [*_not_slices(series.where, slices), *mixtures(series.where, slices)]
    return lines + (other or list(_wrong_steps(series.where, slices)))


def without_localizers(series: Series) -> tuple[list[Slice], list[str]]:
    """The slices that are no scout images, and a line where there are some."""
    scouts = [item for item in series.slices if item.localizer]
    slices = [item for item in series.slices if not item.localizer]
    if not slices:
        return [], [f"{series.where} is a localizer (scout images); choose another series."]
    if not scouts:
        return slices, []
    return slices, [
        f"{series.where}: {len(scouts)} of its {len(series.slices)} files are localizers, "
        f"{scouts[0].path.name} for one; move them out of the folder."
    ]


def _not_slices(where: str, slices: Sequence[Slice]) -> Iterator[str]:
    rules = (
        (
            "hold several frames each",
            lambda item: item.frames > 1,
            "convert them to a file per slice, or to NIfTI for `--source pairs` (dcm2niix does); phases of a "
            "cine series are paired with `--cine`.",
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


def mixtures(where: str, slices: Sequence[Slice]) -> Iterator[str]:
    """Lines on what should be the same in all slices and is not."""
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
            "the same; remove duplicates, keep one time point or echo in the folder, or pair the phases of a "
            "cine series with `--cine`."
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
    images = np.stack([frame_pixels(item.path).astype(np.float32) for item in ordered])
    step = float(np.median(np.diff([item.location for item in ordered]))) if len(ordered) > 1 else 1.0
    pixel = ordered[0].spacing
    return Volume(images.T[::-1, ::-1], (pixel[1], pixel[0], step) if pixel else None)


def series_notes(series: Series) -> tuple[Note, ...]:
    """What is done to read a series that other programs do differently, by its first file."""
    header = dicom_header.read_header(series.first.path)
    return tuple(Note(series.where, text) for text in (*value_notes(header), *pixel_size(header)[1]))
