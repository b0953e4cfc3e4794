"""Batches from the streams of several tasks: mixed for pretraining, in episodes for Reptile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

import tensorflow as tf

from tfmetareg.data.augmentation import task_like
from tfmetareg.data.records import Records, pair_stream, ready_ahead
from tfmetareg.errors import UserError
from tfmetareg.types import AnyPairBatch, ContrastEpisode, Episode


def task_pairs(
    records: Records, task: str, split: str, *, batch_size: int, seed: int, limit: Optional[int] = None
) -> tf.data.Dataset:
    """Endless batches of one task, for fine-tuning.

    Args:
        records, task, split, seed, limit: as for `pair_stream`.
        batch_size: pairs per batch.

    Returns:
        Elements are PairBatch, (batch_size, height, width, 1) uint8 each; ContrastPairBatch if the task has
        two contrasts.
    """
    contrasts = records.manifest.any_two_contrasts([task])
    pairs = pair_stream(records, task, split, seed=seed, limit=limit, contrasts=contrasts)
    return ready_ahead(pairs.batch(batch_size, drop_remainder=True))


def mixed_pairs(
    records: Records,
    tasks: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    target: str = "",
    tasks_equally: bool = False,
    augment: bool = False,
) -> tf.data.Dataset:
    """Endless batches for pretraining: pairs of all tasks, mixed within a batch.

    Args:
        records: records folder of the tasks.
        tasks: names of the source tasks; their split "train" is used.
        batch_size: pairs per batch.
        seed: seed of the order.
        target: target task whose training split is added to the pool; empty for none.
        tasks_equally: draws from each task equally often, as `episodes` does, instead of in proportion to its
            number of pairs.
        augment: turns each pair into one of an artificial task of its own, see `augmentation`.

    Returns:
        Elements are PairBatch, (batch_size, height, width, 1) uint8 each; ContrastPairBatch if a task has two
        contrasts.
    """
    pool = [(task, "train") for task in tasks]
    if target:
        pool.append((target, records.learning_split(target)))
    contrasts = records.manifest.any_two_contrasts([task for task, _ in pool])
    streams = [
        pair_stream(records, task, split, seed=seed + 2 * index, contrasts=contrasts)
        for index, (task, split) in enumerate(pool)
    ]
    sizes = [1 if tasks_equally else records.pair_count(task, split) for task, split in pool]
    shares = tf.constant(sizes, tf.float32)

    def choose(step: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_categorical(tf.math.log(shares)[None], 1, [seed, step])[0]

    pooled = _interleaved(streams, choose)
    if augment:
        pooled = _as_other_tasks(pooled, [seed, len(pool)], 1)
    return ready_ahead(pooled.batch(batch_size, drop_remainder=True))


def episodes(
    records: Records,
    tasks: Sequence[str],
    *,
    meta_batch_size: int,
    inner_steps: int,
    batch_size: int,
    seed: int,
    augment: bool = False,
) -> tf.data.Dataset:
    """Endless episodes for Reptile: m different tasks drawn uniformly, and k batches of each.

    Args:
        records: records folder of the tasks.
        tasks: names of the source tasks; their split "train" is used.
        meta_batch_size: number of tasks per episode, m.
        inner_steps: number of batches per task, k.
        batch_size: pairs per batch.
        seed: seed of the tasks drawn and of the order within each task.
        augment: turns each task drawn into an artificial one, see `augmentation`.

    Returns:
        Elements are Episode, (m, k, batch_size, height, width, 1) uint8 each; ContrastEpisode if a task has
        two contrasts.

    Raises:
        UserError: fewer than m tasks.
    """
    if meta_batch_size > len(tasks):
        raise UserError(
            f"`reptile.meta_batch_size` ({meta_batch_size}) must be at most the number of source tasks "
            f"({len(tasks)}: {', '.join(tasks)})."
        )

    contrasts = records.manifest.any_two_contrasts(tasks)

    def adaptations(index: int, task: str) -> tf.data.Dataset:
        pairs = pair_stream(records, task, "train", seed=seed + 2 * index, contrasts=contrasts)
        if augment:
            pairs = _as_other_tasks(pairs, [seed, index], inner_steps * batch_size)
        return pairs.batch(batch_size, drop_remainder=True).batch(inner_steps, drop_remainder=True)

    def choose(step: tf.Tensor) -> tf.Tensor:
        ranks = tf.random.stateless_uniform([len(tasks)], [seed, step])
        return tf.cast(tf.argsort(ranks)[:meta_batch_size], tf.int64)

    drawn = _interleaved([adaptations(index, task) for index, task in enumerate(tasks)], choose)
    joined = drawn.batch(meta_batch_size, drop_remainder=True)
    episode = ContrastEpisode if contrasts else Episode
    return ready_ahead(joined.map(lambda pairs: episode(*pairs)))


def _as_other_tasks(pairs: tf.data.Dataset, seed: Sequence[int], length: int) -> tf.data.Dataset:
    """Turns every `length` consecutive pairs into pairs of one artificial task."""

    def other(number: tf.Tensor, pair: AnyPairBatch) -> AnyPairBatch:
        return task_like(pair, tf.random.fold_in(tf.constant(seed, tf.int64), number // length), number)

    return pairs.enumerate().map(other)


def _interleaved(streams: list[tf.data.Dataset], choose: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    """Draws from the streams in the order of the indices that `choose(step)` returns for step 0, 1, 2, ...

    The choice depends on the step alone, since a stateful random operation could not be checkpointed.
    """
    choices = tf.data.Dataset.counter().map(choose).unbatch()
    return tf.data.Dataset.choose_from_datasets(streams, choices, stop_on_empty_dataset=False)
