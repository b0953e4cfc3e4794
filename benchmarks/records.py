"""Makes the data on disk of the benchmarks: records, and the same images as PNG files.

    python -m benchmarks.records FOLDER SIZE PAIRS

writes FOLDER/SIZE/records (three source tasks and a target of PAIRS pairs each) and FOLDER/SIZE/png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks import images
from benchmarks.cases import SOURCES, TARGET
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.types import ImagePair
from tfrecords_builder.build import build
from tfrecords_builder.sources.base import SourceTask


def make_records(folder: Path, size: int, count: int) -> None:
    """Writes the records and the PNG files of one image size.

    Args:
        folder: folder in which `<size>/records` and `<size>/png` are made.
        size: side of the images in pixels.
        count: number of pairs per task.
    """
    tasks = [
        SourceTask(name, "target" if name == TARGET else "source", "texture", _pairs(name, seed, size, count))
        for seed, name in enumerate((*SOURCES, TARGET))
    ]
    root = folder / str(size)
    build(tasks, root / "records", preprocessing=Preprocessing((size, size)), say=lambda line: None)
    (root / "png").mkdir()
    for name, stack in zip(("moving", "fixed"), images.pairs(count, size)):
        for index, image in enumerate(_levels(stack)):
            tf.io.write_file(str(root / "png" / f"{name}-{index:03d}.png"), tf.io.encode_png(image))


def _pairs(name: str, seed: int, size: int, count: int) -> list[ImagePair]:
    split = "finetune" if name == TARGET else "train"
    moving, fixed = (_levels(stack)[..., 0] for stack in images.pairs(count, size, seed))
    pairs = [ImagePair(f"{name}-{i}", f"{name}-{i}", moving[i], fixed[i], split=split) for i in range(count)]
    return pairs


def _levels(stack: np.ndarray) -> np.ndarray:
    return np.rint(255 * stack).astype(np.uint8)


if __name__ == "__main__":
    make_records(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
