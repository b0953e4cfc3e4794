"""What the alignment is measured by, on pairs made here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.alignment import DICE, PIXELS, PairSet, _warped, measure, plain_simpleitk, quality, table
from tfmetareg.geometry.align import align
from tfmetareg.types import ImagePair, no_alignment

SHIFT = np.float32([[1, 0, 5], [0, 1, -3]])


def blobs(size: int = 96) -> np.ndarray:
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(size, size)), 3)
    rows, columns = np.mgrid[:size, :size]
    return np.float32((image - image.min()) * ((rows - 48) ** 2 + (columns - 44) ** 2 < 35**2))


def shifted_pair() -> ImagePair:
    """moving(p + (5, -3)) = fixed(p)."""
    moving = blobs()
    points = np.float32([[40, 40], [50, 60]])
    labels = np.uint8(moving > 0)
    fixed = np.roll(moving, (-5, 3), axis=(0, 1))
    return ImagePair(
        "a:b",
        "one",
        moving,
        fixed,
        moving_landmarks=points + SHIFT[:, 2],
        fixed_landmarks=points,
        moving_labels=labels,
        fixed_labels=np.roll(labels, (-5, 3), axis=(0, 1)),
    )


def test_the_truth_is_no_distance_and_whole_overlap():
    pair = shifted_pair()
    assert quality(pair, SHIFT, PIXELS) == pytest.approx(0, abs=1e-4)
    assert quality(pair, no_alignment(), PIXELS) == pytest.approx(np.hypot(5, 3), abs=1e-4)
    assert quality(pair, SHIFT, DICE) == 1 > quality(pair, no_alignment(), DICE)


def test_both_methods_find_a_shift():
    for method in (plain_simpleitk, align):
        assert quality(shifted_pair(), method(*(shifted_pair().moving, shifted_pair().fixed)), PIXELS) < 0.5


def test_the_landmarks_of_a_known_warp_lie_where_it_leads():
    """A picture of coordinates: what the warped image shows at a landmark is where its partner lies."""
    rows = np.tile(np.arange(96, dtype=np.float32)[:, None], (1, 96))
    pair = _warped("one", rows, rows, np.random.default_rng(0))
    shown = ndimage.map_coordinates(pair.moving, pair.moving_landmarks.T, order=1)
    assert len(shown) > 50
    np.testing.assert_allclose(shown, pair.fixed_landmarks[:, 0], atol=0.01)


def test_the_table_counts_pairs_that_are_left_as_they_are():
    pairs = PairSet("blobs", PIXELS, [shifted_pair()])
    row = measure(pairs, lambda moving, fixed: no_alignment())
    assert row.unmoved == ["a:b"]
    last = table([pairs], [{"mine": row}]).splitlines()[-1]
    assert last.startswith("| blobs | 1 | px | mine | 5.83 | 5.83 | 5.83 |")
    assert last.endswith("| 1 |")
