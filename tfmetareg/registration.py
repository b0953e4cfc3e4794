"""Registers one pair after the other with one network, and brings what it found back to the images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Optional, TypeVar

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tfmetareg.alignment import composed
from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.optim import build_optimizer, reset_optimizer
from tfmetareg.spatial import warp
from tfmetareg.steps import LossFn, gradient_step, register_pair
from tfmetareg.types import PairBatch

T = TypeVar("T")

# Each size that a function is compiled for keeps megabytes of memory: after so many, all are given up.
_MAX_SIZES = 16
# Larger images go through the network in strips of about so many pixels, lest its features fill the memory.
_STRIP_PIXELS = 2**20


class Compiled(Generic[T]):
    """A function of a batch of pairs, compiled at the first pair of a size."""

    def __init__(self, function: Callable[[PairBatch], T]):
        self._function, self._sizes = function, set()

    def __call__(self, pair: PairBatch) -> T:
        if not self._sizes or (pair.moving.shape not in self._sizes and len(self._sizes) == _MAX_SIZES):
            self._compiled = tf.function(self._function)
            self._sizes.clear()
        self._sizes.add(pair.moving.shape)
        return self._compiled(pair)


class Registrar:
    """A network ready to register: compiled at the first pair of a size, as fast as itself from then on.

    Images above 1.5 megapixels go through it in strips, where the network tells its `halo`: the same numbers
    to rounding, in less memory.
    """

    def __init__(self, model: RegistrationModel):
        self._model = model
        self._register = Compiled(functools.partial(register_pair, model))

    def __call__(self, moving: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Registers a pair with the weights as they are now.

        Args:
            moving, fixed: (height, width) of one shape, float32 in [0, 1] or uint8, any size from 2 pixels.

        Returns:
            warped, float32 (height, width) in [0, 1], and displacement, float32 (height, width, 2), pixels,
            (row, column).
        """
        pair = PairBatch(*map(_batch, (moving, fixed)))
        if moving.size > 1.5 * _STRIP_PIXELS and self._model.halo is not None:
            displacement = tf.concat(list(self._in_strips(pair)), axis=1)
            warped = warp(pair.moving, displacement)
        else:
            warped, displacement = self._register(pair)
        return warped.numpy()[0, ..., 0], displacement.numpy()[0]

    def _in_strips(self, pair: PairBatch) -> Iterator[tf.Tensor]:
        """The displacement in parts, from above: each from what lies within the halo, cut off again."""
        _, height, width, _ = pair.fixed.shape
        stride, halo = self._model.stride, self._model.halo
        rows = math.ceil(height / math.ceil(height * width / _STRIP_PIXELS) / stride) * stride
        for top in range(0, height, rows):
            first, last = max(0, top - halo), top + rows + halo
            _, displacement = self._register(PairBatch(*(image[:, first:last] for image in pair)))
            yield displacement[:, top - first : top - first + rows]


