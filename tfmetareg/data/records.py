"""Reads records: from a task's shards on disk to pairs of images."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional, TypeVar, Union

import numpy as np
import tensorflow as tf

from tfmetareg.data.schema import Manifest, Split, parse_pair
from tfmetareg.errors import UserError
from tfmetareg.files import sha256
from tfmetareg.imaging.names import name_on_disk
from tfmetareg.types import AnyPairBatch, ContrastPairBatch, PairBatch

P = TypeVar("P", bound=AnyPairBatch)

# Number of serialized records in the shuffle buffer. Small, since checkpoints store the buffer; records are
# written in random order, so it only has to vary the order from epoch to epoch.
_SHUFFLE_BUFFER = 32


class Records:
    """A records folder and its manifest.

    >>> import tempfile
    >>> from tfmetareg.data.schema import Manifest
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = Manifest(image_shape=(64, 64), preprocessing={}, tasks=())
    ...     _ = Path(folder, "manifest.json").write_text(manifest.to_json())
    ...     Records(folder).manifest.image_shape
    (64, 64)

    Attributes:
        root: the folder.
        manifest: its content: image shape, preprocessing, tasks with their splits and shards.
    """

    def __init__(self, root: Union[str, os.PathLike]):
        """Reads the manifest of a folder that `python -m tfrecords_builder build` has made.

        Raises:
            UserError: no folder, or no readable manifest in it.
        """
        self.root = Path(name_on_disk(Path(), os.fspath(root)))
        self.manifest = Manifest.read(self.root)

    def split(self, task: str, split: str) -> Split:
        """A split of a task, with at least one pair.

        Raises:
            UserError: no such task or split, or an empty split; the message lists those that there are.
        """
        splits = self.manifest.task(task).splits
        if split not in splits or not splits[split].pairs:
            known = ", ".join(name for name, content in splits.items() if content.pairs)
            raise UserError(
                f"{self.root}: task `{task}` has no pairs in split `{split}`; it has: {known or 'none'}."
            )
        return splits[split]

    def shards(self, task: str, split: str) -> list[str]:
        """Paths of a split's shards, after checking that each exists and has the size in the manifest.

        Raises:
            UserError: no such task or split, an empty split, or a shard that is missing or of another size.
        """
        shards = self.split(task, split).shards
        for shard in shards:
            path = self.root / shard.file
            size = path.stat().st_size if path.is_file() else None
            if size != shard.bytes:
                problem = "it is missing" if size is None else f"it has {size} bytes, not {shard.bytes}"
                raise UserError(f"{path}: damaged shard ({problem}); {_rebuild(task)}")
        return [str(self.root / shard.file) for shard in shards]

    def verify(self, task: str, split: str) -> None:
        """Compares the SHA-256 of a split's shards with the manifest.

        Raises:
            UserError: as for `shards`, or a shard's content differs.
        """
        for path, shard in zip(self.shards(task, split), self.split(task, split).shards):
            if sha256(path) != shard.sha256:
                raise UserError(
                    f"{path}: damaged shard (another SHA-256 than the manifest's); {_rebuild(task)}"
                )

    def explain(self, tasks: Sequence[str], error: tf.errors.OpError) -> UserError:
        """Returns the error to raise after reading records of these tasks failed: names the damaged shard."""
        for task in tasks:
            for split in self.manifest.task(task).splits.values():
                for shard in split.shards:
                    damage = _damage(self.root / shard.file, shard.records)
                    if damage:
                        return UserError(f"{self.root / shard.file}: {damage}; {_rebuild(task)}")
        return UserError(f"{self.root}: records could not be read ({error.message.splitlines()[0]}).")

    def learning_split(self, task: str) -> str:
        """The training split of a task: "finetune" for a target task, "train" for a source task."""
        return "finetune" if self.manifest.task(task).role == "target" else "train"

    def pair_count(self, task: str, split: str) -> int:
        """Number of pairs in a split; 0 if there is no such split."""
        content = self.manifest.task(task).splits.get(split)
        return content.pairs if content else 0


def examples(records: Records, task: str, split: str) -> tf.data.Dataset:
    """Each pair of a split once, in stored order, with all fields of its record.

    Returns:
        Elements as from `schema.parse_pair`, but with images as float32 (height, width, 1) in [0, 1]. If the
        task is aligned, elements also have `aligned`: the aligned moving image, the network's input.
    """
    image_shape = records.manifest.image_shape

    def with_images(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        record = parse_pair(serialized)
        return {**record, **as_floats(_images(record, image_shape))._asdict()}

    pairs = _shards(records, task, split).flat_map(_read).map(with_images)
    return pairs if records.manifest.align_of(task) == "none" else pairs.map(_with_aligned)


def unaligned(pairs: tf.data.Dataset) -> tf.data.Dataset:
    """The elements of `examples` without `aligned`, the aligned moving image."""
    return pairs.map(lambda pair: {name: value for name, value in pair.items() if name != "aligned"})


def realigned(pairs: tf.data.Dataset, alignments: np.ndarray) -> tf.data.Dataset:
    """The elements of `examples` with other alignments, (pairs, 2, 3) float32, than those in the records."""
    numbered = tf.data.Dataset.zip((pairs, tf.data.Dataset.from_tensor_slices(alignments)))
    return numbered.map(lambda pair, alignment: _with_aligned({**pair, "alignment": alignment}))


def pair_stream(
    records: Records,
    task: str,
    split: str,
    *,
    seed: int,
    limit: Optional[int] = None,
    contrasts: bool = False,
) -> tf.data.Dataset:
    """Endless image pairs of a split, in another order each epoch.

    Epochs follow each other without a gap. The stream can be checkpointed. Its order depends on `seed` and
    on TensorFlow's global seed at the time of the call.

    Args:
        records: records folder.
        task, split: names of the task and of its split.
        seed: seed of the order, and of the choice of pairs with `limit`.
        limit: largest number of pairs to use, None for all; smaller subsets are nested in larger ones.
        contrasts: gives ContrastPairBatch, for use together with tasks of two contrasts.

    Returns:
        Elements are PairBatch of single pairs, uint8 (height, width, 1), with the moving image aligned if the
        task is; ContrastPairBatch with `contrasts`.
    """
    shards = _shards(records, task, split)
    count = len(shards)
    serialized = shards.shuffle(count, seed=seed).interleave(_read, cycle_length=count, block_length=1)
    if limit is not None and limit < records.pair_count(task, split):
        serialized = tf.data.Dataset.from_tensor_slices(_drawn(shards.flat_map(_read), limit, seed))
    serialized = serialized.shuffle(_SHUFFLE_BUFFER, seed=seed + 1).repeat()
    image_shape, align = records.manifest.image_shape, records.manifest.align_of(task)
    two_contrasts = records.manifest.task(task).two_contrasts

    def images(text: tf.Tensor) -> AnyPairBatch:
        record = parse_pair(text)
        moving, fixed = _images(record, image_shape)
        if align != "none":
            moving = align_image(moving, record["alignment"])
        if not contrasts:
            return PairBatch(moving, fixed)
        if not two_contrasts:
            return ContrastPairBatch(moving, fixed, moving)
        like_fixed = tf.ensure_shape(record["moving_like_fixed"], [*image_shape, 1])
        if align != "none":
            like_fixed = align_image(like_fixed, record["alignment"])
        return ContrastPairBatch(moving, fixed, like_fixed)

    return serialized.map(images)


def align_image(moving: tf.Tensor, alignment: tf.Tensor) -> tf.Tensor:
    """Resamples the moving image by its alignment: `geometry.affine.resample` as graph operations.

    Args:
        moving: (height, width, 1) uint8.
        alignment: (2, 3) float32, [A | t] in pixels: the result at p is `moving` at A p + t.

    Returns:
        (height, width, 1) uint8.
    """
    # The operation takes the map from output to input in (x, y), and two perspective terms.
    transform = tf.concat([tf.reshape(tf.gather(alignment[::-1], [1, 0, 2], axis=1), [6]), [0.0, 0.0]], 0)
    aligned = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(moving, tf.float32)[None],
        transforms=transform[None],
        output_shape=tf.shape(moving)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
    )
    # On uint8 the operation would truncate instead of rounding.
    return tf.ensure_shape(tf.cast(tf.round(aligned[0]), tf.uint8), moving.shape)


def ready_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetches one element while the training step runs, in a deterministic order."""
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(1).with_options(options)


