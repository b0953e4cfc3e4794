"""Alignments of a split's pairs and how long each takes, found once and kept in the work directory."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfmetareg.data.records import Records, examples
from tfmetareg.files import published
from tfmetareg.geometry.affine import resample
from tfmetareg.geometry.align import align


class Alignments(NamedTuple):
    """Of n pairs in stored order: float32 (n, 2, 3), and the seconds to find and apply each, (n,)."""

    alignments: np.ndarray
    seconds: np.ndarray


def measured_alignments(records: Records, task: str, split: str, folder: Path) -> Alignments:
    """Aligns every pair of a split as the records were, or affine where they were not, and times it.

    Kept in `folder`, for the pairs that they were found for.
    """
    kind = records.manifest.align
    kind = "affine" if kind == "none" else kind
    path = folder / f"{task}-{split}.alignments.npz"
    shards = [shard.sha256 for shard in records.manifest.task(task).splits[split].shards]
    depends_on = hashlib.sha256(" ".join([kind, *shards]).encode()).hexdigest()
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["depends_on"]) == depends_on:
                return Alignments(kept["alignments"], kept["seconds"])
    found = _measure(examples(records, task, split), kind)
    with published(path) as temporary:
        np.savez(temporary, **found._asdict(), depends_on=depends_on)
    return found


def _measure(pairs: tf.data.Dataset, kind: str) -> Alignments:
    alignments, seconds = [], []
    for index, pair in enumerate(pairs):
        moving, fixed = _as_stored(pair["moving"]), _as_stored(pair["fixed"])
        if not index:
            align(moving, fixed, kind)  # Warms up, so that no pair's time holds it.
        began = time.perf_counter()
        alignments.append(align(moving, fixed, kind))
        resample(moving, alignments[-1])
        seconds.append(time.perf_counter() - began)
    return Alignments(np.stack(alignments), np.array(seconds))


def _as_stored(image: tf.Tensor) -> np.ndarray:
    """uint8 (height, width), so that what is found is what the builder found."""
    return np.rint(255 * image.numpy()[..., 0]).astype(np.uint8)
