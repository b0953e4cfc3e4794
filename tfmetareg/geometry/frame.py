"""Brings an image to the records' size: resampled, cut and padded; points, labels and spacing follow.

Pixel centres are at integers, an image reaches from -0.5 to size - 0.5.
"""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np
import tensorflow as tf

Size = tuple[int, int]
RowColumn = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class FrameMapping:
    """The way of one image into the records' frame: point p comes to lie at (p + 0.5) scale + shift - 0.5.

    Attributes:
        scale: output pixels per input pixel, (row, column).
        shift: (row, column), in output pixels.
        content: what of the frame the image covers: first row and column, and those behind the last.
        frame: (height, width) of the records.
    """

    scale: RowColumn
    shift: RowColumn
    content: tuple[Size, Size]
    frame: Size

    def resample(self, image: np.ndarray) -> np.ndarray:
        """float32: what of a real (height, width) comes to lie in the frame, without the padding.

        Bilinear, antialiased, half-pixel centres, as `tf.image.resize`.
        """
        (top, left), (bottom, right) = self.content
        with tf.device("CPU"):
            resampled = tf.raw_ops.ScaleAndTranslate(
                images=image.astype(np.float32)[None, ..., None],
                size=[bottom - top, right - left],
                scale=np.float32(self.scale),
                translation=np.float32([self.shift[0] - top, self.shift[1] - left]),
                kernel_type="triangle",
                antialias=True,
            )
        return resampled.numpy()[0, ..., 0]

    def pad(self, content: np.ndarray) -> np.ndarray:
        """(height, width) of the frame: the content in its place, 0 around it."""
        (top, left), (bottom, right) = self.content
        return np.pad(content, ((top, self.frame[0] - bottom), (left, self.frame[1] - right)))

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """(height, width) of the frame, nearest neighbour, 0 around it."""
        rows, columns = (
            np.clip(np.floor((np.arange(first, last) + 0.5 - shift) / scale), 0, size - 1).astype(int)
            for first, last, shift, scale, size in zip(*self.content, self.shift, self.scale, labels.shape)
        )
        return self.pad(labels[np.ix_(rows, columns)])

    def points(self, points: np.ndarray) -> np.ndarray:
        """float32 (n, 2): where points of the image lie in the frame, or outside it."""
        return ((points + 0.5) * self.scale + self.shift - 0.5).astype(np.float32)

    def matrix(self) -> np.ndarray:
        """float64 (2, 3), [A | t]: `points` as p -> A p + t."""
        return np.column_stack([np.diag(self.scale), (np.array(self.scale) - 1) / 2 + self.shift])

    def spacing(self, spacing: RowColumn) -> RowColumn:
        """Pixel size (row, column) in the frame."""
        return spacing[0] / self.scale[0], spacing[1] / self.scale[1]


def resize_mapping(shape: tuple[int, ...], frame: Size) -> FrameMapping:
    """The image fills the frame, whatever that does to its proportions."""
    return FrameMapping((frame[0] / shape[0], frame[1] / shape[1]), (0.0, 0.0), ((0, 0), frame), frame)


def centre_mapping(shape: tuple[int, ...], frame: Size, scale: Optional[RowColumn] = None) -> FrameMapping:
    """The image's middle comes to the frame's, cut where it is larger and padded where it is smaller.

    An image of n pixels covers round(n scale) of them. Where that and the frame
    differ by an odd number of pixels, the odd one is padded below and on the
    right, or cut off above and on the left.

    Args:
        shape: (height, width) of the image.
        frame: (height, width) of the records.
        scale: output pixels per input pixel; None keeps the pixels as they are.
    """
    scale = scale or (1.0, 1.0)
    first, last, shift = [], [], []
    for old, new, factor in zip(shape, frame, scale):
        covered = max(1, round(old * factor))
        offset = (new - covered) // 2
        first.append(max(0, offset))
        last.append(min(new, offset + covered))
        shift.append(offset + (covered - old * factor) / 2)
    return FrameMapping(scale, (shift[0], shift[1]), ((first[0], first[1]), (last[0], last[1])), frame)


def inside_image(points: np.ndarray, frame: Size) -> np.ndarray:
    """bool (n,): which points lie on the frame's pixels."""
    return ((points >= -0.5) & (points <= np.asarray(frame) - 0.5)).all(axis=1)
