"""How good a registration is: correlation, landmark distance, folding."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.spatial import displace_points


def ncc(fixed: tf.Tensor, warped: tf.Tensor) -> tf.Tensor:
    """Normalized cross correlation over the whole image (Table 1 of the paper).

    Args:
        fixed, warped: (batch, height, width, 1) float32.

    Returns:
        (batch,) float32 in [-1, 1]; 0 where an image is constant.
    """
    axes = [1, 2, 3]
    fixed -= tf.reduce_mean(fixed, axes, keepdims=True)
    warped -= tf.reduce_mean(warped, axes, keepdims=True)
    norm = tf.norm(fixed, axis=axes[:2]) * tf.norm(warped, axis=axes[:2])
    return tf.math.divide_no_nan(tf.reduce_sum(fixed * warped, axes), norm[:, 0])


def landmark_distance(
    displacement: tf.Tensor, fixed_landmarks: tf.Tensor, moving_landmarks: tf.Tensor
) -> tf.Tensor:
    """mean |p_fixed + displacement(p_fixed) - p_moving| of one pair, in pixels.

    Args:
        displacement: (height, width, 2) float32, pixels of the fixed grid, (row, column).
        fixed_landmarks, moving_landmarks: (n, 2) float32, (row, column), matched row by row.

    Returns:
        float32 scalar; NaN where n is 0.
    """
    carried = displace_points(fixed_landmarks[None], displacement[None])[0]
    return tf.reduce_mean(tf.norm(carried - moving_landmarks, axis=-1))


def folding_percent(displacement: tf.Tensor) -> tf.Tensor:
    """Percentage of pixels where x -> x + displacement(x) folds: det of its Jacobian <= 0.

    Args:
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch,) float32 in [0, 100], over the (height-1) x (width-1) forward differences.
    """
    rows = displacement[:, 1:, :-1] - displacement[:, :-1, :-1]
    columns = displacement[:, :-1, 1:] - displacement[:, :-1, :-1]
    determinant = (1 + rows[..., 0]) * (1 + columns[..., 1]) - rows[..., 1] * columns[..., 0]
    return 100.0 * tf.reduce_mean(tf.cast(determinant <= 0, tf.float32), axis=[1, 2])
