"""One task's records: shards on disk -> decoded pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Union

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.schema import Manifest, parse_pair
from tfmetareg.types import PairBatch

# Serialized records held back for shuffling. Small, since a checkpoint stores them; records are written in
# random order already, so this only has to vary the order from epoch to epoch.
_SHUFFLE_BUFFER = 32


class Records:
    """A records folder and its manifest."""

    def __init__(self, root: Union[str, os.PathLike]):
        """Reads the manifest.

        Raises:
            UserError: no folder, or no readable manifest in it.
        """
        self.root = Path(root)
        self.manifest = Manifest.read(root)

    def shards(self, task: str, split: str) -> list[str]:
        """Paths of a split's shards, after checking that each is there in full size.

        Raises:
            UserError: no such task or split, an empty split, or a shard that is
                missing or of another size than the manifest says.
        """
        splits = self.manifest.task(task).splits
        if split not in splits or not splits[split].pairs:
            known = ", ".join(name for name, content in splits.items() if content.pairs)
            raise UserError(f"task `{task}` has no pairs in split `{split}`; it has: {known}.")
        for shard in splits[split].shards:
            path = self.root / shard.file
            size = path.stat().st_size if path.is_file() else None
            if size != shard.bytes:
                found = "it is missing" if size is None else f"it has {size} bytes, not {shard.bytes}"
                raise UserError(
                    f"{path}: damaged shard ({found}); build task `{task}` again with --overwrite."
                )
        return [str(self.root / shard.file) for shard in splits[split].shards]

    def pair_count(self, task: str, split: str) -> int:
        """Number of pairs in a split, 0 where there is no such split."""
        content = self.manifest.task(task).splits.get(split)
        return content.pairs if content else 0


def examples(records: Records, task: str, split: str) -> tf.data.Dataset:
    """Every pair of a split once, in stored order, with all that its record holds.

    Returns:
        Elements as `schema.parse_pair` gives them, the images as float32 in
        [0, 1], (height, width, 1).
    """

    def with_images(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        record = parse_pair(serialized)
        pair = as_floats(_images(record, records.manifest.image_shape))
        return {**record, "moving": pair.moving, "fixed": pair.fixed}

    return tf.data.TFRecordDataset(records.shards(task, split)).map(with_images)


def pair_stream(records: Records, task: str, split: str, *, batch_size: int, seed: int) -> tf.data.Dataset:
    """Endless batches of a split's images, in another order each epoch.

    Epochs follow each other without a gap, so every batch is full. The stream
    can be checkpointed. Its order is decided by `seed` and by TensorFlow's
    global seed at the time of the call.

    Returns:
        PairBatch, uint8 as stored, (batch_size, height, width, 1).
    """
    shards = records.shards(task, split)
    files = tf.data.Dataset.from_tensor_slices(shards).shuffle(len(shards), seed=seed)
    serialized = files.interleave(tf.data.TFRecordDataset, cycle_length=len(shards), block_length=1)
    serialized = serialized.shuffle(_SHUFFLE_BUFFER, seed=seed + 1).repeat()
    image_shape = records.manifest.image_shape
    pairs = serialized.map(lambda text: _images(parse_pair(text), image_shape))
    return pairs.batch(batch_size, drop_remainder=True)


def ready_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Decodes one element ahead of the training step, in an order that never varies."""
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(1).with_options(options)


def as_floats(pair: PairBatch) -> PairBatch:
    """The images as float32 in [0, 1], whether they are so already or uint8 as stored."""
    return PairBatch(*[tf.image.convert_image_dtype(image, tf.float32) for image in pair])


def _images(record: dict[str, tf.Tensor], image_shape: tuple[int, int]) -> PairBatch:
    """The images of a record, uint8, of a shape known to the graph."""
    return PairBatch(*[tf.ensure_shape(record[name], [*image_shape, 1]) for name in ("moving", "fixed")])
