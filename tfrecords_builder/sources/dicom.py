"""`dicom`: a folder of DICOM series, directly in it or in folders below.

Series are chosen by UID or by description; a description selects that series of every patient. Pairs are
neighbouring slices of one series as acquired (a sagittal series gives sagittal slices); the slice further
along the normal is the moving one. With `--cine`, pairs are two phases of one place, see `cine`. The subject
is the PatientID or, where that was removed, the first folder below `--input`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.names import composed
from tfmetareg.types import ImagePair
from tfrecords_builder.cine import cine_pairs, cine_problems
from tfrecords_builder.progress import progress
from tfrecords_builder.series import (
    Series,
    Slice,
    dicom_files,
    problems_of,
    read_header,
    read_volume,
    series_notes,
)
from tfrecords_builder.slices import slice_pairs
from tfrecords_builder.sources.base import (
    SLICE_OPTIONS,
    LazyPairs,
    Option,
    Request,
    SourceTask,
    existing_folder,
    number,
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
        "help": "series to use: SeriesInstanceUID, SeriesDescription (upper or lower case) or `all` "
        "(default: the only series)",
    },
)
_MODALITY = Option(
    "--modality",
    {
        "default": None,
        "metavar": "TEXT",
        "help": "modality of the images, for the manifest (default: the files' Modality, for instance CT)",
    },
)
_CINE = Option(
    "--cine",
    {
        "action": "store_true",
        "default": False,
        "help": "pair phases instead of neighbouring slices: at each place the first phase (fixed) with the "
        "one least like it (moving), in the order of TriggerTime, else InstanceNumber, else AcquisitionTime "
        "(default: neighbouring slices)",
    },
)
_PHASES = Option(
    "--phases",
    {
        "nargs": 2,
        "type": number(int, 0),
        "default": None,
        "metavar": ("FIXED", "MOVING"),
        "help": "pair these phases of a cine series, counted from 0 (default: see --cine)",
    },
)


@source(
    "dicom",
    summary="folder of DICOM series, also in folders below it",
    options=(_SERIES, *SLICE_OPTIONS, _CINE, _PHASES, _MODALITY),
)
def dicom_tasks(request: Request) -> list[SourceTask]:
    """One task of the chosen series, named by `request.task`, else like the folder.

    Raises:
        UserError: no folder, no DICOM image in it, several series without a choice, no series of a chosen
            name, series of different modalities, or an impossible window.
    """
    root = existing_folder(request.input)
    limits = window(request)
    available = _read_series(root, request.problems)
    if not available:
        request.problems.raise_any()
        raise UserError(
            f"{root}: no DICOM images in this folder or below; `--input` must be one that has some."
        )
    chosen = _chosen(root, available, request.options["series"])
    modality = request.options["modality"] or _modality(root, chosen)
    if limits:
        modality += " ({:g} to {:g})".format(*limits)
    phases = _phases(request)
    is_cine = request.options["cine"] or phases is not None
    whole = []
    for series in chosen:
        lines = cine_problems(series) if is_cine else problems_of(series)
        for line in lines:
            request.problems.add(line)
        if not lines:
            whole.append(series)
    slicing = {name: request.options[name] for name in ("stride", "foreground")}
    make_pairs: Callable[..., Iterator[ImagePair]]
    if is_cine:
        make_pairs = functools.partial(_phase_pairs, phases=phases, window=limits, **slicing)
    else:
        make_pairs = functools.partial(_series_pairs, gap=request.options["gap"], window=limits, **slicing)
    partitions = [functools.partial(make_pairs, root, series, request.problems) for series in whole]
    return [SourceTask(request.task or root.resolve().name, request.role, modality, LazyPairs(partitions))]


def _read_series(root: Path, problems: Problems) -> list[Series]:
    """All series in the folder and below it, in the order of their first files."""
    groups: dict[str, list[Slice]] = {}
    for path in progress(dicom_files(root), "reading headers", unit="files"):
        with problems.collected():
            header = read_header(path)
            groups.setdefault(header.uid, []).append(header)
    return [Series(tuple(slices)) for slices in groups.values()]


def _chosen(root: Path, available: Sequence[Series], wanted: Optional[Sequence[str]]) -> list[Series]:
    if wanted is None and len(available) == 1 or wanted == [_ALL]:
        return list(available)
    if wanted is None:
        raise UserError(
            f"{root}: holds {len(available)} series; choose with `--series UID` or `--series DESCRIPTION`, "
            f"or take all with `--series {_ALL}`:\n" + "\n".join(f"  {series}" for series in available)
        )
    chosen: dict[str, Series] = {}
    for name in wanted:
        matching = [series for series in available if _named(series, name)]
        if not matching:
            raise UserError(_no_such_series(root, available, name))
        chosen.update({series.first.uid: series for series in matching})
    return [series for series in available if series.first.uid in chosen]


def _named(series: Series, name: str) -> bool:
    description = composed(series.first.description).casefold()
    return name == series.first.uid or composed(name.strip()).casefold() == description


def _no_such_series(root: Path, available: Sequence[Series], name: str) -> str:
    names = sorted({text for series in available for text in (series.first.uid, series.first.description)})
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean `{near[0]}`?" if near else "there are:"
    listed = [] if near else [f"  {series}" for series in available]
    return "\n".join([f"{root}: has no series `{name}`; {hint}", *listed])


def _modality(root: Path, chosen: Sequence[Series]) -> str:
    kinds = sorted({series.first.modality or "unspecified" for series in chosen})
    if len(kinds) > 1:
        raise UserError(
            f"{root}: the chosen series are of different modalities, {' and '.join(kinds)}; "
            "build a task from each with `--series`, or name the mixture with `--modality`."
        )
    return kinds[0]


def _phases(request: Request) -> Optional[tuple[int, int]]:
    """(fixed, moving) of `--phases`, or None.

    Raises:
        UserError: it names one phase twice, or `--gap` is there, too, which has no use in a cine series.
    """
    phases = request.options["phases"]
    if (phases or request.options["cine"]) and request.options["gap"] != 1:
        raise UserError("`--gap` has no use with `--cine`, which pairs phases of one place; leave it out.")
    if phases is None:
        return None
    fixed, moving = phases
    if fixed == moving:
        raise UserError(f"`--phases`: FIXED and MOVING must differ, got {fixed} {moving}.")
    return fixed, moving


def _phase_pairs(root: Path, series: Series, problems: Problems, **options: Any) -> Iterator[ImagePair]:
    with problems.collected():
        yield from cine_pairs(series, root, _subject(root, series), **options)


def _series_pairs(root: Path, series: Series, problems: Problems, **slicing: Any) -> Iterator[ImagePair]:
    names = [header.path.relative_to(root).as_posix() for header in series.ordered]
    with problems.collected():
        volume, notes = read_volume(series), series_notes(series)
        pairs = slice_pairs(volume, None, _subject(root, series), series.where, names=names, **slicing)
        yield from (dataclasses.replace(pair, notes=notes) for pair in pairs)


def _subject(root: Path, series: Series) -> str:
    """The patient's ID; without one, the first folder below the root on the way to the series."""
    folders = series.first.path.relative_to(root).parts[:-1]
    return series.first.patient or (folders[0] if folders else root.resolve().name)
