"""Registers one pair after the other with one network, and brings what it found back to the images."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Optional, TypeVar

import numpy as np
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.training.optim import build_optimizer, reset_optimizer
from tfmetareg.training.steps import LossFn, gradient_step, register_pair
from tfmetareg.types import PairBatch

T = TypeVar("T")

# Each size that a function is compiled for keeps megabytes of memory: after so many, all are given up.
_MAX_SIZES = 16
# Larger images go through the network in strips of about so many pixels, lest its features fill the memory.
_STRIP_PIXELS = 2**20


# One graph for each size is what `Compiled` is for; TensorFlow takes it for a mistake, and warns.
logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in record.getMessage())


class Compiled(Generic[T]):
    """A function of a batch of pairs, compiled at the first pair of a size."""

    def __init__(self, function: Callable[[PairBatch], T]):
        self._function = function
        self._sizes: set[tuple[int, ...]] = set()

    def __call__(self, pair: PairBatch) -> T:
        if not self._sizes or (pair.moving.shape not in self._sizes and len(self._sizes) == _MAX_SIZES):
            # AutoGraph would take seconds to convert the network, and it needs no conversion.
            self._compiled = tf.function(self._function, autograph=False)
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
        pair = PairBatch(*map(as_batch, (moving, fixed)))
        if moving.size > 1.5 * _STRIP_PIXELS and self._model.halo is not None:
            displacement = tf.concat(list(self._in_strips(pair, self._model.halo)), axis=1)
            warped = warp(pair.moving, displacement)
        else:
            warped, displacement = self._register(pair)
        return warped.numpy()[0, ..., 0], displacement.numpy()[0]

    def _in_strips(self, pair: PairBatch, halo: int) -> Iterator[tf.Tensor]:
        """The displacement in parts, from above: each from what lies within the halo, cut off again."""
        _, height, width, _ = pair.fixed.shape
        stride = self._model.stride
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
        losses = [self._finite(PairBatch(*map(as_batch, pair))) for pair in pairs]
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


def reset_to_identity(model: RegistrationModel) -> None:
    """Zeroes the layers that put out the displacement, so that nothing moves; what finds features stays.

    These are the layers whose name ends in `_flow`, and the affine stage's `affine_dense`. A network of one's
    own whose layers are named otherwise stays as it is.

    >>> from tfmetareg.models.registry import build_model
    >>> model = build_model("vxm_dense", (16, 16), features=[[4], [4, 4]])
    >>> reset_to_identity(model)
    >>> float(tf.reduce_max(tf.abs(model.field(list(tf.random.uniform((2, 1, 16, 16, 1)))))))
    0.0

    Args:
        model: changed in place.
    """
    for weight in model.weights:
        layer = weight.name.split("/")[-2]
        if layer.endswith("_flow") or layer == "affine_dense":
            weight.assign(tf.zeros_like(weight))


def _diverged() -> UserError:
    return UserError("the adaptation diverged; lower the learning rate.")


def as_batch(image: np.ndarray) -> tf.Tensor:
    """float32 (1, height, width, 1) in [0, 1]."""
    return tf.image.convert_image_dtype(image[None, ..., None], tf.float32)
