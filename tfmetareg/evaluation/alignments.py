"""Alignments of the pairs of a split, and the time that each takes; kept in the work directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfmetareg.cache import keep_arrays, text_digest
from tfmetareg.data.records import Records, examples
from tfmetareg.geometry.affine import resample
from tfmetareg.geometry.align import VERSION, align


class Alignments(NamedTuple):
    """Alignments of n pairs in stored order.

    Attributes:
        alignments: float32 (n, 2, 3), see `geometry.affine`.
        seconds: float64 (n,), time to find and apply each.
    """

    alignments: np.ndarray
    seconds: np.ndarray


def measured_alignments(records: Records, task: str, split: str, folder: Path) -> Alignments:
    """Aligns every pair of a split, and times it; done once for the same pairs.

    Args:
        records: the data.
        task, split: which pairs.
        folder: where the alignments are kept.

    Returns:
        Alignments of the kind that the task was built with; affine ones where it has none.
    """
    align = records.manifest.align_of(task)
    kind = "affine" if align == "none" else align
    shards = [shard.sha256 for shard in records.split(task, split).shards]
    kept = keep_arrays(
        folder / f"{task}-{split}.alignments.npz",
        text_digest(" ".join([str(VERSION), kind, *shards])),
        lambda: _measure(examples(records, task, split), kind)._asdict(),
    )
    return Alignments(**kept)


def _measure(pairs: tf.data.Dataset, kind: str) -> Alignments:
    alignments, seconds = [], []
    for index, pair in enumerate(pairs):
        moving, fixed = _as_stored(pair["moving"]), _as_stored(pair["fixed"])
        if not index:
            align(moving, fixed, kind)  # Warm-up: the first call takes longer than the others.
        began = time.perf_counter()
        alignments.append(align(moving, fixed, kind))
        resample(moving, alignments[-1])
        seconds.append(time.perf_counter() - began)
    return Alignments(np.stack(alignments), np.array(seconds))


def _as_stored(image: tf.Tensor) -> np.ndarray:
    """uint8 (height, width), as the builder aligned it."""
    return np.rint(255 * image.numpy()[..., 0]).astype(np.uint8)
