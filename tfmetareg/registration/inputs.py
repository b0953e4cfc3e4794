"""Which image files make up the pairs to register, and what a pair's results are called."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional

from tfmetareg.errors import Problems, UserError
from tfmetareg.files import sha256
from tfmetareg.imaging.choices import FORMATS
from tfmetareg.imaging.landmark_files import ENDINGS, read_landmark_file
from tfmetareg.imaging.landmarks import points_on
from tfmetareg.imaging.names import composed, name_on_disk
from tfmetareg.imaging.pair_table import TABLE, Row, listed_pairs, read_pair
from tfmetareg.imaging.read import is_image, stem
from tfmetareg.imaging.volumes import volume_file
from tfmetareg.registration.pair import InputPair

# Bytes of a name: file systems take 255, of which a number, an ending and a temporary name need some.
_LONGEST = 200


@dataclasses.dataclass(frozen=True)
class PairFiles:
    """The files of one pair.

    Attributes:
        name: of the pair, of letters, digits, '_', '-' and '.'; no two pairs of a run have the same.
        root, where, row: as `sources.pairs.read_pair` takes them.
        points: file of points to carry over, if any; `imaging.landmarks` reads it.
    """

    name: str
    root: Path
    where: str
    row: Row
    points: Optional[Path] = None

    @property
    def moving(self) -> Path:
        """The moving image, or a slice of a volume."""
        return self.root / self.row["moving"]

    @property
    def fixed(self) -> Path:
        """The fixed image, or a slice of a volume."""
        return self.root / self.row["fixed"]

    def read(self, colour: str, points_in: str = "fixed") -> InputPair:
        """The images, with landmarks, labels and pixel sizes where the row names them, and points to carry.

        Args:
            colour: what stands for a colour image, see `read_image`.
            points_in: image that the points are given in, "fixed" or "moving".

        Raises:
            UserError: one line of everything that is wrong with the files.
        """
        began = time.perf_counter()
        problems = Problems()
        opened = read_pair(self.root, self.where, self.row, self.name, colour, problems)
        if opened is None:
            raise UserError(" ".join(problems.lines))
        points = source = None
        if self.points is not None:
            source = read_landmark_file(self.points, carried=True)
            points = points_on(source, getattr(opened, points_in))
            if not len(points):
                raise UserError(f"{self.points}: no points; add one at least.")
        seconds = {"read": round(time.perf_counter() - began, 4)}
        return InputPair(
            opened.pair,
            opened.moving,
            opened.fixed,
            points,
            points_in,
            seconds,
            source,
            opened.moving_labels,
            opened.fixed_labels,
        )

    def digests(self) -> dict[str, dict[str, str]]:
        """Path and SHA-256 of each file that decides on the result, as a summary tells them.

        Raises:
            UserError: a file that cannot be read.
        """
        files = {"moving": self.moving, "fixed": self.fixed}
        files.update({
            name: self.root / file
            for name, file in self.row.items()
            if name.endswith(("_landmarks", "_labels")) and file
        })  # fmt: skip
        if self.points:
            files["points"] = self.points
        return {name: {"file": str(path), "sha256": _digest(path)} for name, path in files.items()}


def read_pairs(pairs: Iterable[PairFiles], colour: str) -> Iterator[InputPair]:
    """The pairs that can be read, one at a time; registering the others says why they cannot."""
    for files in pairs:
        with contextlib.suppress(UserError):
            yield files.read(colour)


def find_pairs(
    *,
    moving: str = "",
    fixed: str = "",
    pairs: str = "",
    points: str = "",
    labels: str = "",
    fixed_labels: str = "",
) -> list[PairFiles]:
    """The pairs that are named: two images, two folders of them, or a table.

    Args:
        moving, fixed: image files or folders, as `register.moving` and `register.fixed`.
        pairs: a pairs.csv or its folder, as `register.pairs`.
        points: file or folder of points, as `register.points`.
        labels, fixed_labels: label maps of the moving and of the fixed images, or folders of them, as
            `register.labels` and `register.fixed_labels`.

    Raises:
        UserError: none or several of these, files without a partner, a table that cannot be read.
    """
    if bool(pairs) == bool(moving or fixed) or (not moving) != (not fixed):
        raise UserError(
            "name what to register: either `register.moving` and `register.fixed` (two images, or two "
            "folders), or `register.pairs` (a pairs.csv)."
        )
    moving, fixed, pairs, points, labels, fixed_labels = (
        name_on_disk(Path(), name) for name in (moving, fixed, pairs, points, labels, fixed_labels)
    )
    if pairs:
        named = _listed(Path(pairs))
    elif os.path.isdir(moving) or os.path.isdir(fixed):
        named = _of_folders(Path(moving), Path(fixed))
    else:
        named = [_pair(Path(), moving, fixed)]
    if fixed_labels and not labels:
        raise UserError(
            "`register.fixed_labels` is for comparing with the moving image's; name `register.labels` too."
        )
    named = _with_labels(_with_labels(named, "moving", labels), "fixed", fixed_labels)
    return _with_points(_named_apart(named), points)


def _pair(root: Path, moving: str, fixed: str, name: str = "") -> PairFiles:
    name = name or f"{stem(Path(moving))}-to-{stem(Path(fixed))}"
    return PairFiles(_plain(name), root, f"{moving} and {fixed}", {"moving": moving, "fixed": fixed})


def _listed(path: Path) -> list[PairFiles]:
    table = path / TABLE if os.path.isdir(path) else path
    problems = Problems()
    rows = listed_pairs(table, problems, inside=False)
    problems.raise_any()
    return [
        dataclasses.replace(_pair(table.parent, row["moving"], row["fixed"]), where=where, row=row)
        for where, row in rows
    ]


def _of_folders(moving: Path, fixed: Path) -> list[PairFiles]:
    """Images of two folders that have the same name, but for the ending that tells the format."""
    images = {folder: dict(_images(folder)) for folder in (moving, fixed)}
    alone = [
        f"{file.name} of {folder}"
        for folder, other in ((moving, fixed), (fixed, moving))
        for name, file in images[folder].items()
        if name not in images[other]
    ]
    if alone:
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        raise UserError(
            f"{alone[0]}{more}: no image of that name in the other folder; add it, take this one away, or "
            "list the pairs in a pairs.csv (`register.pairs`)."
        )
    return [
        _pair(Path(), str(images[moving][name]), str(images[fixed][name]), name) for name in images[moving]
    ]


def _images(folder: Path) -> Iterator[tuple[str, Path]]:
    if not os.path.isdir(folder):
        raise UserError(
            f"{folder}: must be a folder too; `register.moving` and `register.fixed` are two images or two "
            "folders."
        )
    try:
        files = sorted(file for file in folder.iterdir() if is_image(file) and not file.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}); give yourself the permission."
        ) from None
    if not files:
        raise UserError(f"{folder}: no images in this folder; put some into it ({', '.join(FORMATS)}).")
    names = [composed(stem(file)) for file in files]
    for name, file in zip(names, files):
        if names.count(name) > 1:
            raise UserError(f"{file}: another image of this folder has the same name; rename one of them.")
    return iter(zip(names, files))


def _named_apart(pairs: list[PairFiles]) -> list[PairFiles]:
    """Numbers the second and further pairs of one name."""
    wanted, taken = {pair.name for pair in pairs}, set()
    named = []
    for pair in pairs:
        name, number = pair.name, 1
        while name in taken or (number > 1 and name in wanted):
            number += 1
            name = f"{pair.name}_{number}"
        taken.add(name)
        named.append(dataclasses.replace(pair, name=name))
    return named


def _with_points(pairs: list[PairFiles], points: str) -> list[PairFiles]:
    """The pairs with the file of points that belongs to each."""
    if not points:
        return pairs
    if not os.path.isdir(points):
        if len(pairs) > 1:
            raise UserError(
                f"`register.points` ({points}) must be a folder where there are several pairs, "
                f"with a file like {pairs[0].name}.csv for each."
            )
        return [dataclasses.replace(pairs[0], points=Path(points))]
    problems = Problems()
    named = []
    for pair in pairs:
        with problems.collected():
            named.append(dataclasses.replace(pair, points=_points_in_folder(Path(points), pair.name)))
    problems.raise_any()
    return named


def _with_labels(pairs: list[PairFiles], side: str, labels: str) -> list[PairFiles]:
    """The pairs with the label map of each image of a side: the file, or the one named like the image."""
    if not labels:
        return pairs
    option = {"moving": "register.labels", "fixed": "register.fixed_labels"}[side]
    if any(pair.row.get(f"{side}_labels") for pair in pairs):
        raise UserError(f"`{option}` ({labels}) and the table both name labels; leave one out.")
    if not os.path.isdir(labels):
        if len(pairs) > 1:
            raise UserError(
                f"`{option}` ({labels}) must be a folder where there are several pairs, with a label map "
                f"named like each {side} image."
            )
        files = {pairs[0].row[side]: labels}
    else:
        files = _named_alike(Path(labels), option, [pair.row[side] for pair in pairs])
    # A path in a row is relative to the pair's root.
    if any(pair.root != Path() for pair in pairs):
        files = {image: os.path.abspath(file) for image, file in files.items()}
    return [
        dataclasses.replace(pair, row={**pair.row, f"{side}_labels": files[pair.row[side]]}) for pair in pairs
    ]


def _named_alike(folder: Path, option: str, images: list[str]) -> dict[str, str]:
    """By image, the file of the folder that has its name, but for the ending; for a slice, the same slice."""
    present = dict(_images(folder))
    owners: dict[str, str] = {}
    files = {}
    for image in images:
        file = volume_file(image)
        name, place = composed(stem(Path(file))), image[len(file) :].partition(",")[0]
        if owners.setdefault(name, file) != file:
            raise UserError(
                f"`{option}` ({folder}): {owners[name]} and {file} have one name; name their label maps in a "
                "pairs.csv."
            )
        files[image] = f"{present.get(name, '')}{place}"
    missing = [name for name in owners if name not in present]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{folder}: no label map named {missing[0]}{more}; `{option}` must have one for each image."
        )
    return files


def _plain(name: str) -> str:
    plain = re.sub(r"[^\w.-]", "_", composed(name)).lstrip(".") or "pair"
    return plain.encode()[:_LONGEST].decode(errors="ignore")


def _points_in_folder(folder: Path, name: str) -> Path:
    """The one file of points for a pair in a folder.

    Raises:
        UserError: there is none, or several.
    """
    files = [folder / name_on_disk(folder, f"{name}{ending}") for ending in ENDINGS]
    there = [file for file in files if os.path.isfile(file)]
    if not there:
        raise UserError(
            f"{files[0]}: no such file; `register.points` must have one for each pair ({', '.join(ENDINGS)})."
        )
    if len(there) > 1:
        raise UserError(f"{there[0]}: {there[1].name} is there too; keep one of the two.")
    return there[0]


def _digest(path: Path) -> str:
    file = Path(volume_file(str(path)))
    try:
        return sha256(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); it must be a readable file.") from None
