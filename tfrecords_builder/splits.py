"""Which pairs are learned from and which are held out; a subject is never in both."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from tfmetareg.errors import UserError
from tfmetareg.imaging.tables import read_table

LEARNING_SPLIT = {"source": "train", "target": "finetune"}
HELD_OUT_SPLIT = "test"
# Names in one line of an error.
_LISTED = 20


class Member(NamedTuple):
    """What a split is decided by: a pair's key, subject, and the split that its source prescribes."""

    key: str
    subject: str
    split: Optional[str]


@dataclasses.dataclass(frozen=True)
class SplitFile:
    """A CSV file that says the split of each subject, or of each pair.

    Attributes:
        path: of the file.
        column: "subject" or "key": whose split it says.
        splits: split by subject or key.
    """

    path: Path
    column: str
    splits: dict[str, str]

    def prescribe(self, members: Sequence[Member]) -> list[Member]:
        """Those members that the file names, with its splits; what their source prescribes is overruled."""
        return [
            member._replace(split=self.splits[name])
            for member in members
            for name in [getattr(member, self.column)]
            if name in self.splits
        ]

    def check_complete(self, members: Iterable[Member]) -> None:
        """
        Raises:
            UserError: the file leaves out some of the members.
        """
        names = dict.fromkeys(getattr(member, self.column) for member in members)
        missing = [name for name in names if name not in self.splits]
        if missing:
            raise UserError(f"{self.path}: no line for {self._listed(missing)}; add one for each.")

    def check_used(self, members: Iterable[Member], *, all_read: bool = True) -> None:
        """
        Args:
            members: of all tasks.
            all_read: whether these are all that the input holds: it may have more that could not be read.

        Raises:
            UserError: the file names some that none of the members is.
        """
        known = {getattr(member, self.column) for member in members}
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
        name, split = row[column], row["split"].lower()
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


def hashed(seed: int, name: str) -> str:
    """A key that sorts names in an order that only `seed` decides."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def held_out_subjects(
    tasks: Iterable[Sequence[Member]], *, test_fraction: float = 0.2, seed: int = 0
) -> set[str]:
    """Draws the subjects to hold out, once for all tasks: one that is in two of them is held out in both.

    Args:
        tasks: the pairs of each task; those of which the source prescribes splits do not count.
        test_fraction: share of a task's subjects to hold out; a fraction above 0 holds out at least one of
            each task, as far as what the tasks have in common allows it, and never all.
        seed: of the choice of subjects.
    """
    drawn = [{member.subject for member in members} for members in tasks if not _prescribed(members)]
    wanted = [max(1, round(test_fraction * len(subjects))) if test_fraction else 0 for subjects in drawn]
    held_out: set[str] = set()
    for subject in sorted(set().union(*drawn), key=lambda name: hashed(seed, name)):
        having = [(own, len(own & held_out), count) for own, count in zip(drawn, wanted) if subject in own]
        leaves_some = all(held + 1 < len(own) for own, held, _ in having)
        if leaves_some and any(held < count for _, held, count in having):
            held_out.add(subject)
    return held_out


def assign_splits(members: Sequence[Member], role: str, held_out: Container[str]) -> dict[str, str]:
    """Decides the split of each pair: the source's where it prescribes one, else by subject.

    Args:
        members: the pairs of one task.
        role: "source" (train, test) or "target" (finetune, test).
        held_out: subjects to test on where the source does not say (`held_out_subjects`).

    Returns:
        Split name by key.

    Raises:
        UserError: a split that the role does not have, prescribed for some
            pairs only, or that divides a subject; one line for each.
    """
    if _prescribed(members):
        _check_prescribed(members, role)
        return {member.key: str(member.split) for member in members}
    return {
        member.key: HELD_OUT_SPLIT if member.subject in held_out else LEARNING_SPLIT[role]
        for member in members
    }


def _prescribed(members: Sequence[Member]) -> bool:
    return any(member.split for member in members)


def _check_prescribed(members: Sequence[Member], role: str) -> None:
    keys: dict[Optional[str], list[str]] = {}
    splits: dict[str, set[str]] = {}
    for member in members:
        keys.setdefault(member.split or None, []).append(member.key)
        if member.split:
            splits.setdefault(member.subject, set()).add(member.split)
    lines = [_wrong_split(split, found, role) for split, found in keys.items() if split not in _allowed(role)]
    lines += [
        f"subject {subject} is in two splits, {' and '.join(sorted(found))}; put all its pairs into one."
        for subject, found in splits.items()
        if len(found) > 1
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
    """A subject for each image: pairs that share one, directly or in a chain, show the same subject.

    Otherwise two pairs of one image (adjacent slices, say) could end up in different splits.

    Args:
        pairs: names of the two images of each pair.

    Returns:
        By image: the first in the alphabet of those that it hangs together with.
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
