"""The format of records and of the manifest, shared by writer and reader."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.files import write_json
from tfmetareg.geometry.align import KINDS
from tfmetareg.types import ImagePair, no_alignment

SCHEMA = 1
MANIFEST = "manifest.json"
# Beside the manifest: the folder that a task's keys name files of, by task, relative to the records.
ORIGINS = "origins.json"
SPLITS = ("train", "finetune", "test")
# What may be done to the images of one task otherwise than to those of the others in the same records.
PER_TASK = ("align",)
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
    # Only in records of pairs whose labels are not all from 0 to 255.
    "label_values": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    # Only in records of pairs in two contrasts.
    "moving_like_fixed": tf.io.FixedLenFeature([], tf.string, default_value=""),
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
        pair: moving and fixed are uint8 (height, width), and so are the codes of their labels and
            `moving_like_fixed`, if any.
            `split` and `task` are not stored: the shard's name gives them.

    Returns:
        A serialized `tf.train.Example`. Unknown spacing is stored as NaN, missing labels as an empty string;
        `label_values` and `moving_like_fixed` only where they are not None.

    Raises:
        ValueError: images or labels that are not uint8 or differ in shape, labels of one image only, or
            different numbers of landmarks.
    """
    _check_images(pair)
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
    if pair.label_values is not None:
        features["label_values"] = _ints(pair.label_values.tolist())
    if pair.moving_like_fixed is not None:
        features["moving_like_fixed"] = _bytes(np.ascontiguousarray(pair.moving_like_fixed).tobytes())
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _check_images(pair: ImagePair) -> None:
    for name in ("moving", "fixed", "moving_like_fixed"):
        image = getattr(pair, name)
        if image is not None and image.dtype != np.uint8:
            raise ValueError(f"{pair.key}: {name} must be uint8, got {image.dtype}.")
    if pair.moving.ndim != 2 or pair.moving.shape != pair.fixed.shape:
        raise ValueError(
            f"{pair.key}: moving {pair.moving.shape} and fixed {pair.fixed.shape} must be 2D and equal."
        )
    if pair.moving_like_fixed is not None and pair.moving_like_fixed.shape != pair.moving.shape:
        raise ValueError(
            f"{pair.key}: moving_like_fixed {pair.moving_like_fixed.shape} must have the shape of moving, "
            f"{pair.moving.shape}."
        )


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
        label_values: int64 (n,), the labels of the codes 1 to n; (0,) where labels are their own codes.
        moving_like_fixed: uint8 (height, width, 1); (height, width, 0) for pairs of one contrast.
        alignment: float32 (2, 3), not yet applied to image, landmarks and labels.
    """
    record = tf.io.parse_single_example(serialized, _FEATURES)
    shape = tf.stack([record.pop("height"), record.pop("width"), -1])
    for name in ("moving", "fixed", "moving_labels", "fixed_labels", "moving_like_fixed"):
        record[name] = tf.reshape(tf.io.decode_raw(record[name], tf.uint8), shape)
    return record


def decode_pair(serialized: bytes) -> ImagePair:
    """Inverse of `encode_pair`, as NumPy arrays; images are uint8 (height, width)."""
    record = {name: value.numpy() for name, value in parse_pair(tf.constant(serialized)).items()}

    def spacing(name: str) -> Optional[tuple[float, float]]:
        value = record[name]
        return None if np.isnan(value).any() else (float(value[0]), float(value[1]))

    def optional(name: str) -> Optional[np.ndarray]:
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
        moving_labels=optional("moving_labels"),
        fixed_labels=optional("fixed_labels"),
        label_values=record["label_values"] if record["label_values"].size else None,
        moving_like_fixed=optional("moving_like_fixed"),
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
    """One registration task.

    Attributes:
        name: of the task.
        role: "source" or "target".
        modality: free text.
        splits: by name.
        preprocessing: what was done to its images otherwise than the manifest's `preprocessing` says, of the
            keys in `PER_TASK`.
        two_contrasts: whether the images of its pairs differ in contrast: each record then also holds
            `moving_like_fixed`.
    """

    name: str
    role: str
    modality: str
    splits: dict[str, Split]
    preprocessing: dict[str, Any] = dataclasses.field(default_factory=dict)
    two_contrasts: bool = False

    def describe(self) -> dict[str, Any]:
        """The task as the manifest stores it: without `preprocessing` and `two_contrasts` if it has none."""
        content = dataclasses.asdict(self)
        for name in ("preprocessing", "two_contrasts"):
            if not content[name]:
                del content[name]
        return content


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of a records folder.

    Attributes:
        image_shape: (height, width) of every image.
        preprocessing: how the images were preprocessed, as `Preprocessing.describe` tells it; a task may
            differ in the keys of `PER_TASK`.
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

    def preprocessing_of(self, *tasks: str) -> dict[str, Any]:
        """How the images of some tasks were preprocessed; their strongest alignment, where it differs.

        >>> ct, mr = Task("ct", "source", "CT", {}), Task("mr", "source", "MR", {}, {"align": "rigid"})
        >>> manifest = Manifest((64, 64), {"fit": "resize", "align": "none"}, (ct, mr))
        >>> manifest.preprocessing_of("ct"), manifest.preprocessing_of("ct", "mr")["align"]
        ({'fit': 'resize', 'align': 'none'}, 'rigid')
        """
        if not any(self.task(task).preprocessing for task in tasks):
            return self.preprocessing
        return {**self.preprocessing, "align": max(map(self.align_of, tasks), key=KINDS.index)}

    def any_two_contrasts(self, tasks: Sequence[str]) -> bool:
        """Whether some of the tasks have images in two contrasts."""
        return any(self.task(task).two_contrasts for task in tasks)

    def align_of(self, task: str) -> str:
        """How the pairs of a task were aligned: "none", "rigid" or "affine"."""
        return {"align": "none", **self.preprocessing, **self.task(task).preprocessing}["align"]

    def digest(self) -> str:
        """SHA-256 of the manifest, and so of all shards: identifies the data in a run card."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        tasks = [task.describe() for task in self.tasks]
        content = {"schema": SCHEMA, **dataclasses.asdict(self), "tasks": tasks}
        return json.dumps(content, indent=1) + "\n"

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
                    preprocessing=dict(task.get("preprocessing", {})),
                    two_contrasts=bool(task.get("two_contrasts", False)),
                )
                for task in content["tasks"]
            )
            height, width = content["image_shape"]
            manifest = cls((height, width), content["preprocessing"], tasks)
            version = manifest.preprocessing.get("version", 0)
            aligned = manifest.preprocessing.get("align", "none") != "none"
            misread = aligned and version < _UNALIGNED_SINCE
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: damaged manifest ({error!r}); build the records again.") from None
        if misread:
            raise UserError(
                f"{path}: built by an older program, which wrote the moving images already aligned "
                f"(preprocessing of version {version}); build the records again."
            )
        return manifest


def note_origin(root: Path, tasks: Sequence[str], folder: Path) -> None:
    """Notes the folder that tasks were built from, where their keys name the images' files in it.

    It serves to show the images as they were; nothing depends on it.
    """
    place = os.path.relpath(folder.resolve(), root.resolve())
    write_json(root / ORIGINS, {**_origins(root), **dict.fromkeys(tasks, place)})


def origin(root: Path, task: str) -> Optional[Path]:
    """The folder that a task was built from, if that is known and still there."""
    place = _origins(root).get(task)
    folder = root / place if isinstance(place, str) else None
    return folder if folder and folder.is_dir() else None


def _origins(root: Path) -> dict[str, Any]:
    try:
        content = json.loads((root / ORIGINS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def shard_name(task: str, split: str, index: int, count: int) -> str:
    """File name of a shard, for instance `octa-train.tfrecord-00000-of-00004`."""
    return f"{task}-{split}.tfrecord-{index:05d}-of-{count:05d}"
