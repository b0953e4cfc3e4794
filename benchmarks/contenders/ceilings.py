"""(c) What the machine can do at best: matrix products and memory traffic, through TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from benchmarks.contenders.tensorflow_settings import about
from benchmarks.protocol import Repeat, serve

_SIDES = (768, 1536, 3072)
_BYTES = 1 << 28


def matrix_product(options: dict[str, Any]) -> Repeat:
    """Best rate over a few sizes, in floating point operations per second."""
    dtype = tf.as_dtype(options["dtype"])
    squares = [tf.cast(tf.random.normal([side, side]), dtype) for side in _SIDES]
    product = tf.function(lambda square: tf.reduce_max(tf.matmul(square, square)))

    def repeat() -> dict[str, float]:
        rates = [2 * side**3 / _seconds(product, square) for side, square in zip(_SIDES, squares)]
        return {"flops_per_second": max(rates)}

    return repeat


def memory(options: dict[str, Any]) -> Repeat:
    """Bytes per second of a += b on arrays far larger than any cache: two read, one written."""
    total, term = (tf.Variable(tf.ones([_BYTES // 4])) for _ in range(2))

    @tf.function
    def add() -> tf.Tensor:
        with tf.control_dependencies([total.assign_add(term)]):
            return tf.constant(0.0)

    return lambda: {"bytes_per_second": 3 * _BYTES / _seconds(add)}


def _seconds(work: Callable[..., tf.Tensor], *arguments: tf.Tensor) -> float:
    began = time.perf_counter()
    work(*arguments).numpy()
    return time.perf_counter() - began


if __name__ == "__main__":
    serve({"matrix_product": matrix_product, "memory": memory}, about)
