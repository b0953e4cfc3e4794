"""Which pairs are learned from and which are held out; a subject is never in both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Optional

from tfmetareg.errors import UserError

LEARNING_SPLIT = {"source": "train", "target": "finetune"}
HELD_OUT_SPLIT = "test"


class Member(NamedTuple):
    """What a split is decided by: a pair's key, subject, and the split that its source prescribes."""

    key: str
    subject: str
    split: Optional[str]


def hashed(seed: int, name: str) -> str:
    """A key that sorts names in an order that only `seed` decides."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def assign_splits(
    members: Sequence[Member], role: str, *, test_fraction: float = 0.2, seed: int = 0
) -> dict[str, str]:
    """Decides the split of each pair: the source's where it prescribes one, else by subject.

    Args:
        members: the pairs of one task.
        role: "source" (train, test) or "target" (finetune, test).
        test_fraction: share of the subjects to hold out; a fraction above 0
            holds out at least one, and never all. A single subject is not divided.
        seed: of the choice of subjects.

    Returns:
        Split name by key.

    Raises:
        UserError: a split that the role does not have, prescribed for some
            pairs only, or that divides a subject; one line for each.
    """
    if any(member.split for member in members):
        _check_prescribed(members, role)
        return {member.key: str(member.split) for member in members}
    held_out = _held_out_subjects({member.subject for member in members}, test_fraction, seed)
    return {
        member.key: HELD_OUT_SPLIT if member.subject in held_out else LEARNING_SPLIT[role]
        for member in members
    }


def _held_out_subjects(subjects: set[str], fraction: float, seed: int) -> set[str]:
    if fraction == 0 or len(subjects) < 2:
        return set()
    count = min(max(1, round(fraction * len(subjects))), len(subjects) - 1)
    return set(sorted(subjects, key=lambda subject: hashed(seed, subject))[:count])


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
