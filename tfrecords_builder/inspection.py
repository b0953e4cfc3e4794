"""Verifies a records folder against its manifest and summarises its content."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union

import numpy as np
import tensorflow as tf

from tfmetareg.data.schema import Manifest, Shard, Task, decode_pair
from tfmetareg.errors import Problems, UserError
from tfmetareg.files import sha256
from tfmetareg.geometry.affine import points_to_moving
from tfmetareg.geometry.align import NETWORK_REACH
from tfmetareg.types import ImagePair, is_aligned, nothing_found_line


@dataclasses.dataclass
class SplitSummary:
    """The content of one split, summed up over its pairs.

    Attributes:
        task, split: task, and name of the split.
        pairs, landmarks: their number.
        histogram: int64 (256,), number of pixels of each grey level.
        distances: mean landmark distance of each pair with landmarks, pixels, before alignment.
        aligned: the same after alignment: the distance that is left for the network.
        unaligned: keys of the pairs whose alignment is the identity.
        subjects: their names.
        examples: some whole pairs.
    """

    task: Task
    split: str
    pairs: int = 0
    landmarks: int = 0
    histogram: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    distances: list[float] = dataclasses.field(default_factory=list)
    aligned: list[float] = dataclasses.field(default_factory=list)
    unaligned: list[str] = dataclasses.field(default_factory=list)
    subjects: set[str] = dataclasses.field(default_factory=set)
    examples: list[ImagePair] = dataclasses.field(default_factory=list)

    def add(self, pair: ImagePair, examples: int) -> None:
        """Adds a pair to the sums; keeps the first `examples` pairs whole."""
        self.pairs += 1
        self.landmarks += len(pair.fixed_landmarks)
        for image in (pair.moving, pair.fixed):
            self.histogram += np.bincount(image.ravel(), minlength=256)
        self.subjects.add(pair.subject)
        if not is_aligned(pair.alignment):
            self.unaligned.append(pair.key)
        if len(pair.fixed_landmarks):
            before, after = landmark_distances(pair)
            self.distances.append(before)
            self.aligned.append(after)
        if len(self.examples) < examples:
            self.examples.append(pair)

    def row(self) -> list[str]:
        """Cells of the printed table, under `HEADER` and `ALIGNED_HEADER`."""
        mean, deviation, zeros = self.intensity()
        return [
            self.task.name,
            self.task.role,
            self.task.modality,
            self.split,
            str(self.pairs),
            str(len(self.subjects)),
            str(len(self.task.splits[self.split].shards)),
            f"{mean:.3f} ± {deviation:.3f}",
            f"{zeros:.0%}",
            f"{self.landmarks / max(self.pairs, 1):.1f}",
            *_quantiles(self.distances),
            *_quantiles(self.aligned),
        ]

    def intensity(self) -> tuple[float, float, float]:
        """Mean and standard deviation over all pixels, in [0, 1], and the share of zeros."""
        shares = self.histogram / max(self.histogram.sum(), 1)
        values = np.arange(256) / 255
        mean = shares @ values
        return float(mean), float(np.sqrt(shares @ (values - mean) ** 2)), float(shares[0])

    def beyond_reach(self, width: int) -> int:
        """Number of pairs whose distance after alignment is beyond the network's reach."""
        return sum(distance > NETWORK_REACH * width for distance in self.aligned)


def landmark_distances(pair: ImagePair) -> tuple[float, float]:
    """Mean landmark distance of a pair in pixels, before and after its alignment, as in evaluation."""
    carried = points_to_moving(pair.fixed_landmarks, pair.alignment)
    before, after = (
        np.linalg.norm(points - pair.moving_landmarks, axis=1).mean()
        for points in (pair.fixed_landmarks, carried)
    )
    return float(before), float(after)


def _quantiles(distances: Sequence[float]) -> list[str]:
    """Median, 90th percentile and maximum over the pairs."""
    if not distances:
        return ["-"] * 3
    return [f"{value:.2f}" for value in np.percentile(distances, [50, 90, 100])]


HEADER = [
    "task", "role", "modality", "split", "pairs", "subjects", "shards", "intensity", "zeros",
    "landmarks/pair", "distance px: median", "p90", "max",
]  # fmt: skip
ALIGNED_HEADER = ["aligned px: median", "p90", "max"]


