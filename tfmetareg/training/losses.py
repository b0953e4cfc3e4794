"""The training loss, Eq. (1): L = -CC(F, M o phi) + lambda * |grad phi|^2."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.training.mind import mind_similarity
from tfmetareg.training.windows import FLAT, box_sum
from tfmetareg.types import LossTerms, PairBatch


def registration_loss(
    pair: PairBatch,
    warped: tf.Tensor,
    displacement: tf.Tensor,
    *,
    window: int = 9,
    smoothness_weight: float = 1.0,
    similarity: str = "ncc",
) -> LossTerms:
    """The unsupervised loss of the paper, Eq. (1), averaged over the batch.

    >>> images = tf.random.uniform((2, 1, 32, 32, 1))
    >>> loss = registration_loss(PairBatch(*images), images[1], tf.zeros((1, 32, 32, 2)))
    >>> [round(float(term), 4) for term in loss]  # warped equals fixed, and nothing moves
    [-1.0, -1.0, 0.0]

    Args:
        pair: the images; only `fixed` is compared.
        warped: (batch, height, width, 1) float32, moving warped onto fixed.
        displacement: (batch, height, width, 2) float32, pixels, (row, column).
        window: side of the window that is compared, in pixels, odd (9 in the paper).
        smoothness_weight: lambda (1 in the paper).
        similarity: "ncc" (`local_ncc`), "voxelmorph" (`voxelmorph_ncc`) or "mind" (`mind_similarity`, for
            images of different contrast).

    Returns:
        total = similarity + smoothness_weight * smoothness; similarity is the negated mean over the pairs.
    """
    similarity_of = {"ncc": local_ncc, "voxelmorph": voxelmorph_ncc, "mind": mind_similarity}[similarity]
    similarity_term = -tf.reduce_mean(similarity_of(pair.fixed, warped, window=window))
    smoothness_term = smoothness(displacement)
    return LossTerms(similarity_term + smoothness_weight * smoothness_term, similarity_term, smoothness_term)


def local_ncc(fixed: tf.Tensor, warped: tf.Tensor, *, window: int = 9) -> tf.Tensor:
    """Mean squared local correlation coefficient per pair, in [0, 1].

    The CC of Balakrishnan et al. (2019) with two corrections. Windows at the border hold only pixels inside
    the image, since zero padding would correlate with itself. Windows in which either image is flat hold no
    information and are left out.

    >>> image = tf.random.uniform((1, 32, 32, 1))
    >>> round(float(local_ncc(image, 1.0 - 0.5 * image)[0]), 4)  # squared: the sign does not matter
    1.0

    Args:
        fixed, warped: (batch, height, width, 1) float32 in [0, 1].
        window: side of the window in pixels, odd.

    Returns:
        (batch,) float32; 0 for a pair in which every window is flat.
    """
    mean_f, mean_w, var_f, var_w, covariance = _local_moments(fixed, warped, window)
    textured = tf.stop_gradient(tf.cast((var_f > FLAT) & (var_w > FLAT), tf.float32))
    variances = tf.maximum(var_f, FLAT) * tf.maximum(var_w, FLAT)
    # Rounding errors may lift the squared covariance slightly above the product of the variances.
    squared = tf.minimum(tf.square(covariance) / variances, 1.0)
    counted = tf.reduce_sum(textured, axis=[1, 2, 3])
    return tf.math.divide_no_nan(tf.reduce_sum(squared * textured, axis=[1, 2, 3]), counted)


def voxelmorph_ncc(fixed: tf.Tensor, warped: tf.Tensor, *, window: int = 9) -> tf.Tensor:
    """`vxm.losses.NCC` of voxelmorph 0.2, for comparison: zero padding, flat windows counted.

    Args:
        fixed, warped: (batch, height, width, 1) float32.
        window: side of the window in pixels, odd.

    Returns:
        (batch,) float32, the mean over the pixels.
    """
    epsilon, size = 1e-5, float(window * window)
    stacked = tf.concat([fixed, warped, fixed * fixed, warped * warped, fixed * warped], axis=-1)
    sum_f, sum_w, sum_ff, sum_ww, sum_fw = tf.split(box_sum(stacked, window), 5, axis=-1)
    covariance = tf.maximum(sum_fw - sum_f * sum_w / size, epsilon)
    var_f = tf.maximum(sum_ff - sum_f * sum_f / size, epsilon)
    var_w = tf.maximum(sum_ww - sum_w * sum_w / size, epsilon)
    return tf.reduce_mean((covariance / var_f) * (covariance / var_w), axis=[1, 2, 3])


def smoothness(displacement: tf.Tensor) -> tf.Tensor:
    """Mean squared forward difference of the displacement, averaged over both axes.

    The diffusion regulariser |grad phi|^2, as voxelmorph's `Grad("l2")` computes it.

    Args:
        displacement: (batch, height, width, 2) float32, pixels.

    Returns:
        float32 scalar, (pixels per pixel)^2.
    """
    rows, columns = (_forward_difference(displacement, axis) for axis in (1, 2))
    return (tf.reduce_mean(tf.square(rows)) + tf.reduce_mean(tf.square(columns))) / 2.0


def _forward_difference(field: tf.Tensor, axis: int) -> tf.Tensor:
    """field(i + 1) - field(i) along an axis, which becomes one shorter."""
    # tf.slice, since the gradient of Python slicing runs on one thread and is many times slower.
    shape = tf.shape(field)
    one = tf.one_hot(axis, 4, dtype=shape.dtype)
    return tf.slice(field, one, shape - one) - tf.slice(field, tf.zeros_like(one), shape - one)


def _local_moments(fixed: tf.Tensor, warped: tf.Tensor, window: int) -> tuple[tf.Tensor, ...]:
    """Means, variances and covariance over each window, (batch, height, width, 1) each."""
    # E[x^2] - E[x]^2 loses digits if the mean is large, so the images are centred first.
    fixed, warped = fixed - 0.5, warped - 0.5
    stacked = tf.concat([fixed, warped, fixed * fixed, warped * warped, fixed * warped], axis=-1)
    count = box_sum(tf.ones_like(fixed[:1]), window)
    mean_f, mean_w, ff, ww, fw = tf.split(box_sum(stacked, window) / count, 5, axis=-1)
    return mean_f, mean_w, ff - mean_f * mean_f, ww - mean_w * mean_w, fw - mean_f * mean_w
