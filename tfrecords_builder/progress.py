"""Progress on stderr: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Optional, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 10.0


class BuildProgress:
    """Shows on stderr how much of some work is done.

    Args:
        label: name of the work.
        total: number of items, if known.
        unit: noun for the items, in the plural.
    """

    def __init__(self, label: str, total: Optional[int] = None, unit: str = "pairs"):
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._last: Optional[float] = None
        self._bar = tqdm(desc=label, total=total, unit=f" {unit}") if sys.stderr.isatty() else None

    def advance(self, count: int = 1) -> None:
        """Adds the items done since the last call."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._last is None:  # The time until the first item is start-up.
            self._last = time.monotonic()
        elif time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            total = "" if self._total is None else f" of {self._total}"
            print(f"{self._label}: {self._done}{total} {self._unit}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar and leaves it as it is."""
        if self._bar is not None:
            self._bar.close()


def progress(items: Iterable[T], label: str, unit: str = "pairs") -> Iterator[T]:
    """Yields the items and shows the progress on stderr."""
    bar = BuildProgress(label, operator.length_hint(items) or None, unit)
    try:
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.close()
