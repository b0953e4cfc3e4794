"""Sources of image pairs: what a source is, how it is registered, how it reports mistakes in its input."""

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
        pairs: raw pairs, read or made one at a time; can be iterated more than once.
            Keys are unique within the task.
        two_contrasts: whether every pair has `moving_like_fixed`, its images being in different contrasts.
    """

    name: str
    role: str
    modality: str
    pairs: Iterable[ImagePair]
    two_contrasts: bool = False


# Yields some of a task's pairs, anew at each call.
Partition = Callable[[], Iterator[ImagePair]]


class LazyPairs:
    """Raw pairs that are read or made as they are iterated; can be iterated more than once.

    The pairs come in partitions, which worker processes share among them. A partition is a
    `functools.partial` of a module's function, so that it can be pickled, and does not depend on other
    partitions. It holds the pairs that are fastest read together, such as the slices of one volume, and no
    more: many small partitions keep all workers busy.

    >>> pairs = LazyPairs([lambda: iter(["a", "b"]), lambda: iter(["c"])], length=3)
    >>> list(pairs), len(pairs)
    (['a', 'b', 'c'], 3)

    Args:
        partitions: one partition, or several in order.
        length: number of pairs in all; None where it is known only after reading.
    """

    def __init__(self, partitions: Union[Partition, Sequence[Partition]], length: Optional[int] = None):
        self.partitions: Sequence[Partition] = (partitions,) if callable(partitions) else partitions
        self._length = length

    def __iter__(self) -> Iterator[ImagePair]:
        for partition in self.partitions:
            yield from partition()

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("the number of pairs is known only after reading them")
        return self._length


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user wants from a source.

    Attributes:
        input: file or folder to read; None for a source that generates its images.
        task: name of the task; None leaves the choice to the source.
        role: "source" or "target".
        image_size: (height, width) of the records.
        seed: seed of everything random.
        options: values of the source's own options, by name. The source
            function also finds the defaults of options that were not given.
        problems: collects mistakes in the input.
    """

    input: Optional[Path]
    task: Optional[str]
    role: str
    image_size: tuple[int, int]
    seed: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    problems: Problems = dataclasses.field(default_factory=Problems)


def number(kind: Callable[[str], Any], low: float, high: float = math.inf) -> Callable[[str], Any]:
    """An `argparse` type: an int or a float from `low` to `high`, both included.

    >>> number(int, 1)("3"), number(float, 0, 1)("0.5")
    (3, 0.5)
    """

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
    """A command-line option of one source: its flag, and the keyword arguments for `argparse`."""

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
        tasks: function from a request to tasks. Raises UserError where nothing
            can be read at all; reports other mistakes to `request.problems`.
        summary: one line for `--help`.
        options: the source's own command-line options.
        image_size: default (height, width) of its records.
        needs_input: whether the source reads `--input`.
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
    """Decorator that registers a function as `--source name`; for the arguments see `Source`.

    The function gets the request with the defaults of its options filled in. If it raises a UserError, the
    caller gets it together with the problems reported before.
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
    """Returns `path` if it is a readable folder.

    Raises:
        UserError: it is missing, not a folder, or not readable.
    """
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
        "help": "modality of the images, for the manifest (default: unspecified)",
    },
)
COLOUR = Option(
    "--colour",
    {
        "choices": COLOURS,
        "default": "green",
        "help": "grey value of a colour image: its green channel, in which retinal vessels have the highest "
        "contrast, or its luminance (default: green)",
    },
)
GAP = Option(
    "--gap",
    {
        "type": number(int, 1),
        "default": 1,
        "metavar": "N",
        "help": "number of slices from the fixed slice up to the moving one (default: 1)",
    },
)
STRIDE = Option(
    "--stride",
    {
        "type": number(int, 1),
        "default": 1,
        "metavar": "N",
        "help": "number of slices from one fixed slice to the next (default: 1)",
    },
)
FOREGROUND = Option(
    "--foreground",
    {
        "type": number(float, 0, 1),
        "default": 0.1,
        "metavar": "X",
        "help": "leave out slices with a smaller share of foreground; a pixel is foreground if it exceeds "
        "the volume's darkest value by a tenth of its range, 1st to 99th percentile (default: 0.1)",
    },
)
WINDOW = Option(
    "--window",
    {
        "nargs": 2,
        "type": number(float, -32768, 32767),
        "default": None,
        "metavar": ("LOW", "HIGH"),
        "help": "clip intensities to LOW and HIGH, in a CT Hounsfield units: -160 240 shows the abdomen "
        "(default: no clipping)",
    },
)
SLICE_OPTIONS = (GAP, STRIDE, FOREGROUND, WINDOW)


def window(request: Request) -> Optional[tuple[float, float]]:
    """(low, high) of `--window`, or None.

    Raises:
        UserError: low is not below high.
    """
    limits = request.options["window"]
    if limits is None:
        return None
    low, high = limits
    if low >= high:
        raise UserError(f"`--window`: LOW must be below HIGH, got {low:g} {high:g}.")
    return low, high
