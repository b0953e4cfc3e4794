"""Input checks of the signatures, inside the graph: they work wherever a model is served.

A broken rule raises InvalidArgument with a sentence. Each check returns its tensor with a control dependency
on the check, so that the client gets the message of the first broken rule rather than an error that follows
from it.
"""

from __future__ import annotations

import tensorflow as tf


def passed(value: tf.Tensor, condition: tf.Tensor, sentence: str, *actual: tf.Tensor) -> tf.Tensor:
    """Returns `value` if `condition` (bool scalar) holds; else InvalidArgument with sentence and `actual`."""
    assertion = tf.raw_ops.Assert(condition=condition, data=[sentence, *actual], summarize=5)
    with tf.control_dependencies([assertion]):
        return tf.identity(value)


def checked_images(images: tf.Tensor, name: str) -> tf.Tensor:
    """Checks images for the network.

    Args:
        images: float32 of any shape. The graph must not know the shape: its optimizer would take a known
            shape for granted and remove the check.
        name: name of the input, for error messages.

    Returns:
        (batch, height, width, 1) float32 in [0, 1], batch >= 1, height and width >= 2.
    """
    shape = tf.shape(images)
    images = passed(
        images,
        tf.equal(tf.rank(images), 4) & tf.reduce_all(tf.equal(shape[3:], 1)),
        f"`{name}` must have the shape (batch, height, width, 1), one channel; got the shape",
        shape,
    )
    shape = tf.shape(images)
    # Not `ensure_shape`: it would let the optimizer infer the rank of its argument.
    images = tf.reshape(images, [shape[0], shape[1], shape[2], 1])
    images = passed(
        images,
        tf.reduce_all(shape[:3] >= [1, 2, 2]),
        f"`{name}` must hold at least one image of at least 2 x 2 pixels; got the shape",
        shape,
    )
    images = passed(
        images,
        tf.reduce_all(tf.math.is_finite(images)),
        f"`{name}` must be finite, but holds NaN or infinity; replace those pixels.",
    )
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    return passed(
        images,
        (low >= 0) & (high <= 1),
        f"`{name}` must lie in [0, 1]: divide 8-bit images by 255; got values from, to",
        low,
        high,
    )


def checked_pair(moving: tf.Tensor, fixed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks two batches of images as `checked_images` does, and that their shapes are equal."""
    moving, fixed = checked_images(moving, "moving"), checked_images(fixed, "fixed")
    shapes = tf.shape(moving), tf.shape(fixed)
    fixed = passed(
        fixed,
        tf.reduce_all(tf.equal(*shapes)),
        "`moving` and `fixed` must have the same shape: resize or pad one of them; got the shapes",
        *shapes,
    )
    return moving, fixed


def checked_points(points: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Checks points of the fixed images.

    Args:
        points: float32 of any shape, unknown to the graph.
        images: (batch, height, width, 1), already checked.

    Returns:
        (batch, n, 2) float32 inside the images, which extend from -0.5 to size - 0.5.
    """
    shape, size = tf.shape(points), tf.shape(images)
    points = passed(
        points,
        tf.equal(tf.rank(points), 3) & tf.reduce_all(tf.equal(shape[2:], 2)),
        "`fixed_points` must have the shape (batch, n, 2), row and column in pixels; got the shape",
        shape,
    )
    shape = tf.shape(points)
    points = passed(
        tf.reshape(points, [shape[0], shape[1], 2]),
        tf.equal(shape[0], size[0]),
        "`fixed_points` must hold the points of each image of the batch; got so many sets, and images",
        shape[0],
        size[0],
    )
    last = tf.cast(size[1:3], tf.float32) - 0.5
    # Comparisons with NaN are false, so NaN is refused.
    return passed(
        points,
        tf.reduce_all((points >= -0.5) & (points <= last)),
        "`fixed_points` must lie on the image, from -0.5 to its size - 0.5, as (row, column); got the size",
        size[1:3],
    )


def checked_files(moving: tf.Tensor, fixed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks encoded images, string scalars or vectors of equal length >= 1; returns vectors (batch,)."""
    files = []
    for name, file in (("moving", moving), ("fixed", fixed)):
        shape = tf.shape(file)
        file = passed(
            file,
            (tf.rank(file) <= 1) & (tf.size(file) >= 1),
            f"`{name}` must have the shape (batch,), one PNG file for each pair; got the shape",
            shape,
        )
        files.append(tf.reshape(file, [-1]))
    counts = [tf.size(file) for file in files]
    files[1] = passed(
        files[1],
        tf.equal(*counts),
        "`moving` and `fixed` must hold the same number of PNG files; got so many",
        *counts,
    )
    return files[0], files[1]
