"""The spatial transformer: warping images and reading fields, on the conventions of this project."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg._compat import tfa


def warp(moving: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """warped(x) = moving(x + displacement(x)), bilinear, border values continued outwards.

    Same numbers as voxelmorph's SpatialTransformer, without its loop over the batch.

    Args:
        moving: (batch, height, width, channels) float32.
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch, height, width, channels) float32.
    """
    return tfa.image.dense_image_warp(moving, -displacement)


def displace_points(points: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Carries points of the fixed image to the moving one: p + displacement(p).

    Args:
        points: (batch, n, 2) float32, (row, column), pixels, inside the image.
        displacement: (batch, height, width, 2) float32, read bilinearly.

    Returns:
        (batch, n, 2) float32.
    """
    return points + tfa.image.interpolate_bilinear(displacement, points, indexing="ij")
