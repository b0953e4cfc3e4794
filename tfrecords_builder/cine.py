"""Pairs of phases of a cine series: images of one place at several times of the heart's cycle.

The fixed image is the first phase, end-diastole where the scan is triggered by the R wave. The moving one is
the phase least like it, near end-systole: the cycle is searched, no share of it is guessed. It is the same
phase at all places of a series.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats.dicom_header import read_header
from tfmetareg.imaging.formats.dicom_pixels import frame_pixels
from tfmetareg.imaging.image import one_channel
from tfmetareg.types import ImagePair, Note
from tfrecords_builder.series import TIMES, Series, Slice, mixtures, series_notes, without_localizers
from tfrecords_builder.slices import foreground_slices

_SAME_PLACE = 1e-3  # mm


@dataclasses.dataclass(frozen=True)
class Phase:
    """One image of a cine series.

    Attributes:
        slice: header of its file.
        frame: its frame in the file.
        location: along the slice's normal, mm; None in a file of several frames that does not tell it.
        times: value of each of `TIMES`, None where it is not told.
    """

    slice: Slice
    frame: int
    location: Optional[float]
    times: tuple[Optional[float], ...]

    def name(self, root: Path) -> str:
        """The file below a folder; of several frames, the frame as in `cine.dcm#3`."""
        name = self.slice.path.relative_to(root).as_posix()
        return name if self.slice.frames == 1 else f"{name}#{self.frame}"

    def image(self) -> np.ndarray:
        """(height, width) float32 in physical units; the luminance of a colour image.

        Raises:
            UserError: the pixels cannot be decoded.
        """
        pixels = frame_pixels(self.slice.path, self.frame)
        return one_channel(pixels, "luminance").astype(np.float32)


def cine_problems(series: Series) -> list[str]:
    """Reasons why a series does not show each place at the same number of times, a line each."""
    slices, lines = without_localizers(series)
    if not slices:
        return lines
    lines += mixtures(series.where, slices)
    unplaced = [item.path.name for item in slices if item.frames == 1 and not _is_placed(item)]
    if unplaced:
        lines.append(
            f"{series.where}: {len(unplaced)} of its files have no ImagePositionPatient or "
            f"ImageOrientationPatient, {unplaced[0]} for one, so that their place is unknown; fetch it again."
        )
    if lines:
        return lines
    try:
        phases_by_place(series)
    except UserError as error:
        return [str(error)]
    return []


def phases_by_place(series: Series) -> list[list[Phase]]:
    """The images of each place, in their order in time; places along the slices' normal.

    Raises:
        UserError: places with different numbers of images, with only one, or without an order in time.
    """
    slices, _ = without_localizers(series)
    places = _grouped([phase for item in slices for phase in _phases(item)])
    counts = sorted({len(phases) for phases in places})
    if counts == [1]:
        raise UserError(f"{series.where}: one image at each of {len(places)} places; `--cine` needs several.")
    if len(counts) > 1:
        raise UserError(
            f"{series.where}: {counts[0]} images at one place, {counts[-1]} at another; fetch the whole "
            "series, or keep one time resolution in the folder."
        )
    return _in_time(series.where, places)


def _phases(item: Slice) -> list[Phase]:
    if item.frames == 1:
        return [Phase(item, 0, item.location, item.times)]
    header = read_header(item.path)
    phases = []
    for frame in range(item.frames):
        position = header.numbers("ImagePositionPatient", 3, frame)
        orientation = header.numbers("ImageOrientationPatient", 6, frame)
        placed = dataclasses.replace(item, position=position, orientation=orientation)
        delay = header.numbers("NominalCardiacTriggerDelayTime", 1, frame)
        location = placed.location if _is_placed(placed) else None
        phases.append(Phase(item, frame, location, ((delay or (None,))[0], float(frame), None)))
    return phases


def _is_placed(item: Slice) -> bool:
    return bool(item.position and item.orientation)


def _grouped(phases: Sequence[Phase]) -> list[list[Phase]]:
    """Phases of one place together; without a location, a file is a place."""
    unplaced = [phase for phase in phases if phase.location is None]
    files = [[*group] for _, group in itertools.groupby(unplaced, key=lambda phase: phase.slice.path)]
    located = sorted((phase for phase in phases if phase.location is not None), key=_location)
    places: list[list[Phase]] = []
    for phase in located:
        if places and _location(phase) - _location(places[-1][-1]) < _SAME_PLACE:
            places[-1].append(phase)
        else:
            places.append([phase])
    return files + places


def _location(phase: Phase) -> float:
    return phase.location or 0.0


def _in_time(where: str, places: Sequence[list[Phase]]) -> list[list[Phase]]:
    """Sorts the images of each place by the surest time that tells them all apart."""
    for index in range(len(TIMES)):
        times = [[phase.times[index] for phase in phases] for phases in places]
        if all(None not in values and len({*values}) == len(values) for values in times):
            return [sorted(phases, key=lambda phase: phase.times[index] or 0.0) for phases in places]
    raise UserError(
        f"{where}: images of one place that neither {' nor '.join(TIMES)} tells apart; remove duplicates, or "
        "choose a series of phases."
    )


def cine_pairs(
    series: Series,
    root: Path,
    subject: str,
    *,
    phases: Optional[tuple[int, int]] = None,
    stride: int = 1,
    foreground: float = 0.1,
    window: Optional[tuple[float, float]] = None,
) -> Iterator[ImagePair]:
    """Yields a pair of phases for each place of a cine series.

    Args:
        series: without `cine_problems`.
        root: folder that the names of the pairs are relative to.
        subject: name of the patient.
        phases: (fixed, moving), from 0 in their order in time; by default the first one, and the one least
            like it.
        stride: from one place to the next.
        foreground: smallest share of foreground in the fixed images, see `foreground_slices`.
        window: (low, high) that intensities are clipped to first; None for no clipping.

    Raises:
        UserError: a phase that is not there, pixels that cannot be decoded, or only empty images.
    """
    places = phases_by_place(series)
    count = len(places[0])
    if phases is not None and max(phases) >= count:
        raise UserError(f"{series.where}: has no phase {max(phases)}; phases are 0 to {count - 1}.")
    fixed = phases[0] if phases else 0
    images = np.stack([_clipped(each[fixed].image(), window) for each in places], axis=-1)
    kept = foreground_slices(images, foreground)[::stride]
    if not kept:
        raise UserError(
            f"{series.where}: no pair of phases is left, all {len(places)} places are empty. Lower "
            "`--foreground`, or leave this series out."
        )
    notes = series_notes(series)
    moving = phases[1] if phases else 0
    if phases is None:
        moving, likeness = _least_like_the_first([places[place] for place in kept])
        notes += (Note(series.where, _note(moving, count, likeness)),)
    for place in kept:
        one, other = places[place][moving], places[place][fixed]
        yield ImagePair(
            key=f"{one.name(root)}:{other.name(root)}",
            subject=subject,
            moving=_clipped(one.image(), window),
            fixed=_clipped(other.image(), window),
            moving_spacing=one.slice.pixel_size,
            fixed_spacing=other.slice.pixel_size,
            notes=notes,
        )


def _clipped(image: np.ndarray, window: Optional[tuple[float, float]]) -> np.ndarray:
    return np.clip(image, *window) if window else image


def _least_like_the_first(places: Sequence[Sequence[Phase]]) -> tuple[int, float]:
    """The phase whose images correlate least with those of the first one, and their mean correlation."""
    likeness = np.zeros(len(places[0]) - 1)
    for phases in places:
        first = phases[0].image()
        likeness += [_correlation(first, phase.image()) for phase in phases[1:]]
    least = int(likeness.argmin())
    return least + 1, float(likeness[least] / len(places))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = (image - image.mean(dtype=np.float64) for image in (one, other))
    return float((one * other).sum() / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))


def _note(moving: int, count: int, likeness: float) -> str:
    return (
        f"phase {moving} of {count}, counted from 0, is least like phase 0 (correlation {likeness:.3f}) and "
        "is taken for end-systole; `--phases` names others"
    )