class Adaptation:
    """Gradient steps on given pairs; the step is compiled at the first pair of a size."""

    def __init__(self, model: RegistrationModel, loss_fn: LossFn, learning_rate: float):
        """
        Args:
            model: adapted in place.
            loss_fn: (pair, warped, displacement) -> LossTerms.
            learning_rate: Adam's.
        """
        self._model = model
        self._optimizer = build_optimizer("adam", learning_rate, model.trainable_variables)
        self._step = Compiled(lambda pair: gradient_step(model, self._optimizer, loss_fn, pair).total)

    def __call__(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Optional[tuple[float, float]]:
        """One step on each pair, with an optimizer that starts anew.

        Args:
            pairs: (moving, fixed), as for `Registrar`.

        Returns:
            The loss before the first and before the last step; None without pairs.

        Raises:
            UserError: the loss or a weight is no longer finite.
        """
        reset_optimizer(self._optimizer)
        losses = [self._finite(PairBatch(*map(_batch, pair))) for pair in pairs]
        if not all(bool(tf.reduce_all(tf.math.is_finite(weight))) for weight in self._model.weights):
            raise _diverged()
        return (losses[0], losses[-1]) if losses else None

    def _finite(self, pair: PairBatch) -> float:
        try:
            loss = float(self._step(pair))
        except tf.errors.InvalidArgumentError as error:
            if "indices" not in error.message:  # What the warp makes of a displacement that is not a number.
                raise
            raise _diverged() from None
        if not math.isfinite(loss):
            raise _diverged()
        return loss


def _diverged() -> UserError:
    return UserError("the adaptation diverged; lower the learning rate.")


def _batch(image: np.ndarray) -> tf.Tensor:
    """float32 (1, height, width, 1) in [0, 1]."""
    return tf.image.convert_image_dtype(image[None, ..., None], tf.float32)


def on_own_grids(
    displacement: np.ndarray, shape: Sequence[int], to_frame: np.ndarray, from_frame: np.ndarray
) -> np.ndarray:
    """The displacement between two images as they were, from the one between what the network saw of them.

    Args:
        displacement: float32 (height, width, 2), pixels of the frame that both images were brought to.
        shape: (height, width) of the fixed image.
        to_frame: (2, 3), [A | t] with A diagonal: where the fixed image's points lie in the frame.
        from_frame: (2, 3): where the frame's points lie in the moving image, its alignment included.

    Returns:
        float32 (*shape, 2), pixels, (row, column): the fixed image's point p lies at p + u(p) in the moving
        one. Beyond the frame the displacement of its border goes on.
    """
    scale = np.diag(to_frame)
    for axis in (0, 1):
        places = np.arange(shape[axis]) * scale[axis] + to_frame[axis, 2]
        displacement = _between(displacement, places, axis)
    return composed((displacement / scale).astype(np.float32), joined(from_frame, to_frame))


def joined(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The alignment, float64 (2, 3), that is `first` and then `second`."""
    matrix = second[:, :2].astype(np.float64)
    return np.column_stack([matrix @ first[:, :2], matrix @ first[:, 2] + second[:, 2]])


def inverted(alignment: np.ndarray) -> np.ndarray:
    """The alignment, float64 (2, 3), that leads back."""
    matrix = np.linalg.inv(alignment[:, :2].astype(np.float64))
    return np.column_stack([matrix, -matrix @ alignment[:, 2]])


def warp_image(moving: np.ndarray, displacement: np.ndarray, fill: Optional[float] = None) -> np.ndarray:
    """moving(x + displacement(x)), bilinear, in the image's own dtype.

    Args:
        moving: (height, width) or (height, width, channels), any real dtype.
        displacement: (rows, columns, 2), pixels, (row, column); the grid may be of another size.
        fill: value where the moving image has no pixel; None continues its border outwards.

    Returns:
        (rows, columns) or (rows, columns, channels), of the dtype of `moving`.
    """
    precision = np.float32 if moving.dtype.itemsize <= 2 else np.float64
    places = np.moveaxis(displacement, -1, 0) + np.indices(displacement.shape[:2], np.float32)
    channels = moving[..., None] if moving.ndim == 2 else moving
    warped = np.empty((*displacement.shape[:2], channels.shape[-1]), moving.dtype)
    for channel in range(channels.shape[-1]):
        values = ndimage.map_coordinates(
            channels[..., channel].astype(precision), places, precision, order=1, mode="nearest"
        )
        warped[..., channel] = values if moving.dtype.kind == "f" else np.rint(values)
    if fill is not None:
        warped[~covered(displacement, moving.shape)] = fill
    return warped[..., 0] if moving.ndim == 2 else warped


def covered(displacement: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """bool (rows, columns): whether x + displacement(x) lies on a moving image of that shape."""
    places = displacement + np.stack(np.indices(displacement.shape[:2], np.float32), axis=-1)
    return ((places >= -0.5) & (places <= np.asarray(shape[:2]) - 0.5)).all(axis=-1)


def _between(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Values along an axis at places between them, linear; those of the border beyond it."""
    last = values.shape[axis] - 1
    places = np.clip(places, 0, last)
    before = np.minimum(places.astype(np.intp), max(last - 1, 0))
    share = (places - before).astype(np.float32)
    one, other = (np.take(values, indices, axis) for indices in (before, np.minimum(before + 1, last)))
    return one + share.reshape([-1 if at == axis else 1 for at in range(values.ndim)]) * (other - one)
