"""Which pairs count as of different contrast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tfmetareg.registration.similarity import (
    Similarities,
    differ_in_contrast,
    differs_in_contrast,
    similarities,
)


def tissue(seed: int, shape: tuple[int, int] = (96, 80)) -> np.ndarray:
    """Four tissues with smooth borders on black, as in a slice of a brain: integers 0 to 4."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    levels = np.digitize(noise, np.quantile(noise, [0.25, 0.5, 0.75])) + 1
    rows, columns = np.indices(shape)
    inside = np.hypot((rows / shape[0] - 0.5) / 0.45, (columns / shape[1] - 0.5) / 0.45) < 1
    return levels * inside


def shown(tissues: np.ndarray, brightness: list[int], seed: int = 0) -> np.ndarray:
    """The tissues in the brightness of a sequence, uint8, with noise."""
    image = ndimage.gaussian_filter(np.array([0, *brightness], np.float64)[tissues], 0.7)
    noisy = image + np.random.default_rng(seed).normal(scale=4, size=image.shape) * (tissues > 0)
    return np.uint8(np.clip(noisy, 0, 255))


FIRST, SECOND = [60, 110, 170, 230], [230, 150, 110, 60]


@pytest.mark.parametrize("scale", [1, 3])
def test_two_sequences_of_one_slice_differ_and_two_scans_of_one_sequence_do_not(scale):
    slice_ = np.kron(tissue(1), np.ones((scale, scale), int))
    first, again, second = (
        shown(slice_, *each) for each in ((FIRST, 1), ([50, 120, 160, 240], 2), (SECOND, 3))
    )
    assert differs_in_contrast(second, first) and differs_in_contrast(first, second)
    for shift in (1, 3):
        assert differs_in_contrast(np.roll(second, shift * scale, axis=0), first)
        assert not differs_in_contrast(np.roll(again, shift * scale, axis=0), first)
    assert not differs_in_contrast(again, first)
    assert differs_in_contrast(np.float32(second / 255), np.float32(first / 255))


def test_places_that_differ_do_not_count_as_contrast():
    first, elsewhere = shown(tissue(1), FIRST), shown(tissue(2), FIRST, seed=1)
    assert not differs_in_contrast(elsewhere, first)
    assert not differs_in_contrast(np.roll(shown(tissue(1), FIRST, seed=2), 10, axis=1), first)


@pytest.mark.parametrize("shape", [(2, 3), (9, 9), (40, 33)])
def test_any_size_and_flat_images_have_an_answer(shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    for other in (image, 1 - image, np.zeros_like(image)):
        assert differs_in_contrast(other, image) in (True, False)
    assert not differs_in_contrast(image, image)


def test_most_of_the_pairs_decide():
    first, second = shown(tissue(1), FIRST), shown(tissue(1), SECOND)
    like, unlike = (first, first), (second, first)
    assert differ_in_contrast([unlike, like, unlike])
    assert not differ_in_contrast([unlike, like])
    assert not differ_in_contrast([])


def test_a_choice_stands_for_two_similarities():
    assert similarities("auto", like="voxelmorph") == Similarities("voxelmorph", "mind")
    assert similarities("ncc", like="voxelmorph") == Similarities("ncc", "ncc")
