"""`dicom`: a folder of DICOM series, directly in it or in folders below.

The series is chosen by its UID or description; a description takes that series
of every patient. Pairs are neighbouring slices of one series as they were
acquired (a sagittal series gives sagittal slices), the further one along the
normal moving. Subject is the PatientID or, where that was removed, the first
folder below `--input`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from tfmetareg.errors import Problems, UserError
from tfmetareg.types import ImagePair
from tfrecords_builder.progress import progress
from tfrecords_builder.series import (
    Series,
    Slice,
    dicom_files,
    problems_of,
    read_header,
    read_volume,
)
from tfrecords_builder.slices import slice_pairs
from tfrecords_builder.sources.base import (
    SLICE_OPTIONS,
    Lazy,
    Option,
    Request,
    SourceTask,
    existing_folder,
    source,
    window,
)

_ALL = "all"
_SERIES = Option(
    "--series",
    {
        "nargs": "+",
        "default": None,
        "metavar": "NAME",
        "help": "series to take: SeriesInstanceUID, or SeriesDescription in any case, or `all` "
        "(default: the only one)",
    },
)
_MODALITY = Option(
    "--modality",
    {
        "default": None,
        "metavar": "TEXT",
        "help": "what the images are, for the manifest (default: as the files say, for instance CT)",
    },
)


@source(
    "dicom",
    summary="folder of DICOM series, also in folders below it",
    options=(_SERIES, *SLICE_OPTIONS, _MODALITY),
)
def dicom_tasks(request: Request) -> list[SourceTask]:
    """One task of the chosen series, named by `request.task` or else like the folder.

    Raises:
        UserError: no folder, no DICOM image in it, no series or several where
            one is to be chosen, series of different modalities, or an impossible window.
    """
    root = existing_folder(request.input)
    limits = window(request)
    found = _read_series(root, request.problems)
    if not found:
        request.problems.raise_any()
        raise UserError(
            f"{root}: no DICOM images in this folder or below; `--input` must be one that has some."
        )
    chosen = _chosen(root, found, request.options["series"])
    modality = request.options["modality"] or _modality(root, chosen)
    if limits:
        modality += " ({:g} to {:g})".format(*limits)
    sound = []
    for series in chosen:
        lines = problems_of(series)
        for line in lines:
            request.problems.add(line)
        if not lines:
            sound.append(series)
    slicing = {**{name: request.options[name] for name in ("gap", "stride", "foreground")}, "window": limits}
    parts = [functools.partial(_series_pairs, root, series, slicing, request.problems) for series in sound]
    return [SourceTask(request.task or root.resolve().name, request.role, modality, Lazy(parts))]


def _read_series(root: Path, problems: Problems) -> list[Series]:
    """All series in the folder and those below, in the order of their first files' paths."""
    groups: dict[str, list[Slice]] = {}
    for path in progress(dicom_files(root), "reading headers", unit="files"):
        with problems.collected():
            found = read_header(path)
            groups.setdefault(found.uid, []).append(found)
    return [Series(tuple(slices)) for slices in groups.values()]


def _chosen(root: Path, found: Sequence[Series], wanted: Optional[Sequence[str]]) -> list[Series]:
    if wanted is None and len(found) == 1 or wanted == [_ALL]:
        return list(found)
    if wanted is None:
        raise UserError(
            f"{root}: holds {len(found)} series; choose with `--series UID` or `--series DESCRIPTION`, "
            f"or take all with `--series {_ALL}`:\n" + "\n".join(f"  {series}" for series in found)
        )
    chosen: dict[str, Series] = {}
    for name in wanted:
        matching = [series for series in found if _named(series, name)]
        if not matching:
            raise UserError(_no_such_series(root, found, name))
        chosen.update({series.first.uid: series for series in matching})
    return [series for series in found if series.first.uid in chosen]


def _named(series: Series, name: str) -> bool:
    return name == series.first.uid or name.strip().casefold() == series.first.description.casefold()


def _no_such_series(root: Path, found: Sequence[Series], name: str) -> str:
    names = sorted({text for series in found for text in (series.first.uid, series.first.description)})
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean `{near[0]}`?" if near else "there are:"
    listed = [] if near else [f"  {series}" for series in found]
    return "\n".join([f"{root}: has no series `{name}`; {hint}", *listed])


def _modality(root: Path, chosen: Sequence[Series]) -> str:
    kinds = sorted({series.first.modality or "unspecified" for series in chosen})
    if len(kinds) > 1:
        raise UserError(
            f"{root}: the chosen series are of different modalities, {' and '.join(kinds)}; "
            "build a task from each with `--series`, or name the mixture with `--modality`."
        )
    return kinds[0]


def _series_pairs(
    root: Path, series: Series, slicing: dict[str, Any], problems: Problems
) -> Iterator[ImagePair]:
    names = [found.path.relative_to(root).as_posix() for found in series.ordered]
    with problems.collected():
        volume = read_volume(series)
        yield from slice_pairs(volume, None, _subject(root, series), series.where, names=names, **slicing)


def _subject(root: Path, series: Series) -> str:
    """The patient's ID or, without one, the first folder below the root that holds the series."""
    folders = series.first.path.relative_to(root).parts[:-1]
    return series.first.patient or (folders[0] if folders else root.resolve().name)
