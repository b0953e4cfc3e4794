"""The kinds of input that the builder reads.

Every module of this folder is imported, which registers its `@source` function in `SOURCES`. To add a source,
add a file; nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil

from tfrecords_builder.sources.base import SOURCES, Source

__all__ = ["SOURCES", "Source"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
