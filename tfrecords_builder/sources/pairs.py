"""`pairs`: a folder of image pairs listed in its `pairs.csv`.

Columns `moving,fixed` are required. Optional columns are `task`, `subject` (without it, pairs that share an
image are one subject), `split`, `moving_landmarks,fixed_landmarks` (files, see `imaging.landmarks`),
`moving_labels,fixed_labels` (label maps, see `imaging.labels`) and `moving_spacing,fixed_spacing` (pixel size
in mm: `0.5`, or row and column as `0.5 0.4` or `0.5x0.4`). Paths are relative to the folder.

`volume.nii.gz#12` is axial slice 12 of a NIfTI volume, `#y40` a coronal, `#x7` a sagittal one,
`volume.nii.gz#12,1` a slice of channel 1 (in quotes where commas separate the columns); `imaging.volumes`
describes their orientation. All slices of a volume are one subject. Pixel sizes come from the images where
the table does not tell them. Where both images of a pair tell their direction, the moving one gets that of
the fixed one, with its landmarks.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.labels import shared_labels_note
from tfmetareg.imaging.names import composed
from tfmetareg.imaging.pair_table import REQUIRED_COLUMNS, TABLE, Row, listed_pairs, read_pair
from tfmetareg.imaging.volumes import volume_file
from tfmetareg.types import ImagePair, Note
from tfrecords_builder.sources.base import (
    COLOUR,
    MODALITY,
    LazyPairs,
    Request,
    SourceTask,
    existing_folder,
    source,
)
from tfrecords_builder.splits import subjects_by_image

# Place of the row in an error, the row's cells, and the subject.
Pair = tuple[str, Row, str]


@source("pairs", summary="folder of image pairs listed in its pairs.csv", options=(MODALITY, COLOUR))
def pairs_tasks(request: Request) -> list[SourceTask]:
    """The tasks of a folder with `pairs.csv`.

    Without a `task` column there is one task, named by `request.task`, else like
    the folder. With such a column, `request.task` selects a task; if there is only one, it renames it.

    Raises:
        UserError: no folder, no `pairs.csv`, or a table that cannot be read.
    """
    root = existing_folder(request.input)
    rows = listed_pairs(root / TABLE, request.problems)
    groups = _by_task(root, _with_subjects(root, rows, request.problems), request.task)
    return [
        SourceTask(
            name=name,
            role=request.role,
            modality=request.options["modality"],
            pairs=LazyPairs([functools.partial(_read_row, root, *row, request) for row in group], len(group)),
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
    """The image file, or the volume of a slice, with links resolved; relative to the folder."""
    return os.path.relpath(
        os.path.realpath(root / volume_file(os.path.normpath(name))), os.path.realpath(root)
    )


def _with_subjects(root: Path, rows: list[tuple[str, Row]], problems: Problems) -> list[Pair]:
    """The rows of all tasks with their subjects; reports images that two subjects share.

    Pairs that share an image, directly or in a chain, must not be divided between splits, of one task or of
    two. Pairs without a subject get the subject of those they are linked to; if none of these names one, they
    are a subject of their own.
    """
    moving, fixed = REQUIRED_COLUMNS
    files = [(_file(root, row[moving]), _file(root, row[fixed])) for _, row in rows]
    leaders = subjects_by_image(files)
    named: dict[str, str] = {}
    spelled: dict[str, str] = {}  # One person, whatever Unicode form a row has the name in.
    written = (row.get("subject", "") for _, row in rows)
    subjects = [spelled.setdefault(composed(name), name) for name in written]
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
    if row.get("moving_labels") and not row.get("fixed_labels"):
        request.problems.add(f"{where}: labels for one image only; name both files or neither.")
    opened = read_pair(root, where, row, subject, request.options["colour"], request.problems)
    if opened is None:
        return
    pair = opened.in_one_direction()
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        note = shared_labels_note(pair.moving_labels, pair.fixed_labels)
        pair = dataclasses.replace(pair, notes=(*pair.notes, *[Note(where, note)] * bool(note)))
    yield pair
