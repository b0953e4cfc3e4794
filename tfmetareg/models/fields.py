"""What networks make of the fields they predict: composed, integrated, resized, affine."""

from __future__ import annotations

import tensorflow as tf

from tfmetareg.geometry.warp import warp


def compose(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The displacement that warps as `first` and then `second` do: second(x) + first(x + second(x)).

    Args:
        first, second: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        The same.
    """
    return second + warp(first, second)


def integrate(velocity: tf.Tensor, steps: int) -> tf.Tensor:
    """Displacement at time 1 of a stationary velocity, by scaling and squaring (Arsigny et al., 2006).

    Args:
        velocity: (batch, height, width, 2) float32, in its own grid's pixels per unit of time.
        steps: number of squarings.

    Returns:
        (batch, height, width, 2) float32; of `-velocity`, the inverse.
    """
    displacement = velocity / 2.0**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def resize(field: tf.Tensor, before: int, after: int) -> tf.Tensor:
    """A field on another grid of the same image, bilinear; corners stay on corners, as in voxelmorph.

    Args:
        field: (batch, height, width, 2) float32, in its own grid's pixels.
        before, after: pixels of the image per value of the field along each axis, before and after.

    Returns:
        (batch, height * before / after, width * before / after, 2) float32, in its own grid's pixels.
    """
    if before == after:
        return field
    size = tf.shape(field)[1:3] * before // after
    resized = tf.raw_ops.ResizeBilinear(images=field, size=size, align_corners=True)
    return resized * (before / after)


def affine(parameters: tf.Tensor, displacement: tf.Tensor) -> tf.Tensor:
    """The displacement that warps by an affine map and then as `displacement` does.

    Args:
        parameters: (batch, 2, 3) float32, [B | t]: from the image's centre a point p, measured in
            halves of the longer side, moves by B p + t. Zeros are the identity.
        displacement: (batch, height, width, 2) float32, pixels, (row, column).

    Returns:
        (batch, height, width, 2) float32, pixels: displacement(x), and what the map adds where that leads.
    """
    unit, from_centre = centred_grid(displacement)
    points = from_centre + displacement / unit
    moved = tf.einsum("bij,bhwj->bhwi", parameters[..., :2], points) + parameters[:, None, None, :, 2]
    return displacement + unit * moved


def centred_grid(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Half the longer side in pixels, and where each pixel lies from the centre in that unit.

    Args:
        images: (batch, height, width, channels).

    Returns:
        float32 scalar and (height, width, 2), (row, column), from -1 to 1.
    """
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(images)[1:3]))
    unit = tf.maximum(height, width) / 2.0
    rows, columns = ((tf.range(side) - (side - 1.0) / 2.0) / unit for side in (height, width))
    return unit, tf.stack(tf.meshgrid(rows, columns, indexing="ij"), -1)
