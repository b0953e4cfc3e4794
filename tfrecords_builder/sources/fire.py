"""`fire`: the FIRE set of retinal photographs as distributed: `Images`, `Ground Truth`, `Masks`.

Image 1 of a pair is fixed and image 2 moving, as is usual in evaluations on this set. A pair's key is its
name in the set. It begins with its category: S (large overlap), P (small overlap) or A (anatomical changes).
Pixels outside `Masks/mask.png` are background. The set names no patients; pairs that share an image are one
subject.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmetareg.errors import Problems, UserError
from tfmetareg.files import sha256
from tfmetareg.imaging.landmarks import check_inside
from tfmetareg.imaging.read import read_image
from tfmetareg.imaging.tables import read_lines
from tfmetareg.types import ImagePair, no_landmarks
from tfrecords_builder.sources.base import (
    COLOUR,
    LazyPairs,
    Option,
    Request,
    SourceTask,
    existing_folder,
    source,
)
from tfrecords_builder.splits import subjects_by_image

_CATEGORIES = ("S", "P", "A")
# Its control points are known to be wrong; studies leave it out.
_WRONG = ("P37",)
_IMAGE = re.compile(r"([SPA]\d+)_[12]\.jpg", re.IGNORECASE)
_POINTS = re.compile(r"control_points_([SPA]\d+)_1_2\.txt", re.IGNORECASE)


class _Files(NamedTuple):
    """The name and the files of a pair."""

    name: str
    fixed: Path
    moving: Path
    points: Path


@source(
    "fire",
    summary="folder of the FIRE retinal set with Images, Ground Truth and Masks",
    options=(
        Option(
            "--categories",
            {
                "nargs": "+",
                "type": str.upper,
                "choices": _CATEGORIES,
                "default": list(_CATEGORIES),
                "help": "S: large overlap, P: small overlap, A: anatomical changes (default: S P A)",
            },
        ),
        Option(
            "--exclude",
            {
                "nargs": "*",
                "type": str.upper,
                "default": list(_WRONG),
                "metavar": "PAIR",
                "help": "pairs to leave out (default: P37, whose control points are known to be wrong)",
            },
        ),
        COLOUR,
    ),
)
def fire_tasks(request: Request) -> list[SourceTask]:
    """One task of the chosen categories, named `fire`; with a choice of categories for instance `fire_s`.

    Raises:
        UserError: the folder is not that of the set, or no pair is left.
    """
    root = existing_folder(request.input)
    categories = [name for name in _CATEGORIES if name in request.options["categories"]]
    pairs = [files for files in _pairs(root, request) if files.name[0] in categories]
    if not pairs:
        request.problems.raise_any()
        raise UserError(
            f"{root}: no pairs of {', '.join(categories)}; widen `--categories`, or fetch it again."
        )
    subjects = _subjects(pairs, request.problems)
    suffix = "" if len(categories) == len(_CATEGORIES) else "_" + "".join(categories).lower()
    partitions = [
        functools.partial(_read_pair, root, files, subjects[files.name], request)
        for files in pairs
        if files.name in subjects
    ]
    return [
        SourceTask(
            request.task or f"fire{suffix}", request.role, "fundus", LazyPairs(partitions, len(partitions))
        )
    ]


def _pairs(root: Path, request: Request) -> list[_Files]:
    """Complete pairs that are not excluded; reports missing files."""
    images, truth = root / "Images", root / "Ground Truth"
    for folder in (images, truth, root / "Masks"):
        if not folder.is_dir():
            inside = [path.parent for path in sorted(root.glob("*/Images"))]
            hint = f"did you mean {inside[0]}?" if inside else "`--input` must be the unpacked set."
            raise UserError(f"{folder}: no such folder; {hint}")
        existing_folder(folder)
    found = {*_names(images, _IMAGE), *_names(truth, _POINTS)}
    for name in request.options["exclude"]:
        if name not in found and name not in _WRONG:
            request.problems.add(f"{root}: has no pair `{name}`; take it off `--exclude`.")
    pairs = []
    for name in sorted(found.difference(request.options["exclude"])):
        points = truth / f"control_points_{name}_1_2.txt"
        pair = _Files(name, images / f"{name}_1.jpg", images / f"{name}_2.jpg", points)
        missing = [path for path in pair[1:] if not path.is_file()]
        for path in missing:
            request.problems.add(
                f"{path}: no such file; fetch it, or leave the pair out: `--exclude {name}`."
            )
        if not missing:
            pairs.append(pair)
    return pairs


def _names(folder: Path, pattern: re.Pattern[str]) -> set[str]:
    try:
        matches = [pattern.fullmatch(name) for name in os.listdir(folder)]
    except OSError as error:
        raise _unreadable(folder, error) from None
    return {match[1].upper() for match in matches if match}


def _read_pair(root: Path, files: _Files, subject: str, request: Request) -> Iterator[ImagePair]:
    """Yields the pair, unless it has mistakes; all of them are reported."""
    values: dict[str, Any] = {}
    with request.problems.collected():
        values["fixed_landmarks"], values["moving_landmarks"] = read_points(files.points)
    for name in ("fixed", "moving"):
        with request.problems.collected():
            image = _read_image(getattr(files, name), root / "Masks" / "mask.png", request.options["colour"])
            check_inside(values.get(f"{name}_landmarks", no_landmarks()), image.shape, str(files.points))
            values[name] = image
    if len(values) == 4:
        yield ImagePair(key=files.name, subject=subject, **values)


def _read_image(path: Path, mask_path: Path, colour: str) -> np.ndarray:
    image, mask = read_image(path, colour), read_image(mask_path)
    if image.shape != mask.shape:
        raise UserError(
            f"{path}: size {image.shape[0]}x{image.shape[1]}, but {mask_path} has "
            f"{mask.shape[0]}x{mask.shape[1]}; fetch both again."
        )
    return np.where(mask > 0, image, image.dtype.type(0))


def _subjects(pairs: list[_Files], problems: Problems) -> dict[str, str]:
    """Subject by name of the pair: the first pair linked to it by identical images, directly or in a chain.

    Pairs with an unreadable image are left out, and the image is reported.
    """
    images: dict[str, tuple[str, str]] = {}
    for files in pairs:
        with problems.collected():
            images[files.name] = _digest(files.moving), _digest(files.fixed)
    leaders = subjects_by_image(images.values())
    first: dict[str, str] = {}
    return {name: first.setdefault(leaders[fixed], name) for name, (_, fixed) in images.items()}


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror}); check its permissions, or fetch it again.")


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads control points, one per line: `x1 y1 x2 y2`, pixels in images 1 and 2.

    Returns:
        Points of image 1 and points of image 2, each float32 (n, 2), pixels, (row, column).

    Raises:
        UserError: the file is not text, is empty, or has a line that is not four finite numbers.
    """
    rows = [_four(path, number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not rows:
        raise UserError(f"{path}: empty file; each line must hold `x1 y1 x2 y2`.")
    points = np.asarray(rows, np.float32)
    return points[:, 1::-1], points[:, :1:-1]


def _four(path: Path, number: int, line: str) -> list[float]:
    try:
        values = [float(cell) for cell in line.split()]
    except ValueError:
        values = []
    if len(values) != 4 or not np.isfinite(values).all():
        raise UserError(f"{path}, line {number}: must be four numbers, `x1 y1 x2 y2`, got `{line.strip()}`.")
    return values
