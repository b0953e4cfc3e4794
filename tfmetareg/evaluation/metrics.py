"""Quality measures of a registration: correlation, landmark distance, folding."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.geometry.warp import displace_points


def ncc(fixed: tf.Tensor, warped: tf.Tensor) -> tf.Tensor:
    """Normalized cross correlation over the whole image (Table 1 of the paper).

    >>> image = tf.reshape(tf.range(16.0), (1, 4, 4, 1))
    >>> [round(float(ncc(image, other)[0]), 4) for other in (2 * image + 1, -image)]
    [1.0, -1.0]

    Args:
        fixed, warped: (batch, height, width, 1) float32.

    Returns:
        (batch,) float32 in [-1, 1]; 0 for a pair with a constant image.
    """
    axes = [1, 2, 3]
    fixed -= tf.reduce_mean(fixed, axes, keepdims=True)
    warped -= tf.reduce_mean(warped, axes, keepdims=True)
    norm = tf.norm(fixed, axis=axes[:2]) * tf.norm(warped, axis=axes[:2])
    return tf.math.divide_no_nan(tf.reduce_sum(fixed * warped, axes), norm[:, 0])


def landmark_distance(
    displacement: tf.Tensor,
    fixed_landmarks: tf.Tensor,
    moving_landmarks: tf.Tensor,
    spacing: tf.Tensor = (1.0, 1.0),
) -> tf.Tensor:
    """Mean landmark distance of one pair: mean |p_fixed + displacement(p_fixed) - p_moving|.

    >>> displacement = tf.zeros((8, 8, 2)) + (0.0, 3.0)  # 3 columns to the right
    >>> float(landmark_distance(displacement, tf.constant([[2.0, 1.0]]), tf.constant([[2.0, 6.0]])))
    2.0

    Args:
        displacement: (height, width, 2) float32, pixels of the fixed grid, (row, column).
        fixed_landmarks, moving_landmarks: (n, 2) float32, (row, column), matched row by row.
        spacing: (2,) float32, pixel size (row, column) of the moving image in the unit of the result; the
            default gives a distance in pixels.

    Returns:
        float32 scalar; NaN without landmarks, or if the spacing is NaN.
    """
    carried = displace_points(fixed_landmarks[None], displacement[None])[0]
    return tf.reduce_mean(tf.norm((carried - moving_landmarks) * spacing, axis=-1))


def folding_percent(displacement: tf.Tensor) -> tf.Tensor:
    """Percentage of pixels where x -> x + displacement(x) folds: its Jacobian determinant is <= 0.

    >>> columns = tf.range(4.0) * tf.ones((4, 4))
    >>> mirror = tf.stack([tf.zeros((4, 4)), 3.0 - 2.0 * columns], axis=-1)[None]  # column c goes to 3 - c
    >>> float(folding_percent(mirror)[0])
    100.0

    Args:
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch,) float32 in [0, 100], over the (height - 1) x (width - 1) forward differences.
    """
    folded = tf.cast(jacobian_determinant(displacement) <= 0, tf.float32)
    return 100.0 * tf.reduce_mean(folded, axis=[1, 2])


def jacobian_determinant(displacement: tf.Tensor) -> tf.Tensor:
    """Jacobian determinant of x -> x + displacement(x): the area of each pixel after the mapping.

    >>> rows = tf.range(4.0)[:, None] * tf.ones((4, 4))
    >>> stretch = tf.stack([0.5 * rows, tf.zeros((4, 4))], axis=-1)[None]
    >>> float(jacobian_determinant(stretch)[0, 0, 0])
    1.5

    Args:
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch, height - 1, width - 1) float32, by forward differences.
    """
    rows = displacement[:, 1:, :-1] - displacement[:, :-1, :-1]
    columns = displacement[:, :-1, 1:] - displacement[:, :-1, :-1]
    return (1 + rows[..., 0]) * (1 + columns[..., 1]) - rows[..., 1] * columns[..., 0]
