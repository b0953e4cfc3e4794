"""The format of records and of the manifest, shared by writer and reader."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair, no_alignment

SCHEMA = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "finetune", "test")
# First version of the preprocessing whose records hold the moving image unaligned.
_UNALIGNED_SINCE = 3

_FEATURES = {
    "key": tf.io.FixedLenFeature([], tf.string),
    "subject": tf.io.FixedLenFeature([], tf.string),
    "height": tf.io.FixedLenFeature([], tf.int64),
    "width": tf.io.FixedLenFeature([], tf.int64),
    "moving": tf.io.FixedLenFeature([], tf.string),
    "fixed": tf.io.FixedLenFeature([], tf.string),
    "moving_landmarks": tf.io.FixedLenSequenceFeature([2], tf.float32, allow_missing=True),
    "fixed_landmarks": tf.io.FixedLenSequenceFeature([2], tf.float32, allow_missing=True),
    "moving_spacing": tf.io.FixedLenFeature([2], tf.float32),
    "fixed_spacing": tf.io.FixedLenFeature([2], tf.float32),
    # Empty for pairs without labels; absent from records of older versions, which had none.
    "moving_labels": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "fixed_labels": tf.io.FixedLenFeature([], tf.string, default_value=""),
    # Absent from records of older versions, which had no alignment: the identity.
    "alignment": tf.io.FixedLenFeature([2, 3], tf.float32, default_value=no_alignment().tolist()),
}


def encode_pair(pair: ImagePair) -> bytes:
    """Serializes a preprocessed pair without loss.

    >>> image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> pair = decode_pair(encode_pair(ImagePair("pair 1", "subject 1", moving=image, fixed=image)))
    >>> pair.key, pair.moving.tolist()
    ('pair 1', [[0, 1, 2], [3, 4, 5]])

    Args:
        pair: moving and fixed are uint8 (height, width), and so are their labels, if any. `split` and `task`
            are not stored: the shard's name gives them.

    Returns:
        A serialized `tf.train.Example`. Unknown spacing is stored as NaN, missing labels as an empty string.

    Raises:
        ValueError: images or labels that are not uint8 or differ in shape, labels of one image only, or
            different numbers of landmarks.
    """
    for name in ("moving", "fixed"):
        if getattr(pair, name).dtype != np.uint8:
            raise ValueError(f"{pair.key}: {name} must be uint8, got {getattr(pair, name).dtype}.")
    if pair.moving.ndim != 2 or pair.moving.shape != pair.fixed.shape:
        raise ValueError(
            f"{pair.key}: moving {pair.moving.shape} and fixed {pair.fixed.shape} must be 2D and equal."
        )
    if len(pair.moving_landmarks) != len(pair.fixed_landmarks):
        raise ValueError(
            f"{pair.key}: {len(pair.moving_landmarks)} moving and {len(pair.fixed_landmarks)} "
            "fixed landmarks must match in number."
        )
    _check_labels(pair)
    height, width = pair.moving.shape
    unknown = (np.nan, np.nan)
    features = {
        "key": _bytes(pair.key.encode()),
        "subject": _bytes(pair.subject.encode()),
        "height": _ints([height]),
        "width": _ints([width]),
        "moving": _bytes(np.ascontiguousarray(pair.moving).tobytes()),
        "fixed": _bytes(np.ascontiguousarray(pair.fixed).tobytes()),
        "moving_landmarks": _floats(pair.moving_landmarks),
        "fixed_landmarks": _floats(pair.fixed_landmarks),
        "moving_spacing": _floats(pair.moving_spacing or unknown),
        "fixed_spacing": _floats(pair.fixed_spacing or unknown),
        "moving_labels": _bytes(_label_bytes(pair.moving_labels)),
        "fixed_labels": _bytes(_label_bytes(pair.fixed_labels)),
        "alignment": _floats(pair.alignment),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _check_labels(pair: ImagePair) -> None:
    if (pair.moving_labels is None) != (pair.fixed_labels is None):
        raise ValueError(f"{pair.key}: labels of one image only; both or neither must have some.")
    for labels in (pair.moving_labels, pair.fixed_labels):
        if labels is not None and (labels.dtype != np.uint8 or labels.shape != pair.fixed.shape):
            raise ValueError(
                f"{pair.key}: labels must be uint8 {pair.fixed.shape}, got {labels.dtype} {labels.shape}."
            )


def _label_bytes(labels: Optional[np.ndarray]) -> bytes:
    return b"" if labels is None else np.ascontiguousarray(labels).tobytes()


def parse_pair(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Inverse of `encode_pair`, as graph operations.

    Args:
        serialized: string scalar.

    Returns:
        key, subject: string scalars.
        moving, fixed: uint8 (height, width, 1).
        moving_landmarks, fixed_landmarks: float32 (n, 2), (row, column).
        moving_spacing, fixed_spacing: float32 (2,), mm; NaN if unknown.
        moving_labels, fixed_labels: uint8 (height, width, 1); (height, width, 0) without labels.
        alignment: float32 (2, 3), not yet applied to image, landmarks and labels.
    """
    record = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.stack([record.pop("height"), record.pop("width"), -1])
    for name in ("moving", "fixed", "moving_labels", "fixed_labels"):
        record[name] = tf.reshape(tf.io.decode_raw(record[name], tf.uint8), shape)
    return record


