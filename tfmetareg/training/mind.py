"""MIND-SSC: a similarity that does not mind which contrast the images have.

Two images of different contrast (T1 and T2, two stains) agree in where structure is, not in which side of an
edge is brighter. MIND (Heinrich et al. 2012, doi:10.1016/j.media.2012.05.008) describes each pixel by how
alike the patches around it are *within its own image*; self-similarity context, SSC (Heinrich et al. 2013,
doi:10.1007/978-3-642-40811-3_24), leaves out the patch in the middle, whose noise would be in every distance.
The descriptors of two images can be compared even where the grey levels cannot.
"""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.training.windows import FLAT, box_sum

# Brings the mean squared difference to the scale of the local NCC, so that lambda = 1 suits both. Measured
# after 20 and 50 steps on brain pairs (T2 and FLAIR onto T1) with a known warp: begun with no displacement,
# 2, 4, 8 and 16 differ by 0.1 px at most; 20 steps from a network's wrong displacement leave 1.2 px by 4 and
# 2.0 px by 8.
SCALE = 4.0


def mind_similarity(fixed: tf.Tensor, warped: tf.Tensor, *, window: int = 9) -> tf.Tensor:
    """How well the MIND-SSC descriptors of two images agree, per pair: 1 - SCALE * mean squared difference.

    Pixels around which both images are flat hold no information and are left out. Inverting an image, or
    changing its brightness and contrast, changes nothing; a monotonic change such as gamma changes little.

    >>> rows, columns = tf.meshgrid(tf.range(32.0), tf.range(32.0), indexing="ij")
    >>> image = (0.5 + 0.5 * tf.sin(rows / 3) * tf.sin(columns / 4))[None, ..., None]
    >>> round(float(mind_similarity(image, 1.0 - image)[0]), 4)
    1.0

    Args:
        fixed, warped: (batch, height, width, 1) float32 in [0, 1], any size.
        window: side in pixels, odd, of the square that a descriptor is computed from, see `mind_descriptors`.

    Returns:
        (batch,) float32 in (1 - SCALE, 1]; 1 where all is alike, or where both images are flat everywhere.
    """
    (descriptors_f, variance_f), (descriptors_w, variance_w) = (
        mind_descriptors(image, window=window) for image in (fixed, warped)
    )
    textured = tf.stop_gradient(tf.cast((variance_f > FLAT) | (variance_w > FLAT), tf.float32))
    squared = tf.reduce_mean(tf.square(descriptors_f - descriptors_w), axis=-1, keepdims=True)
    counted = tf.reduce_sum(textured, axis=[1, 2, 3])
    return 1.0 - SCALE * tf.math.divide_no_nan(tf.reduce_sum(squared * textured, axis=[1, 2, 3]), counted)


def mind_descriptors(image: tf.Tensor, *, window: int = 9) -> tuple[tf.Tensor, tf.Tensor]:
    """The MIND-SSC descriptor of each pixel, in 2D: exp(-D / V), Eq. (1) of Heinrich et al. (2013).

    Four patches lie around a pixel, above, right, below and left of it, `distance` pixels away. D is the mean
    squared difference of two of them that are next to each other (sqrt(2) * `distance` apart): four
    differences, the 2D counterpart of the paper's twelve. V, the local estimate of the variance, is the mean
    of the four, at least `FLAT`: below it, noise of the grey levels would pass for structure. A window of 9
    pixels holds patches of 5x5 pixels at a distance of 2, and nothing beyond it has a part.

    Pixels beyond the border have no part: a difference is the mean over the pixels whose partners lie inside.

    Args:
        image: (batch, height, width, 1) float32 in [0, 1].
        window: side in pixels, odd, of the square that holds all four patches.

    Returns:
        Descriptors, (batch, height, width, 4) float32 in (0, 1], 1 where patches are equal; and V before it
        is clipped, (batch, height, width, 1).
    """
    half = window // 2
    distance = max(half // 2, 1)
    image, inside = (_around(each, distance) for each in (image, tf.ones_like(image[:1])))
    both_inside = inside * _following(inside)
    squared = tf.square(image - _following(image)) * both_inside
    patch = 2 * (half - distance) + 1
    means = tf.math.divide_no_nan(box_sum(squared, patch), box_sum(both_inside, patch))
    variance = tf.reduce_mean(means, axis=-1, keepdims=True)
    return tf.exp(-means / tf.maximum(variance, FLAT)), variance


def _around(image: tf.Tensor, distance: int) -> tf.Tensor:
    """The values above, right, below and left of each pixel, in that order; 0 beyond the border."""
    _, height, width, _ = tf.unstack(tf.shape(image))
    padded = tf.pad(image, [[0, 0], [distance, distance], [distance, distance], [0, 0]])
    corners = ((0, distance), (distance, 2 * distance), (2 * distance, distance), (distance, 0))
    # tf.slice, as in `losses`: the gradient of Python slicing is many times slower.
    parts = [tf.slice(padded, [0, row, column, 0], [-1, height, width, -1]) for row, column in corners]
    return tf.ensure_shape(tf.concat(parts, axis=-1), [None, None, None, 4])


def _following(around: tf.Tensor) -> tf.Tensor:
    """The next of the four values, clockwise."""
    return tf.roll(around, shift=-1, axis=-1)
