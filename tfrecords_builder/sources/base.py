"""What a source of image pairs is, and how it reports what is wrong with its input."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, Optional

from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair


@dataclasses.dataclass(frozen=True)
class SourceTask:
    """One registration task as a source delivers it.

    Attributes:
        name: the task's name in the manifest.
        role: "source" (train, test) or "target" (finetune, test).
        modality: free text for the manifest, for instance "OCTA".
        pairs: raw pairs, read or made one at a time; can be iterated again.
            Keys are unique within the task.
    """

    name: str
    role: str
    modality: str
    pairs: Iterable[ImagePair]


class Lazy:
    """An iterable of known length that calls `make` afresh for each iteration."""

    def __init__(self, make: Callable[[], Iterator[ImagePair]], length: int):
        self._make = make
        self._length = length

    def __iter__(self) -> Iterator[ImagePair]:
        return self._make()

    def __len__(self) -> int:
        return self._length


class InputErrors(UserError):  # noqa: N818 - it is several
    """Several mistakes in one input; `lines` holds one message each."""

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(lines))
        self.lines = lines


class Problems:
    """The user's mistakes found so far: reading goes on past one, so that a run names them all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Records one problem, once."""
        if line not in self.lines:
            self.lines.append(line)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Records a `UserError` of the block instead of raising it; the rest of the block is skipped."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                self.add(line)

    def raise_any(self) -> None:
        """Raises `InputErrors` with every line recorded so far, if there is one."""
        if self.lines:
            raise InputErrors(self.lines)


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of a source.

    Attributes:
        input: file or folder to read; None for a source that makes its images.
        task: name for the task, None for the source's own choice.
        role: "source" or "target".
        image_size: (height, width) that the records will have.
        seed: of everything random.
        options: values of the source's own options, by name.
        problems: where mistakes in the input are reported.
    """

    input: Optional[Path]
    task: Optional[str]
    role: str
    image_size: tuple[int, int]
    seed: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    problems: Problems = dataclasses.field(default_factory=Problems)


def number(kind: Callable[[str], Any], low: float, high: float = math.inf) -> Callable[[str], Any]:
    """An `argparse` type: an int or a float between `low` and `high`, both allowed."""

    def parse(text: str) -> Any:
        noun = "whole number" if kind is int else "number"
        rule = f"must be a {noun} of at least {low}" + (f" and at most {high}" if high < math.inf else "")
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{rule}, got `{text}`") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(f"{rule}, got `{text}`")
        return value

    return parse


@dataclasses.dataclass(frozen=True)
class Option:
    """A command line option of one source: the flag and what `argparse` wants to know about it."""

    flag: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name under which `Request.options` holds the value."""
        return self.flag.lstrip("-").replace("-", "_")


@dataclasses.dataclass(frozen=True)
class Source:
    """A kind of input.

    Attributes:
        tasks: reads the request's input into tasks. Raises UserError where
            nothing can be read at all; reports the rest to `request.problems`.
        summary: one line for `--help`.
        options: the source's own command line options.
        image_size: default (height, width) of its records.
        needs_input: whether there is something to read.
    """

    tasks: Callable[[Request], list[SourceTask]]
    summary: str
    options: tuple[Option, ...] = ()
    image_size: tuple[int, int] = (400, 400)
    needs_input: bool = True
