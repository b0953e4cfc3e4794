"""What a source of image pairs is, how it is registered, and how it reports what is wrong with its input."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, Optional, Union

from tfmetareg.errors import InputErrors, Problems, UserError
from tfmetareg.imaging.choices import COLOURS
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


Part = Callable[[], Iterator[ImagePair]]


class Lazy:
    """Raw pairs that are read or made as they are iterated, part by part; can be iterated again.

    Each part gives its pairs afresh whenever it is called. Worker processes take a few parts each: a part is
    a `functools.partial` of a module's function, can be pickled, needs no other part, and holds what is
    quickest read together (the slices of one volume), but no more, for there should be many parts.

    Args:
        parts: one part, or several in order.
        length: number of pairs in all; None where only reading tells.
    """

    def __init__(self, parts: Union[Part, Sequence[Part]], length: Optional[int] = None):
        self.parts: Sequence[Part] = (parts,) if callable(parts) else parts
        self._length = length

    def __iter__(self) -> Iterator[ImagePair]:
        for part in self.parts:
            yield from part()

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("only reading tells how many pairs there are")
        return self._length


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of a source.

    Attributes:
        input: file or folder to read; None for a source that makes its images.
        task: name for the task, None for the source's own choice.
        role: "source" or "target".
        image_size: (height, width) that the records will have.
        seed: of everything random.
        options: values of the source's own options, by name; a source finds
            the defaults of those that were not given.
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


Tasks = Callable[[Request], list[SourceTask]]


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

    tasks: Tasks
    summary: str
    options: tuple[Option, ...] = ()
    image_size: tuple[int, int] = (400, 400)
    needs_input: bool = True


SOURCES: dict[str, Source] = {}


def source(
    name: str,
    *,
    summary: str,
    options: Sequence[Option] = (),
    image_size: tuple[int, int] = (400, 400),
    needs_input: bool = True,
) -> Callable[[Tasks], Tasks]:
    """Registers the function below it as `--source name`; for the arguments see `Source`.

    The function gets every option of the request, defaults filled in. What it raises as a UserError is raised
    together with the problems that it reported before.
    """

    def register(tasks: Tasks) -> Tasks:
        @functools.wraps(tasks)
        def with_defaults(request: Request) -> list[SourceTask]:
            defaults = {option.name: option.settings.get("default") for option in options}
            with request.problems.collected():
                return tasks(dataclasses.replace(request, options={**defaults, **request.options}))
            raise InputErrors(request.problems.lines)

        if name in SOURCES:
            raise ValueError(f"source `{name}` is registered twice.")
        SOURCES[name] = Source(with_defaults, summary, tuple(options), image_size, needs_input)
        return with_defaults

    return register


def existing_folder(path: Optional[Path]) -> Path:
    """`path`, if it is a folder that can be read; UserError otherwise."""
    if path is None or not os.path.isdir(path):
        raise UserError(f"{path}: no such folder; `--input` must be a folder that exists.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{path}: folder cannot be read; give yourself the permission.")
    return path


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
        "contrast, or its luminance (default: green)",
    },
)
GAP = Option(
    "--gap",
    {
        "type": number(int, 1),
        "default": 1,
        "metavar": "N",
        "help": "slices from the fixed to the moving one (default: 1)",
    },
)
STRIDE = Option(
    "--stride",
    {
        "type": number(int, 1),
        "default": 1,
        "metavar": "N",
        "help": "slices from one fixed slice to the next (default: 1)",
    },
)
FOREGROUND = Option(
    "--foreground",
    {
        "type": number(float, 0, 1),
        "default": 0.1,
        "metavar": "X",
        "help": "leave out slices of which less than this share lies above the darkest value by a tenth of "
        "the volume's range, 1st to 99th percentile (default: 0.1)",
    },
)
WINDOW = Option(
    "--window",
    {
        "nargs": 2,
        "type": number(float, -32768, 32767),
        "default": None,
        "metavar": ("LOW", "HIGH"),
        "help": "cut intensities off below LOW and above HIGH, HU of a CT: -160 240 shows the abdomen "
        "(default: keep all)",
    },
)
SLICE_OPTIONS = (GAP, STRIDE, FOREGROUND, WINDOW)


def window(request: Request) -> Optional[tuple[float, float]]:
    """(low, high) of `--window`, None without one; UserError unless low is below high."""
    limits = request.options["window"]
    if limits is None:
        return None
    low, high = limits
    if low >= high:
        raise UserError(f"`--window`: LOW must be below HIGH, got {low:g} {high:g}.")
    return low, high
