"""The kinds of input that the builder reads.

Every module of this folder is imported, and its `@source` function goes into `SOURCES`: a new source is a
new file, and nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil

from tfrecords_builder.sources.base import SOURCES, Source

__all__ = ["SOURCES", "Source"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
