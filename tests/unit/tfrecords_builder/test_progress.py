from __future__ import annotations

import pytest

from tfrecords_builder import progress as module
from tfrecords_builder.progress import BuildProgress


def test_the_clock_starts_at_the_first_result(capsys: pytest.CaptureFixture[str], monkeypatch):
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    bar = BuildProgress("in", 64)
    for now in (60.0, 65.0, 71.0, 75.0, 82.0):  # noqa: B007 - the clock reads it
        bar.advance(8)
    assert capsys.readouterr().err == "in: 24 of 64 pairs\nin: 40 of 64 pairs\n"
