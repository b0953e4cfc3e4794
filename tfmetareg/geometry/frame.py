"""Mappings of images, with their points, labels and spacing, to the records' frame.

Pixel centres are at integers; an image extends from -0.5 to size - 0.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Optional

import numpy as np
from numpy.typing import DTypeLike

Size = tuple[int, int]
RowColumn = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class FrameMapping:
    """The mapping of an image to the records' frame: point p maps to (p + 0.5) scale + shift - 0.5.

    Attributes:
        scale: frame pixels per image pixel, (row, column).
        shift: (row, column), frame pixels.
        content: the part of the frame that the image covers: (first row, first column), (row, column) after
            the last.
        frame: (height, width) of the records.
    """

    scale: RowColumn
    shift: RowColumn
    content: tuple[Size, Size]
    frame: Size

    def resample(self, image: np.ndarray) -> np.ndarray:
        """Resamples an image to the content's part of the frame: bilinear, antialiased, as `tf.image.resize`.

        Args:
            image: (height, width), any real dtype.

        Returns:
            float32, of the content's shape; not padded.
        """
        import tensorflow as tf

        (top, left), (bottom, right) = self.content
        with tf.device("CPU"):
            resampled = tf.raw_ops.ScaleAndTranslate(
                images=image.astype(np.float32)[None, ..., None],
                size=[bottom - top, right - left],
                scale=np.array(self.scale, np.float32),
                translation=np.array([self.shift[0] - top, self.shift[1] - left], np.float32),
                kernel_type="triangle",
                antialias=True,
            )
        return resampled.numpy()[0, ..., 0]

    def pad(self, content: np.ndarray) -> np.ndarray:
        """The whole frame: the content in its place, 0 around it."""
        (top, left), (bottom, right) = self.content
        return np.pad(content, ((top, self.frame[0] - bottom), (left, self.frame[1] - right)))

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels on the whole frame: nearest neighbour, 0 around the content."""
        rows, columns = (
            np.clip(np.floor((np.arange(first, last) + 0.5 - shift) / scale), 0, size - 1).astype(int)
            for first, last, shift, scale, size in zip(*self.content, self.shift, self.scale, labels.shape)
        )
        return self.pad(labels[np.ix_(rows, columns)])

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points of the image, (n, 2), to the frame: float32 (n, 2); they may lie outside."""
        return ((points + 0.5) * self.scale + self.shift - 0.5).astype(np.float32)

    def matrix(self) -> np.ndarray:
        """The mapping of points as a matrix, float64 (2, 3), [A | t]: p maps to A p + t."""
        return np.column_stack([np.diag(self.scale), (np.array(self.scale) - 1) / 2 + self.shift])

    def spacing(self, spacing: RowColumn) -> RowColumn:
        """Pixel size (row, column) in the frame, from that of the image."""
        return spacing[0] / self.scale[0], spacing[1] / self.scale[1]


def resize_mapping(shape: tuple[int, ...], frame: Size) -> FrameMapping:
    """Stretches the image to the frame; its proportions may change.

    >>> import numpy as np
    >>> resize_mapping((200, 100), (100, 100)).points(np.array([[100.5, 50.0]])).tolist()
    [[50.0, 50.0]]

    Args:
        shape: (height, width) of the image.
        frame: (height, width) of the records.
    """
    return FrameMapping((frame[0] / shape[0], frame[1] / shape[1]), (0.0, 0.0), ((0, 0), frame), frame)


def centre_mapping(shape: tuple[int, ...], frame: Size, scale: Optional[RowColumn] = None) -> FrameMapping:
    """Centres the image in the frame; it is cut where it is larger and padded where it is smaller.

    An image of n pixels covers round(n scale) pixels. If that and the frame
    differ by an odd number, the extra pixel is padded below and on the right,
    or cut off above and on the left.

    >>> centre_mapping((20, 50), (40, 40)).content
    ((10, 0), (30, 40))

    Args:
        shape: (height, width) of the image.
        frame: (height, width) of the records.
        scale: frame pixels per image pixel, (row, column); None for 1.
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


def inside_image(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Which points lie on an image's pixels; NaN does not.

    >>> import numpy as np
    >>> inside_image(np.array([[-0.5, 3.0], [10.0, 3.0]]), (10, 10)).tolist()
    [True, False]

    Args:
        points: (..., 2), (row, column), pixels.
        shape: (height, width) of the image.

    Returns:
        bool (...).
    """
    return ((points >= -0.5) & (points <= np.asarray(shape) - 0.5)).all(axis=-1)


def pixel_points(shape: Sequence[int], dtype: DTypeLike = np.intp) -> np.ndarray:
    """The centres of all pixels: (height, width, 2), (row, column).

    >>> pixel_points((2, 3))[1].tolist()
    [[1, 0], [1, 1], [1, 2]]

    Args:
        shape: (height, width).
        dtype: of the result.
    """
    return np.stack([*np.indices(shape, dtype)], axis=-1)