@contextlib.contextmanager
def damage_named(records: Records, tasks: Sequence[str]) -> Iterator[None]:
    """Turns TensorFlow's error on reading records of these tasks into one line with shard and record.

    Raises:
        UserError: names the damaged shard and record, which TensorFlow's error does not.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError, tf.errors.NotFoundError) as error:
        if "Iterator" not in error.message:  # Not from reading records but, for instance, a checkpoint.
            raise
        raise records.explain(tasks, error) from None


def as_floats(pair: P) -> P:
    """The images as float32 in [0, 1], from float32 in [0, 1] or uint8."""
    return type(pair)(*[tf.image.convert_image_dtype(image, tf.float32) for image in pair])


def _shards(records: Records, task: str, split: str) -> tf.data.Dataset:
    """Elements: path and number of records of each shard."""
    counts = [shard.records for shard in records.split(task, split).shards]
    return tf.data.Dataset.from_tensor_slices((records.shards(task, split), tf.constant(counts, tf.int64)))


def _read(path: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """The serialized records of a shard; too few records are an error, not a shorter data set."""
    return tf.data.TFRecordDataset(path).apply(tf.data.experimental.assert_cardinality(count))


def _drawn(serialized: tf.data.Dataset, limit: int, seed: int) -> list[bytes]:
    """The `limit` records with the lowest hash of seed and key: smaller subsets are nested in larger ones."""

    def rank(text: bytes) -> bytes:
        key = parse_pair(tf.constant(text))["key"].numpy()
        return hashlib.sha256(b"%d:%s" % (seed, key)).digest()

    return heapq.nsmallest(limit, serialized.as_numpy_iterator(), key=rank)


def _damage(path: Path, count: int) -> str:
    """Describes the damage of a shard that should hold `count` records; empty if there is none."""
    read = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)):
            read += 1
    except tf.errors.OpError as error:
        return f"record {read} cannot be read ({error.message.splitlines()[0]})"
    return "" if read == count else f"ends after {read} of {count} records"


def _rebuild(task: str) -> str:
    return f"build task `{task}` again with --overwrite."


def _images(record: dict[str, tf.Tensor], image_shape: tuple[int, int]) -> PairBatch:
    """The images of a record, uint8, with their static shape set."""
    return PairBatch(*[tf.ensure_shape(record[name], [*image_shape, 1]) for name in ("moving", "fixed")])


def _with_aligned(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    stored = tf.image.convert_image_dtype(example["moving"], tf.uint8)
    aligned = align_image(stored, example["alignment"])
    return {**example, "aligned": tf.image.convert_image_dtype(aligned, tf.float32)}
