"""The kinds of input that the builder reads. A new one is a file here and a line below."""

from __future__ import annotations

from tfrecords_builder.sources import embedded, pairs, unpaired
from tfrecords_builder.sources.base import Source

SOURCES: dict[str, Source] = {
    "embedded": embedded.SOURCE,
    "pairs": pairs.SOURCE,
    "unpaired": unpaired.SOURCE,
}
