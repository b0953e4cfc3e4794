"""Tasks made out of tasks: what is shared by all pairs, and what each has of its own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests.conftest import texture
from tfmetareg.data.augmentation import task_like
from tfmetareg.types import PairBatch


def pairs(count: int = 3, size: tuple[int, int] = (32, 32), same: bool = True) -> PairBatch:
    """uint8 pairs; `same`: the moving image is the fixed one."""
    rng = np.random.default_rng(0)
    images = [texture(rng, 2.0, max(size))[: size[0], : size[1]] for _ in range(2 * count)]
    images = np.stack([np.uint8(255 * (image - image.min()) / np.ptp(image)) for image in images])[..., None]
    return PairBatch(tf.constant(images[:count] if same else images[count:]), tf.constant(images[:count]))


def shown(seed: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """The pairs as of the task of that seed."""
    given = zip(*pairs(**options))
    task = tf.constant([7, seed], tf.int64)
    found = [
        task_like(PairBatch(*pair), task, tf.constant(place, tf.int64)) for place, pair in enumerate(given)
    ]
    return tuple(np.stack(images) for images in zip(*found))


SEEDS = range(24)


def test_shapes_and_dtypes_stay():
    for image in shown(0, size=(24, 32)):
        assert image.shape == (3, 24, 32, 1) and image.dtype == np.uint8


def test_the_seed_alone_decides():
    assert all(map(np.array_equal, shown(3), shown(3)))
    assert not np.array_equal(shown(3)[1], shown(4)[1])


def test_every_fixed_image_keeps_its_content_under_one_map_of_grey_levels_for_all():
    before = pairs().fixed.numpy()
    orientations = [
        lambda image, turn=turn, mirror=mirror: np.rot90(image[..., 0], turn, (1, 2))[:, :, ::mirror]
        for turn in range(4)
        for mirror in (1, -1)
    ]
    rising = set()
    for seed in SEEDS:
        after = shown(seed)[1][..., 0]
        correlations = [stats.spearmanr(turned(before).ravel(), after.ravel())[0] for turned in orientations]
        best = correlations[int(np.argmax(np.abs(correlations)))]
        assert abs(best) > 0.999  # One monotonic map, over all three images at once.
        rising.add(best > 0)
    assert rising == {True, False}


def test_moving_images_move_each_in_its_own_way_and_by_a_few_percent():
    distances = []
    for seed in SEEDS:
        moving, fixed = (np.float32(image[..., 0]) / 255 for image in shown(seed))
        changes = np.abs(moving - fixed).mean(axis=(1, 2))
        assert len(set(changes)) == 3 or changes.max() < 0.01
        distances.append(changes.mean() / np.abs(fixed - np.roll(fixed, 4, 1)).mean())
    assert max(distances) > 0.15 and max(distances) < 0.8 and min(distances) < 0.1


def test_an_image_that_is_not_square_keeps_its_axes():
    for seed in SEEDS:
        assert shown(seed, size=(24, 32))[1].shape == (3, 24, 32, 1)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_stay_the_ends_of_the_scale(value):
    flat = PairBatch(*[tf.fill([16, 16, 1], tf.constant(value, tf.uint8))] * 2)
    seeds = (tf.constant([0, seed], tf.int64) for seed in SEEDS)
    ends = {int(task_like(flat, seed, tf.constant(0, tf.int64)).fixed[0, 0, 0]) for seed in seeds}
    assert ends == {0, 255}
