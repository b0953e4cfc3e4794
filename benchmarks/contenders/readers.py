"""Three ways to the same images on disk: the project's records, PNG files, a scan that decodes nothing."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks.cases import TARGET
from benchmarks.contenders.tensorflow_settings import about
from benchmarks.contenders.tfmetareg_contender import records_folder
from benchmarks.protocol import Repeat, serve
from tfmetareg.data.records import Records
from tfmetareg.data.tasks import task_pairs


def records(options: dict[str, Any]) -> Repeat:
    """Batches of one pair, as fine-tuning reads them."""
    return _iteration(
        task_pairs(Records(records_folder(options)), TARGET, "finetune", batch_size=1, seed=0), options
    )


def png(options: dict[str, Any]) -> Repeat:
    """The same from PNG files: shuffled, decoded in parallel, batched, ahead of use."""
    folder = Path(options["data"], str(options["size"]), "png")
    names = [sorted(map(str, folder.glob(f"{name}-*.png"))) for name in ("moving", "fixed")]

    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_png(tf.io.read_file(path), channels=1)

    pairs = tf.data.Dataset.from_tensor_slices(tuple(names)).shuffle(len(names[0]), seed=0).repeat()
    decoded = pairs.map(lambda *paths: tuple(map(decode, paths)), num_parallel_calls=tf.data.AUTOTUNE)
    return _iteration(decoded.batch(1).prefetch(tf.data.AUTOTUNE), options)


def raw_scan(options: dict[str, Any]) -> Repeat:
    """The records' bytes alone, neither shuffled nor decoded."""
    shards = Records(records_folder(options)).shards(TARGET, "finetune")
    return _iteration(tf.data.TFRecordDataset(shards).repeat().prefetch(tf.data.AUTOTUNE), options)


def _iteration(dataset: tf.data.Dataset, options: dict[str, Any]) -> Repeat:
    stream = iter(dataset)

    def repeat() -> None:
        for _ in itertools.islice(stream, options["reads"]):
            pass

    return repeat


if __name__ == "__main__":
    serve({"records": records, "png": png, "raw_scan": raw_scan}, functools.partial(about, "tfmetareg"))
