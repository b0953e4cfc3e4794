"""Several tasks' streams joined: pooled for pretraining, in episodes for Reptile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

import tensorflow as tf

from tfmetareg.data.augmentation import task_like
from tfmetareg.data.records import Records, pair_stream, ready_ahead
from tfmetareg.errors import UserError
from tfmetareg.types import Episode, PairBatch


def task_pairs(
    records: Records, task: str, split: str, *, batch_size: int, seed: int, limit: Optional[int] = None
) -> tf.data.Dataset:
    """Endless batches of one task, for fine-tuning: PairBatch, (batch_size, height, width, 1) uint8.

    `limit` keeps to so many pairs, drawn by `seed`; few are among more.
    """
    pairs = pair_stream(records, task, split, seed=seed, limit=limit)
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
    """Endless batches from the pooled tasks, each pair of the pool equally likely (pretraining).

    A batch mixes tasks.

    Args:
        records: where the tasks are.
        tasks: names of the source tasks; their split "train" is used.
        batch_size: pairs per batch.
        seed: decides on the order.
        target: a task whose pairs for learning join the pool; none where empty.
        tasks_equally: each task of the pool is equally likely instead, as in `episodes`, whatever its size.
        augment: shows each pair as of a task of its own, see `augmentation`.

    Returns:
        PairBatch, (batch_size, height, width, 1) uint8 as stored.
    """
    pool = [(task, "train") for task in tasks]
    if target:
        pool.append((target, records.learning_split(target)))
    streams = [
        pair_stream(records, task, split, seed=seed + 2 * index) for index, (task, split) in enumerate(pool)
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
    """Endless episodes: m different tasks drawn uniformly, k batches from each one's own stream.

    Args:
        records: where the tasks are.
        tasks: names of the source tasks; their split "train" is used.
        meta_batch_size: m.
        inner_steps: k.
        batch_size: pairs per inner update.
        seed: decides on the tasks drawn and on the order within each.
        augment: makes a task of its own out of each one drawn, see `augmentation`.

    Returns:
        Episode, (m, k, batch_size, height, width, 1) uint8 as stored.

    Raises:
        UserError: fewer tasks than m.
    """
    if meta_batch_size > len(tasks):
        raise UserError(
            f"`reptile.meta_batch_size` ({meta_batch_size}) must be at most the number of source tasks "
            f"({len(tasks)}: {', '.join(tasks)})."
        )

    def adaptations(index: int, task: str) -> tf.data.Dataset:
        pairs = pair_stream(records, task, "train", seed=seed + 2 * index)
        if augment:
            pairs = _as_other_tasks(pairs, [seed, index], inner_steps * batch_size)
        return pairs.batch(batch_size, drop_remainder=True).batch(inner_steps, drop_remainder=True)

    def choose(step: tf.Tensor) -> tf.Tensor:
        ranks = tf.random.stateless_uniform([len(tasks)], [seed, step])
        return tf.cast(tf.argsort(ranks)[:meta_batch_size], tf.int64)

    drawn = _interleaved([adaptations(index, task) for index, task in enumerate(tasks)], choose)
    joined = drawn.batch(meta_batch_size, drop_remainder=True)
    return ready_ahead(joined.map(lambda pairs: Episode(*pairs)))


def _as_other_tasks(pairs: tf.data.Dataset, seed: Sequence[int], length: int) -> tf.data.Dataset:
    """Single pairs, so many in a row as of one task that was never recorded, the next ones as of another."""

    def other(number: tf.Tensor, pair: PairBatch) -> PairBatch:
        return task_like(pair, tf.random.fold_in(tf.constant(seed, tf.int64), number // length), number)

    return pairs.enumerate().map(other)


def _interleaved(streams: list[tf.data.Dataset], choose: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    """Draws from the streams in the order of indices that `choose(step)` gives.

    The choice is a function of the step alone: a stateful random operation
    could not be checkpointed.
    """
    choices = tf.data.Dataset.counter().map(choose).unbatch()
    return tf.data.Dataset.choose_from_datasets(streams, choices, stop_on_empty_dataset=False)
