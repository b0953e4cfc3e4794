"""Operations on displacement and velocity fields: composition, integration, resizing, affine maps."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.geometry.warp import warp


def compose(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Composes two displacements: second(x) + first(x + second(x)).

    Warping with the result equals warping with `first` and then with `second`.

    Args:
        first, second: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch, height, width, 2) float32, pixels, (row, column).
    """
    return second + warp(first, second)


def integrate(velocity: tf.Tensor, steps: int) -> tf.Tensor:
    """Integrates a stationary velocity to time 1 by scaling and squaring (Arsigny et al., 2006).

    Args:
        velocity: (batch, height, width, 2) float32, in pixels of its own grid per unit of time.
        steps: number of squarings.

    Returns:
        Displacement, (batch, height, width, 2) float32; integrating `-velocity` gives its inverse.
    """
    displacement = velocity / 2.0**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def resize(field: tf.Tensor, before: int, after: int) -> tf.Tensor:
    """Resamples a field to another grid spacing, bilinearly; corners stay on corners, as in voxelmorph.

    Args:
        field: (batch, height, width, 2) float32, in pixels of its own grid.
        before, after: grid spacing in image pixels, of `field` and of the result.

    Returns:
        (batch, height * before / after, width * before / after, 2) float32, in pixels of its own grid.
    """
    if before == after:
        return field
    size = tf.shape(field)[1:3] * before // after
    resized = tf.raw_ops.ResizeBilinear(images=field, size=size, align_corners=True)
    return resized * (before / after)


def affine(parameters: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """Composes an affine map with a displacement: warps by the map first, then by the displacement.

    Args:
        parameters: (batch, 2, 3) float32, [B | t]: a point p moves by B p + t, where p is its position from
            the image's centre in halves of the longer side. Zeros are the identity.
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch, height, width, 2) float32, pixels: displacement(x) plus the map's shift at
        x + displacement(x).
    """
    unit, from_centre = centred_grid(displacement)
    points = from_centre + displacement / unit
    moved = tf.einsum("bij,bhwj->bhwi", parameters[..., :2], points) + parameters[:, None, None, :, 2]
    return displacement + unit * moved


def centred_grid(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Half the longer side in pixels, and each pixel's position from the centre in this unit.

    Args:
        images: (batch, height, width, channels).

    Returns:
        float32 scalar, and float32 (height, width, 2), (row, column), from -1 to 1.
    """
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
    unit = tf.maximum(height, width) / 2.0
    rows, columns = ((tf.range(side) - (side - 1.0) / 2.0) / unit for side in (height, width))
    return unit, tf.stack(tf.meshgrid(rows, columns, indexing="ij"), -1)
