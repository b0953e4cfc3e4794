"""`pairs`: a folder of image pairs listed in its `pairs.csv`.

Columns `moving,fixed` are required. Optional are `task`, `subject` (without
one, pairs that share an image are one subject), `split`, `moving_landmarks,fixed_landmarks`
(CSV files) and `moving_spacing,fixed_spacing` (pixel size in mm: `0.5`, or
row and column as `0.5 0.4` or `0.5x0.4`). Paths are relative to the folder.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair, no_landmarks
from tfrecords_builder.images import COLOURS, read_image
from tfrecords_builder.sources.base import Lazy, Option, Problems, Request, Source, SourceTask
from tfrecords_builder.tables import Table, check_inside, read_landmarks, read_table

TABLE = "pairs.csv"
_REQUIRED = ("moving", "fixed")
_COLUMNS = (
    *_REQUIRED,
    "task",
    "subject",
    "split",
    "moving_landmarks",
    "fixed_landmarks",
    "moving_spacing",
    "fixed_spacing",
)

Row = dict[str, str]


def pairs_tasks(request: Request) -> list[SourceTask]:
    """The tasks of a folder with `pairs.csv`.

    Without a `task` column there is one, named by `request.task` or else like
    the folder. With one, `request.task` picks a task, or names the only one anew.

    Raises:
        UserError: no folder, no `pairs.csv`, or one of which nothing can be read.
    """
    root = existing_folder(request.input)
    table = read_table(root / TABLE)
    _check_columns(root / TABLE, table)
    rows = _checked_rows(root, table, request.problems)
    groups = _by_task(root, rows, request.task)
    return [
        SourceTask(
            name=name,
            role=request.role,
            modality=request.options.get("modality", "unspecified"),
            pairs=Lazy(functools.partial(_read_pairs, root, group, request), len(group)),
        )
        for name, group in groups.items()
    ]


def existing_folder(path: Optional[Path]) -> Path:
    """`path`, if it is a folder; UserError otherwise."""
    if path is None or not path.is_dir():
        raise UserError(f"{path}: no such folder; `--input` must be a folder that exists.")
    return path


def _check_columns(path: Path, table: Table) -> None:
    for name in _REQUIRED:
        if name not in table.columns:
            raise UserError(
                f"{path}: column `{name}` is missing; the first line must name `moving` and `fixed`, "
                f"got `{','.join(table.columns)}`."
            )
    for name in table.columns:
        if name not in _COLUMNS:
            near = difflib.get_close_matches(name, _COLUMNS, 1)
            hint = f"did you mean `{near[0]}`?" if near else "remove it."
            raise UserError(f"{path}: unknown column `{name}`; {hint} Known columns: {', '.join(_COLUMNS)}.")
    for name in ("landmarks", "spacing"):
        if (f"moving_{name}" in table.columns) != (f"fixed_{name}" in table.columns):
            raise UserError(
                f"{path}: `moving_{name}` and `fixed_{name}` go together; add the missing column."
            )
    if not table.rows:
        raise UserError(f"{path}: no pairs; add a row for each pair below the header.")


def _checked_rows(root: Path, table: Table, problems: Problems) -> list[tuple[str, Row]]:
    """Rows that name files within the folder, each once, as (where, cell by column)."""
    checked = []
    seen: dict[tuple[str, ...], str] = {}
    for number, row in table.rows:
        where = f"{root / TABLE}, line {number}"
        with problems.collected():
            _check_paths(where, row)
            identity = (row.get("task", ""), os.path.normpath(row["moving"]), os.path.normpath(row["fixed"]))
            if identity in seen:
                raise UserError(f"{where}: the same pair as in {seen[identity]}; remove one of the two.")
            seen[identity] = f"line {number}"
            checked.append((where, row))
    return checked


def _check_paths(where: str, row: Row) -> None:
    for name in _REQUIRED:
        if not row[name]:
            raise UserError(f"{where}: `{name}` is empty; name an image file.")
    if bool(row.get("moving_landmarks")) != bool(row.get("fixed_landmarks")):
        raise UserError(f"{where}: landmarks for one image only; name both files or neither.")
    for name in (*_REQUIRED, "moving_landmarks", "fixed_landmarks"):
        path = os.path.normpath(row.get(name) or ".")
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
            raise UserError(f"{where}: `{row[name]}` leads out of the folder; copy or link the file into it.")


def _by_task(
    root: Path, rows: list[tuple[str, Row]], wanted: Optional[str]
) -> dict[str, list[tuple[str, Row]]]:
    default = wanted or root.resolve().name
    groups: dict[str, list[tuple[str, Row]]] = {}
    for where, row in rows:
        groups.setdefault(row.get("task") or default, []).append((where, row))
    if wanted is None or not groups:
        return groups
    if wanted in groups:
        return {wanted: groups[wanted]}
    if len(groups) == 1:
        return {wanted: next(iter(groups.values()))}
    raise UserError(f"{root / TABLE}: has no task `{wanted}`; `--task` must be one of: {', '.join(groups)}.")


def _subjects_by_file(rows: list[tuple[str, Row]]) -> dict[str, str]:
    """A subject for each image file: pairs that share a file, directly or in a chain, show the same one.

    Otherwise two pairs of one image (adjacent slices, say) could end up in different splits.
    """
    leader: dict[str, str] = {}

    def find(file: str) -> str:
        while leader.setdefault(file, file) != file:
            file = leader[file]
        return file

    for _, row in rows:
        one, other = sorted(find(os.path.normpath(row[name])) for name in _REQUIRED)
        leader[other] = one
    return {file: find(file) for file in leader}


def _read_pairs(root: Path, rows: list[tuple[str, Row]], request: Request) -> Iterator[ImagePair]:
    subjects = _subjects_by_file(rows)
    for where, row in rows:
        subject = row.get("subject") or subjects[os.path.normpath(row["fixed"])]
        pair = _read_pair(root, where, row, subject, request)
        if pair is not None:
            yield pair


def _read_pair(root: Path, where: str, row: Row, subject: str, request: Request) -> Optional[ImagePair]:
    """The row's pair, or None after its problems, all of them, went to `request.problems`."""
    key = f"{row['moving']}:{row['fixed']}"
    values: dict[str, Any] = {}
    colour = request.options.get("colour", "green")
    for name in _REQUIRED:
        with request.problems.collected():
            values[name] = read_image(root / row[name], colour)
        with request.problems.collected():
            values[f"{name}_landmarks"] = _landmarks(root, row, name)
        with request.problems.collected():
            values[f"{name}_spacing"] = _spacing(where, row.get(f"{name}_spacing", ""))
    if len(values) < 6 or not _landmarks_fit(root, row, values, request.problems):
        return None
    return ImagePair(key=key, subject=subject, split=row.get("split", "").lower() or None, **values)