def decode_pair(serialized: bytes) -> ImagePair:
    """Inverse of `encode_pair`, as NumPy arrays; images are uint8 (height, width)."""
    record = {name: value.numpy() for name, value in parse_pair(tf.constant(serialized)).items()}

    def spacing(name: str) -> Optional[tuple[float, float]]:
        value = record[name]
        return None if np.isnan(value).any() else (float(value[0]), float(value[1]))

    def labels(name: str) -> Optional[np.ndarray]:
        return record[name][..., 0] if record[name].size else None

    return ImagePair(
        key=record["key"].decode(),
        subject=record["subject"].decode(),
        moving=record["moving"][..., 0],
        fixed=record["fixed"][..., 0],
        moving_landmarks=record["moving_landmarks"],
        fixed_landmarks=record["fixed_landmarks"],
        moving_spacing=spacing("moving_spacing"),
        fixed_spacing=spacing("fixed_spacing"),
        moving_labels=labels("moving_labels"),
        fixed_labels=labels("fixed_labels"),
        alignment=record["alignment"],
    )


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: Any) -> tf.train.Feature:
    flat = np.asarray(values, np.float32).ravel()
    return tf.train.Feature(float_list=tf.train.FloatList(value=flat))


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file: name within the records folder, number of records, size in bytes and SHA-256."""

    file: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a task: numbers of pairs and of subjects, and its shards in order."""

    pairs: int
    subjects: int
    shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """One registration task: its role ("source" or "target"), modality and splits by name."""

    name: str
    role: str
    modality: str
    splits: dict[str, Split]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of a records folder.

    Attributes:
        image_shape: (height, width) of every image.
        preprocessing: how the images were preprocessed, as `Preprocessing.describe` tells it.
        tasks: the tasks in the order in which they were built.
    """

    image_shape: tuple[int, int]
    preprocessing: dict[str, Any]
    tasks: tuple[Task, ...]

    def task(self, name: str) -> Task:
        """Returns the task with a name.

        Raises:
            UserError: there is none; the message lists the tasks.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.tasks)
        raise UserError(f"task `{name}` is not in the records; there are: {known}.")

    def names(self, role: str) -> list[str]:
        """Names of the tasks with a role, "source" or "target", in the manifest's order."""
        return [task.name for task in self.tasks if task.role == role]

    @property
    def align(self) -> str:
        """How the pairs were aligned: "none", "rigid" or "affine"."""
        return self.preprocessing.get("align", "none")

    def digest(self) -> str:
        """SHA-256 of the manifest, and so of all shards: identifies the data in a run card."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, root: Union[str, os.PathLike]) -> Manifest:
        """Reads `root/manifest.json`.

        Raises:
            UserError: the manifest is missing, damaged or of another schema; the message says how to build
                one.
        """
        path = Path(root) / MANIFEST
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such file; `python -m tfrecords_builder build --output {root} ...` makes it."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable manifest ({error}); build the records again.") from None
        return cls._from_json(content, path)

    @classmethod
    def _from_json(cls, content: dict[str, Any], path: Path) -> Manifest:
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            schema = content.get("schema") if isinstance(content, dict) else None
            raise UserError(f"{path}: schema must be {SCHEMA}, got {schema}; build the records again.")
        try:
            tasks = tuple(
                Task(
                    name=task["name"],
                    role=task["role"],
                    modality=task["modality"],
                    splits={
                        name: Split(
                            split["pairs"],
                            split["subjects"],
                            tuple(Shard(**shard) for shard in split["shards"]),
                        )
                        for name, split in task["splits"].items()
                    },
                )
                for task in content["tasks"]
            )
            height, width = content["image_shape"]
            manifest = cls((height, width), content["preprocessing"], tasks)
            version = manifest.preprocessing.get("version", 0)
            misread = manifest.align != "none" and version < _UNALIGNED_SINCE
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: damaged manifest ({error!r}); build the records again.") from None
        if misread:
            raise UserError(
                f"{path}: built by an older program, which wrote the moving images already aligned "
                f"(preprocessing of version {version}); build the records again."
            )
        return manifest


def shard_name(task: str, split: str, index: int, count: int) -> str:
    """File name of a shard, for instance `octa-train.tfrecord-00000-of-00004`."""
    return f"{task}-{split}.tfrecord-{index:05d}-of-{count:05d}"
