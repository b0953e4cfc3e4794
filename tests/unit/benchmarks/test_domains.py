"""What networks are measured by on domains that they never saw, on a pair made here."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.alignment import DICE, NCC, PIXELS, PairSet
from benchmarks.domains import affine, by_network, measure, quality, table
from tests.unit.benchmarks.test_alignment import SHIFT, shifted_pair
from tfmetareg.geometry.affine import compose_displacement


def field(alignment: np.ndarray) -> np.ndarray:
    return compose_displacement(np.zeros((96, 96, 2), np.float32), alignment)


def test_the_truth_is_no_distance_and_whole_overlap():
    pair, truth, none = shifted_pair(), field(SHIFT), np.zeros((96, 96, 2), np.float32)
    assert quality(pair, truth, PIXELS) == pytest.approx(0, abs=1e-4)
    assert quality(pair, none, PIXELS) == pytest.approx(np.hypot(5, 3), abs=1e-4)
    assert quality(pair, truth, DICE) == 1 > quality(pair, none, DICE)
    assert quality(pair, truth, NCC) == pytest.approx(1) and quality(pair, none, NCC) < 0.9


def test_the_shipped_start_follows_the_alignment_and_steps_change_nothing_for_the_next_pair():
    images = shifted_pair()
    scaled = [np.uint8(255 * image / image.max()) for image in (images.moving, images.fixed)]
    pair = images.__class__(**{**vars(images), "moving": scaled[0], "fixed": scaled[1]})
    found = PairSet("blobs", PIXELS, [pair])
    for method in (affine, by_network("start"), by_network("start", 2)):
        row = measure(found, method)
        assert row.qualities[0] < 1 and len(row.folding_percent) == len(row.seconds) == 1
    assert by_network("start", 2)(*scaled).shape == (96, 96, 2)
    register = by_network("start", 1)
    np.testing.assert_array_equal(register(*scaled), register(*scaled))
    lines = table([found], [{"affine": measure(found, affine)}]).splitlines()
    assert lines[2].startswith("| blobs | 1 | px | affine | 0.")