def _landmarks_fit(root: Path, row: Row, values: dict[str, Any], problems: Problems) -> bool:
    """Whether landmarks lie in their images and match in number; reports those that do not."""
    before = len(problems.lines)
    files = {name: root / row.get(f"{name}_landmarks", "") for name in _REQUIRED}
    points = {name: values[f"{name}_landmarks"] for name in _REQUIRED}
    for name in _REQUIRED:
        with problems.collected():
            check_inside(points[name], values[name].shape, str(files[name]))
    if len(points["moving"]) != len(points["fixed"]):
        problems.add(
            f"{files['fixed']}: {len(points['fixed'])} landmarks, "
            f"{files['moving']} has {len(points['moving'])}; row i of one must match row i of the other."
        )
    return len(problems.lines) == before


def _landmarks(root: Path, row: Row, name: str) -> np.ndarray:
    file = row.get(f"{name}_landmarks")
    return read_landmarks(root / file) if file else no_landmarks()


def _spacing(where: str, text: str) -> Optional[tuple[float, float]]:
    """(row, column) in mm of "0.5", "0.5 0.4" or "0.5x0.4"; None of nothing."""
    if not text:
        return None
    try:
        values = [float(part) for part in re.split(r"\s*x\s*|\s+", text.lower())]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0 < value < np.inf for value in values):
        raise UserError(
            f"{where}: spacing must be a number above 0, or row and column as `0.5x0.4`, in mm, got `{text}`."
        )
    return values[0], values[-1]


MODALITY = Option(
    "--modality",
    {
        "default": "unspecified",
        "metavar": "TEXT",
        "help": "what the images are, for the manifest (default: unspecified)",
    },
)
COLOUR = Option(
    "--colour",
    {
        "choices": COLOURS,
        "default": "green",
        "help": "what stands for a colour image: its green channel, where retinal vessels have the highest "
        "contrast (default), or its luminance",
    },
)
SOURCE = Source(
    tasks=pairs_tasks,
    summary="folder of image pairs listed in its pairs.csv",
    options=(MODALITY, COLOUR),
)
