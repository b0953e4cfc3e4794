"""`pairs`: a folder of image pairs listed in its `pairs.csv`.

Columns `moving,fixed` are required. Optional are `task`, `subject` (without
one, pairs that share an image are one subject), `split`, `moving_landmarks,fixed_landmarks`
(CSV files) and `moving_spacing,fixed_spacing` (pixel size in mm: `0.5`, or
row and column as `0.5 0.4` or `0.5x0.4`). Paths are relative to the folder.

`volume.nii.gz#12` is axial slice 12 of a NIfTI volume, `volume.nii.gz#12,1` that
of channel 1 (in quotes where commas separate the columns); see `volumes` for how
it is turned. All slices of a volume are one subject; their spacing need not be given.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.pair_table import REQUIRED_COLUMNS, TABLE, Row, listed_pairs, read_pair
from tfmetareg.imaging.volumes import volume_file
from tfmetareg.types import ImagePair
from tfrecords_builder.sources.base import (
    COLOUR,
    MODALITY,
    Lazy,
    Request,
    SourceTask,
    existing_folder,
    source,
)
from tfrecords_builder.splits import subjects_by_image

# Where it stands, its cells, its subject.
Pair = tuple[str, Row, str]


@source("pairs", summary="folder of image pairs listed in its pairs.csv", options=(MODALITY, COLOUR))
def pairs_tasks(request: Request) -> list[SourceTask]:
    """The tasks of a folder with `pairs.csv`.

    Without a `task` column there is one, named by `request.task` or else like
    the folder. With one, `request.task` picks a task, or names the only one anew.

    Raises:
        UserError: no folder, no `pairs.csv`, or one of which nothing can be read.
    """
    root = existing_folder(request.input)
    rows = listed_pairs(root / TABLE, request.problems)
    groups = _by_task(root, _with_subjects(root, rows, request.problems), request.task)
    return [
        SourceTask(
            name=name,
            role=request.role,
            modality=request.options["modality"],
            pairs=Lazy([functools.partial(_read_row, root, *row, request) for row in group], len(group)),
        )
        for name, group in groups.items()
    ]


def _by_task(root: Path, rows: list[Pair], wanted: Optional[str]) -> dict[str, list[Pair]]:
    default = wanted or root.resolve().name
    groups: dict[str, list[Pair]] = {}
    for where, row, subject in rows:
        groups.setdefault(row.get("task") or default, []).append((where, row, subject))
    if wanted is None or not groups:
        return groups
    if wanted in groups:
        return {wanted: groups[wanted]}
    if len(groups) == 1:
        return {wanted: next(iter(groups.values()))}
    raise UserError(f"{root / TABLE}: has no task `{wanted}`; `--task` must be one of: {', '.join(groups)}.")


def _file(root: Path, name: str) -> str:
    """The image file, or the volume of a slice, by whatever links it is reached."""
    return os.path.relpath(
        os.path.realpath(root / volume_file(os.path.normpath(name))), os.path.realpath(root)
    )


def _with_subjects(root: Path, rows: list[tuple[str, Row]], problems: Problems) -> list[Pair]:
    """The rows of all tasks with their subjects; two subjects that share an image are a problem.

    Pairs that share an image, directly or in a chain, must not be divided
    between splits, of one task or of two: those without a subject take that of the others, and where
    none of them names one, they make up a subject of their own.
    """
    files = [tuple(_file(root, row[name]) for name in REQUIRED_COLUMNS) for _, row in rows]
    leaders = subjects_by_image(files)
    named: dict[str, str] = {}
    subjects = [row.get("subject", "") for _, row in rows]
    for (where, _), subject, (file, _) in zip(rows, subjects, files):
        first = named.setdefault(leaders[file], subject) if subject else subject
        if first != subject:
            problems.add(
                f"{where}: subjects `{first}` and `{subject}` share an image, directly or by other pairs, so "
                "that a split between them would leak; give them one name, or none."
            )
    return [
        (where, row, subject or named.get(leaders[file], leaders[file]))
        for (where, row), subject, (file, _) in zip(rows, subjects, files)
    ]


def _read_row(root: Path, where: str, row: Row, subject: str, request: Request) -> Iterator[ImagePair]:
    pair = read_pair(root, where, row, subject, request.options["colour"], request.problems)
    if pair is not None:
        yield pair