def notes(summaries: Sequence[SplitSummary], manifest: Manifest) -> list[str]:
    """What to know of the alignments.

    A line where tasks differ in them, for each split with pairs beyond the network's reach, and for each with
    pairs where nothing was found.
    """
    by_align: dict[str, list[str]] = {}
    for task in manifest.tasks:
        by_align.setdefault(manifest.align_of(task.name), []).append(f"`{task.name}`")
    width, lines = manifest.image_shape[1], []
    if len(by_align) > 1:
        named = "; ".join(f"{align}: {', '.join(names)}" for align, names in by_align.items())
        lines.append(f"note: the tasks were built with different `--align` ({named}).")
    for summary in summaries:
        beyond, align = summary.beyond_reach(width), manifest.align_of(summary.task.name)
        aligned = "" if align == "none" else f" though built with `--align {align}`"
        remedy = "leave them out, or take care" if align == "affine" else "build with `--align affine`"
        place = f"note: task `{summary.task.name}`, split {summary.split}:"
        if beyond:
            lines.append(
                f"{place} {beyond} of "
                f"{len(summary.distances)} pairs start more than {NETWORK_REACH * width:.1f} px apart "
                f"({NETWORK_REACH:.0%} of the width), farther than the network finds{aligned}; {remedy}."
            )
        if align != "none" and summary.unaligned:
            lines.append(f"{place} {nothing_found_line(summary.unaligned, summary.pairs)}.")
    return lines


def inspect_records(
    root: Union[str, os.PathLike], *, examples: int = 0
) -> tuple[Manifest, list[SplitSummary]]:
    """Reads every record of a folder and verifies it.

    Args:
        root: records folder.
        examples: number of pairs of each split to keep for a figure.

    Returns:
        The manifest, and a summary of each split.

    Raises:
        UserError: no manifest; or `InputErrors` with each shard that is missing,
            unreadable or differs from the manifest in size or content, and each
            subject that is in two splits.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the `--output` of a build.")
    manifest = Manifest.read(root)
    problems = Problems()
    summaries = []
    for task in manifest.tasks:
        splits = [_summarise(root, manifest, task, name, examples, problems) for name in task.splits]
        _check_subjects(root, splits, problems)
        summaries += splits
    problems.raise_any()
    return manifest, summaries


def _summarise(
    root: Path, manifest: Manifest, task: Task, name: str, examples: int, problems: Problems
) -> SplitSummary:
    summary = SplitSummary(task, name)
    split = task.splits[name]
    for shard in split.shards:
        with problems.collected():
            for pair in read_shard(root, shard):
                if pair.moving.shape != tuple(manifest.image_shape):
                    raise UserError(
                        f"{root / shard.file}: pair {pair.key} has shape {pair.moving.shape}, the manifest "
                        f"says {manifest.image_shape}; build task `{task.name}` again."
                    )
                summary.add(pair, examples)
    if summary.pairs != split.pairs and not problems.lines:
        problems.add(
            f"{root}: task `{task.name}`, split {name}: {summary.pairs} pairs in its shards, "
            f"{split.pairs} in the manifest; build the task again with `--overwrite`."
        )
    return summary


def read_shard(root: Path, shard: Shard) -> Iterator[ImagePair]:
    """Verifies a shard, then yields its pairs.

    Raises:
        UserError: the shard differs from the manifest; the message says how.
    """
    path = root / shard.file
    remedy = "build its task again with `--overwrite`, or copy the file anew."
    if not path.is_file():
        raise UserError(f"{path}: missing, though the manifest names it; {remedy}")
    if path.stat().st_size != shard.bytes:
        raise UserError(f"{path}: {path.stat().st_size} bytes, the manifest says {shard.bytes}; {remedy}")
    if sha256(path) != shard.sha256:
        raise UserError(f"{path}: its content has changed since the build (SHA-256 differs); {remedy}")
    count = 0
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield decode_pair(serialized)
            count += 1
    except tf.errors.OpError as error:
        raise UserError(f"{path}: record {count} is unreadable ({type(error).__name__}); {remedy}") from None
    if count != shard.records:
        raise UserError(f"{path}: {count} records, the manifest says {shard.records}; {remedy}")


def _check_subjects(root: Path, summaries: Sequence[SplitSummary], problems: Problems) -> None:
    split_of: dict[str, str] = {}
    for summary in summaries:
        for subject in sorted(summary.subjects):
            if split_of.setdefault(subject, summary.split) != summary.split:
                problems.add(
                    f"{root}: task `{summary.task.name}`: subject {subject} is in {split_of[subject]} and in "
                    f"{summary.split}; build the task again."
                )


def table(summaries: Sequence[SplitSummary]) -> str:
    """The splits as a text table, one line each; distances after alignment only where they differ."""
    header = [*HEADER]
    if any(summary.aligned != summary.distances for summary in summaries):
        header += ALIGNED_HEADER
    rows = [header, *(summary.row() for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )
