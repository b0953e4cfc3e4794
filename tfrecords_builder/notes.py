"""Says what was done to read the images that other programs do differently: once for each kind."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tfmetareg.types import Note


def note_lines(notes: Iterable[Note]) -> list[str]:
    """One line for each kind of note, with its number of images; sentences that differ in numbers are a kind.

    >>> note_lines([Note("a.nii", "is 0.5 degrees off"), Note("b.nii", "is 2 degrees off")])
    ['note: a.nii and 1 more image: is 0.5 degrees off.']

    Args:
        notes: of all images; an image may be there several times.
    """
    kinds: dict[str, dict[str, str]] = {}
    for image, text in notes:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", text), {}).setdefault(image, text)
    return [_line(texts) for texts in kinds.values()]


def _line(texts: dict[str, str]) -> str:
    image, text = next(iter(texts.items()))
    more = len(texts) - 1
    others = f" and {more} more image{'s' * (more > 1)}" if more else ""
    return f"note: {image}{others}: {text}."
