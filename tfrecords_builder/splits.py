"""Splits: which pairs are trained on and which are held out. No subject is in both."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from tfmetareg.errors import UserError
from tfmetareg.imaging.names import comparable
from tfmetareg.imaging.tables import read_table

LEARNING_SPLIT = {"source": "train", "target": "finetune"}
HELD_OUT_SPLIT = "test"
# Most names in one line of an error.
_LISTED = 20


class PairInfo(NamedTuple):
    """What the split of a pair depends on: its key, its subject, and the split that its source prescribes."""

    key: str
    subject: str
    split: Optional[str]


@dataclasses.dataclass(frozen=True)
class SplitFile:
    """The content of a CSV file with the split of each subject or of each pair.

    Attributes:
        path: the file's path.
        column: "subject" or "key": what `splits` is indexed by.
        splits: split by subject or by key, spelled as `comparable` spells it.
    """

    path: Path
    column: str
    splits: dict[str, str]

    def prescribe(self, pairs: Sequence[PairInfo]) -> list[PairInfo]:
        """The pairs that the file names, with the file's splits in place of their source's."""
        return [
            pair._replace(split=self.splits[name])
            for pair in pairs
            for name in [self._name(pair)]
            if name in self.splits
        ]

    def check_complete(self, pairs: Iterable[PairInfo]) -> None:
        """Checks that the file names every pair.

        Raises:
            UserError: some pairs are missing from it.
        """
        names = dict.fromkeys(map(self._name, pairs))
        missing = [name for name in names if name not in self.splits]
        if missing:
            raise UserError(f"{self.path}: no line for {self._listed(missing)}; add one for each.")

    def check_used(self, pairs: Iterable[PairInfo], *, all_read: bool = True) -> None:
        """Checks that every line of the file is about one of the pairs.

        Args:
            pairs: pairs of all tasks.
            all_read: whether `pairs` are all pairs of the input; otherwise some could not be read.

        Raises:
            UserError: the file has names that are not among the pairs.
        """
        known = set(map(self._name, pairs))
        unknown = [name for name in self.splits if name not in known]
        if unknown:
            where, unless = (
                ("the input", "")
                if all_read
                else ("what could be read of the input", ", unless a file of it is told to be wrong")
            )
            raise UserError(
                f"{self.path}: {where} has no {self._listed(unknown)}; correct the name or remove the "
                f"line{unless}."
            )

    def _name(self, pair: PairInfo) -> str:
        return comparable(getattr(pair, self.column))

    def _listed(self, names: Sequence[str]) -> str:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return f"{self.column} {', '.join(f'`{name}`' for name in names[:_LISTED])}{more}"


def read_splits(path: Path) -> SplitFile:
    """Reads a CSV file with the columns `subject,split` or `key,split`; a pair's key is `moving:fixed`.

    Raises:
        UserError: as `read_table`; other columns; and a line for each empty
            cell, unknown split and name with two splits.
    """
    table = read_table(path)
    column = table.columns[0] if table.columns and table.columns[0] != "split" else table.columns[-1]
    if len(table.columns) != 2 or {"split", column} != {*table.columns} or column not in ("subject", "key"):
        raise UserError(
            f"{path}: the first line must be `subject,split` or `key,split`, "
            f"got `{','.join(table.columns)}`; change it."
        )
    splits: dict[str, str] = {}
    lines = []
    for number, row in table.rows:
        name, split = comparable(row[column]), row["split"].lower()
        if not name:
            lines.append(f"{path}, line {number}: `{column}` is empty; name one.")
        elif split not in (*LEARNING_SPLIT.values(), HELD_OUT_SPLIT):
            lines.append(
                f"{path}, line {number}: split must be train, finetune or test, got `{split}`; change it."
            )
        elif splits.setdefault(name, split) != split:
            lines.append(
                f"{path}, line {number}: {column} `{name}` is in {splits[name]} already; keep one of the two."
            )
    if lines or not splits:
        raise UserError("\n".join(lines) or f"{path}: no splits; add a line for each {column}.")
    return SplitFile(path, column, splits)


def shuffle_key(seed: int, name: str) -> str:
    """Sort key that puts names into a random order, which depends on `seed` alone.

    >>> sorted("abcd", key=lambda name: shuffle_key(0, name))
    ['d', 'a', 'c', 'b']
    """
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def held_out_subjects(
    tasks: Iterable[Sequence[PairInfo]], *, test_fraction: float = 0.2, seed: int = 0
) -> set[str]:
    """Draws the subjects to hold out for all tasks together: a subject of two tasks is held out of both.

    >>> pairs = [PairInfo(f"pair{number}", f"subject{number}", None) for number in range(5)]
    >>> held_out_subjects([pairs], test_fraction=0.2)
    {'subject2'}

    Args:
        tasks: the pairs of each task. Tasks with prescribed splits do not count.
        test_fraction: share of a task's subjects to hold out. A fraction above 0 holds out at least one
            subject of each task, if shared subjects allow it, but never all subjects of a task.
        seed: seed of the draw.
    """
    drawn = [{pair.subject for pair in pairs} for pairs in tasks if not _prescribed(pairs)]
    wanted = [max(1, round(test_fraction * len(subjects))) if test_fraction else 0 for subjects in drawn]
    held_out: set[str] = set()
    for subject in sorted(set().union(*drawn), key=lambda name: shuffle_key(seed, name)):
        having = [(own, len(own & held_out), count) for own, count in zip(drawn, wanted) if subject in own]
        leaves_some = all(held + 1 < len(own) for own, held, _ in having)
        if leaves_some and any(held < count for _, held, count in having):
            held_out.add(subject)
    return held_out


def assign_splits(pairs: Sequence[PairInfo], role: str, held_out: Container[str]) -> dict[str, str]:
    """Decides the split of each pair: the prescribed one if there is one, else by subject.

    >>> pairs = [PairInfo("a:b", "eye1", None), PairInfo("c:d", "eye2", None)]
    >>> assign_splits(pairs, "target", held_out={"eye2"})
    {'a:b': 'finetune', 'c:d': 'test'}

    Args:
        pairs: the pairs of one task.
        role: "source" (train, test) or "target" (finetune, test).
        held_out: subjects to test on where no split is prescribed; see `held_out_subjects`.

    Returns:
        Split name by key.

    Raises:
        UserError: a prescribed split does not exist for the role, is missing
            for some pairs, or divides a subject; one line for each.
    """
    if _prescribed(pairs):
        _check_prescribed(pairs, role)
        return {pair.key: str(pair.split) for pair in pairs}
    return {pair.key: HELD_OUT_SPLIT if pair.subject in held_out else LEARNING_SPLIT[role] for pair in pairs}


def _prescribed(pairs: Sequence[PairInfo]) -> bool:
    return any(pair.split for pair in pairs)


def _check_prescribed(pairs: Sequence[PairInfo], role: str) -> None:
    keys: dict[Optional[str], list[str]] = {}
    splits: dict[str, set[str]] = {}
    for pair in pairs:
        keys.setdefault(pair.split or None, []).append(pair.key)
        if pair.split:
            splits.setdefault(pair.subject, set()).add(pair.split)
    lines = [_wrong_split(split, names, role) for split, names in keys.items() if split not in _allowed(role)]
    lines += [
        f"subject {subject} is in two splits, {' and '.join(sorted(names))}; put all its pairs into one."
        for subject, names in splits.items()
        if len(names) > 1
    ]
    if lines:
        raise UserError("\n".join(lines))


def _allowed(role: str) -> tuple[str, str]:
    return LEARNING_SPLIT[role], HELD_OUT_SPLIT


def _wrong_split(split: Optional[str], keys: list[str], role: str) -> str:
    others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    where = f"pair {keys[0]}{others}"
    if split is None:
        return (
            f"{where}: no split, while other pairs of the task have one; give it for all pairs or for none."
        )
    rule = f"{where}: split of a {role} task must be {' or '.join(_allowed(role))}, got `{split}`"
    for other, name in LEARNING_SPLIT.items():
        if split == name:
            return f"{rule}; change it, or build the task with --role {other}."
    return f"{rule}; change it."


def subjects_by_image(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A subject for each image: images that are linked by pairs, directly or in a chain, are one subject.

    This keeps all pairs of an image in one split.

    >>> subjects_by_image([("a", "b"), ("b", "c"), ("d", "e")])
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd', 'e': 'd'}

    Args:
        pairs: names of the two images of each pair.

    Returns:
        Subject by image: the alphabetically first image of those linked to it.
    """
    leader: dict[str, str] = {}

    def find(image: str) -> str:
        while leader.setdefault(image, image) != image:
            image = leader[image]
        return image

    for pair in pairs:
        one, other = sorted(find(image) for image in pair)
        leader[other] = one
    return {image: find(image) for image in leader}
