"""Joining several tasks' streams."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

from tests.conftest import shifted_pair, source_task
from tfmetareg.data.records import Records, examples
from tfmetareg.data.tasks import episodes, mixed_pairs, task_pairs
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.types import ContrastEpisode, ContrastPairBatch, Episode, PairBatch
from tfrecords_builder.build import build

TASKS = ["task_a", "task_b", "task_c"]


def stored(image) -> bytes:
    """The bytes that a record holds of an image in [0, 1]."""
    return np.rint(image.numpy() * 255).astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def contrasts(tmp_path_factory):
    """Records of a task in one contrast, `plain`, and of one in two, `inverse`."""
    root = tmp_path_factory.mktemp("contrasts")
    plain, inverse = (source_task(name, "source", 2.0, {"train": 4}) for name in ("plain", "inverse"))
    pairs = [
        dataclasses.replace(pair, moving=np.abs(pair.moving), moving_like_fixed=pair.moving)
        for pair in inverse.pairs
    ]
    inverse = dataclasses.replace(inverse, pairs=pairs, two_contrasts=True)
    build([plain, inverse], root, preprocessing=Preprocessing((32, 32)), say=lambda line: None)
    return Records(root)


def like_fixed(records) -> dict[bytes, bytes]:
    """What the loss compares in place of each moving image."""
    copies = {}
    for task in ("plain", "inverse"):
        for example in examples(records, task, "train"):
            moving = stored(example["moving"])
            copies[moving] = moving if task == "plain" else example["moving_like_fixed"].numpy().tobytes()
    return copies


def test_copies_in_the_other_contrast_come_with_their_pairs(contrasts):
    copies, tasks = like_fixed(contrasts), ["plain", "inverse"]
    assert sum(moving == copy for moving, copy in copies.items()) == 4
    options = dict(meta_batch_size=2, inner_steps=2, batch_size=2, seed=0)
    for batches, kind in (
        (episodes(contrasts, tasks, **options), ContrastEpisode),
        (mixed_pairs(contrasts, tasks, batch_size=4, seed=0), ContrastPairBatch),
        (task_pairs(contrasts, "inverse", "train", batch_size=2, seed=0), ContrastPairBatch),
    ):
        batch = next(iter(batches))
        assert type(batch) is kind
        moving, copied = (np.reshape(batch[place], (-1, 32, 32)) for place in (0, 2))
        assert [copies[image.tobytes()] for image in moving] == [image.tobytes() for image in copied]


def test_without_tasks_of_two_contrasts_there_are_no_copies(contrasts):
    options = dict(meta_batch_size=1, inner_steps=2, batch_size=2, seed=0)
    assert type(next(iter(episodes(contrasts, ["plain"], **options)))) is Episode
    assert type(next(iter(mixed_pairs(contrasts, ["plain"], batch_size=2, seed=0)))) is PairBatch
    assert type(next(iter(task_pairs(contrasts, "plain", "train", batch_size=2, seed=0)))) is PairBatch


def test_copies_are_augmented_with_their_pairs(contrasts):
    mixed = mixed_pairs(contrasts, ["plain", "inverse"], batch_size=8, seed=0, augment=True)
    batch = next(iter(mixed))
    equal = [np.array_equal(moving, copy) for moving, copy in zip(batch.moving, batch.moving_like_fixed)]
    assert 0 < sum(equal) < 8


@pytest.fixture
def owner(records):
    """Task and key of an image."""
    owners = {}
    for task in TASKS:
        for example in examples(records, task, "train"):
            owners[stored(example["moving"])] = (task, example["key"].numpy().decode())
    return lambda image: owners[image.numpy().tobytes()]


def make_episodes(records, m=2, k=4, seed=0):
    return episodes(records, TASKS, meta_batch_size=m, inner_steps=k, batch_size=2, seed=seed)


def test_an_episode_draws_different_tasks_and_keeps_each_to_its_own_row(records, owner):
    drawn = set()
    for episode in make_episodes(records).take(12):
        assert episode.moving.shape == (2, 4, 2, 32, 32, 1)
        rows = [{owner(image)[0] for batch in row for image in batch} for row in episode.moving]
        assert all(len(row) == 1 for row in rows)
        assert rows[0] != rows[1]
        drawn.update(name for row in rows for name in row)
    assert drawn == set(TASKS)


def test_moving_and_fixed_of_an_episode_belong_together(records):
    fixed_of = {stored(e["moving"]): stored(e["fixed"]) for t in TASKS for e in examples(records, t, "train")}
    episode = next(iter(make_episodes(records)))
    for moving, fixed in zip(
        np.reshape(episode.moving, (-1, 32, 32, 1)), np.reshape(episode.fixed, (-1, 32, 32, 1))
    ):
        assert fixed_of[moving.tobytes()] == fixed.tobytes()


def test_a_task_goes_on_through_its_pairs_from_episode_to_episode(records, owner):
    seen = {task: [] for task in TASKS}
    for episode in make_episodes(records, m=3, k=3).take(2):
        for row in episode.moving:
            for batch in row:
                for image in batch:
                    seen[owner(image)[0]].append(owner(image)[1])
    for keys in seen.values():
        assert sorted(keys[:6]) == sorted(keys[6:]) == [f"train-{number}" for number in range(6)]


def test_tasks_are_drawn_equally_often(records, owner):
    counts = dict.fromkeys(TASKS, 0)
    for episode in make_episodes(records, m=1, k=1).take(300):
        counts[owner(episode.moving[0, 0, 0])[0]] += 1
    assert all(70 < count < 130 for count in counts.values())


def test_the_pool_gives_each_pair_the_same_chance(records, owner):
    counts = dict.fromkeys(TASKS, 0)
    for batch in mixed_pairs(records, TASKS, batch_size=2, seed=0).take(150):
        for image in batch.moving:
            counts[owner(image)[0]] += 1
    assert all(70 < count < 130 for count in counts.values())


@pytest.mark.parametrize(("tasks_equally", "shares"), [(False, (0.25, 0.75)), (True, (0.5, 0.5))])
def test_pairs_or_tasks_are_equally_likely_where_tasks_are_unequal(tmp_path, tasks_equally, shares):
    sizes = {"few": 2, "many": 6}
    tasks = [source_task(name, "source", 1.5, {"train": size}) for name, size in sizes.items()]
    tasks[1].pairs[:] = [shifted_pair(50 + number, "train", 2.5) for number in range(sizes["many"])]
    build(tasks, tmp_path, preprocessing=Preprocessing((32, 32)), say=lambda line: None)
    records = Records(tmp_path)
    own = {stored(example["moving"]) for example in examples(records, "few", "train")}
    pool = mixed_pairs(records, list(sizes), batch_size=2, seed=0, tasks_equally=tasks_equally)
    few = sum(image.numpy().tobytes() in own for batch in pool.take(150) for image in batch.moving)
    assert few / 300 == pytest.approx(shares[0], abs=0.08)


def test_the_targets_fine_tuning_pairs_join_the_pool_with_the_same_chance(records):
    own = {stored(example["moving"]) for example in examples(records, "target", "finetune")}
    pool = mixed_pairs(records, TASKS, batch_size=2, seed=0, target="target")
    joined = sum(image.numpy().tobytes() in own for batch in pool.take(130) for image in batch.moving)
    assert 50 < joined < 110  # 8 of 26 pairs: 80 of 260.


def grey_maps(before: np.ndarray, after: np.ndarray) -> tuple[bool, float]:
    """Whether the grey levels of equal pixels fall, and the power by which they rise; turned back before."""
    best = max(
        (np.rot90(after, turn, (-2, -1))[..., ::mirror] for turn in range(4) for mirror in (1, -1)),
        key=lambda turned: abs(np.corrcoef(before.ravel(), turned.ravel())[0, 1]),
    )
    falls = np.corrcoef(before.ravel(), best.ravel())[0, 1] < 0
    levels = 1 - best / 255 if falls else best / 255
    middle = np.abs(before / 255 - 0.5) < 0.01
    return bool(falls), round(float(np.log(levels[middle].mean()) / np.log(0.5)), 1)


def test_an_augmented_episode_has_one_map_of_grey_levels_for_each_of_its_tasks(records):
    plain, shown = (
        iter(
            episodes(records, TASKS, meta_batch_size=2, inner_steps=4, batch_size=2, seed=0, augment=augment)
        )
        for augment in (False, True)
    )
    seen = set()
    for _ in range(6):
        before, after = next(plain), next(shown)
        assert after.fixed.shape == before.fixed.shape and after.fixed.dtype == before.fixed.dtype
        for row in range(2):
            images = (
                np.float32(episode.fixed[row, ..., 0]).reshape(8, 32, 32) for episode in (before, after)
            )
            maps = {grey_maps(*pair) for pair in zip(*images)}
            assert len({falls for falls, _ in maps}) == 1
            assert np.ptp([power for _, power in maps]) < 0.25
            seen.add(min(maps))
    assert len({falls for falls, _ in seen}) == 2 and len(seen) > 6


def test_each_pair_of_an_augmented_pool_is_of_a_task_of_its_own(records):
    plain, shown = (
        iter(mixed_pairs(records, TASKS, batch_size=8, seed=0, augment=augment)) for augment in (False, True)
    )
    before, after = next(plain), next(shown)
    maps = [
        grey_maps(*(np.float32(batch.fixed[index, ..., 0]) for batch in (before, after)))
        for index in range(8)
    ]
    assert len({falls for falls, _ in maps}) == 2 and len(set(maps)) > 4


def test_more_tasks_than_there_are_is_an_error_that_says_so(records):
    with pytest.raises(UserError, match=r"`reptile.meta_batch_size` \(4\) must be at most .* \(3: task_a"):
        make_episodes(records, m=4)


def test_the_seed_decides_on_the_episodes(records):
    def first(seed):
        return next(iter(make_episodes(records, seed=seed))).moving.numpy()

    assert np.array_equal(first(0), first(0))
    assert not np.array_equal(first(0), first(1))


def test_fine_tuning_reads_only_its_own_task(records):
    own = {stored(example["moving"]) for example in examples(records, "target", "finetune")}
    for batch in task_pairs(records, "target", "finetune", batch_size=3, seed=0).take(6):
        assert all(image.numpy().tobytes() in own for image in batch.moving)


def drawn(records, limit, seed):
    """The pairs that three epochs of so few hold, and how often each."""
    own = {stored(e["moving"]): e["key"].numpy().decode() for e in examples(records, "target", "finetune")}
    batches = task_pairs(records, "target", "finetune", batch_size=1, seed=seed, limit=limit)
    return collections.Counter(own[batch.moving[0].numpy().tobytes()] for batch in batches.take(3 * limit))


def test_a_limit_keeps_to_so_many_pairs_the_few_among_the_more(records):
    subsets = [drawn(records, limit, seed=0) for limit in (2, 5, 8)]
    assert [len(subset) for subset in subsets] == [2, 5, 8]
    assert all(set(subset.values()) == {3} for subset in subsets)
    assert set(subsets[0]) < set(subsets[1]) < set(subsets[2])


def test_the_seed_decides_on_the_few(records):
    assert len({frozenset(drawn(records, 3, seed)) for seed in range(4)}) > 1
    assert drawn(records, 3, 1) == drawn(records, 3, 1)
