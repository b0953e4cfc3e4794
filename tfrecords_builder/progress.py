"""A progress bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 10.0


def progress(items: Iterable[T], label: str) -> Iterator[T]:
    """Yields the items and tells on stderr how far it is."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, unit=" pairs")
        return
    total = f" of {len(items)}" if hasattr(items, "__len__") else ""
    last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{label}: {done}{total} pairs", file=sys.stderr, flush=True)
