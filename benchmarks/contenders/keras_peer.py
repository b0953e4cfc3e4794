"""Peer (a): voxelmorph 0.2 with Keras as its tutorials use it; Reptile by get_weights and set_weights."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks import images
from benchmarks.contenders.tensorflow_settings import about
from benchmarks.contenders.voxelmorph_peer import (
    LEARNING_RATE,
    OUTER_RATE,
    SMOOTHNESS_WEIGHT,
    import_voxelmorph,
)
from benchmarks.protocol import Repeat, serve

vxm = import_voxelmorph("tensorflow")
import tensorflow as tf  # noqa: E402


def compiled_model(options: dict[str, Any]) -> tf.keras.Model:
    """VxmDense ready for `train_on_batch([moving, fixed], [fixed, zeros])`."""
    model = vxm.networks.VxmDense((options["size"],) * 2, options["features"], int_steps=0)
    model.compile(
        optimizer=tf.keras.optimizers.Adam(learning_rate=LEARNING_RATE),
        loss=[vxm.losses.NCC().loss, vxm.losses.Grad("l2").loss],
        loss_weights=[1, SMOOTHNESS_WEIGHT],
    )
    return model


def meta_step(options: dict[str, Any]) -> Repeat:
    """One Reptile update: k calls of `train_on_batch` for each of m tasks."""
    model = compiled_model(options)
    moving, fixed = images.episode(
        options["tasks"], options["inner_steps"], options["batch"], options["size"]
    )
    zeros = np.zeros((*fixed.shape[2:-1], 2), np.float32)

    def repeat() -> None:
        theta = model.get_weights()
        deltas = [np.zeros_like(value) for value in theta]
        for task_moving, task_fixed in zip(moving, fixed):
            model.set_weights(theta)
            for one_moving, one_fixed in zip(task_moving, task_fixed):
                model.train_on_batch([one_moving, one_fixed], [one_fixed, zeros])
            adapted = model.get_weights()
            deltas = [delta + (new - old) for delta, new, old in zip(deltas, adapted, theta)]
        share = OUTER_RATE / len(moving)
        model.set_weights([old + share * delta for old, delta in zip(theta, deltas)])

    return repeat


def finetune_epoch(options: dict[str, Any]) -> Repeat:
    """One epoch of `train_on_batch` over the pairs, drawn from arrays in memory."""
    model = compiled_model(options)
    moving, fixed = images.pairs(options["pairs"], options["size"])
    zeros = np.zeros((1, *fixed.shape[1:-1], 2), np.float32)
    rng = np.random.default_rng(0)

    def repeat() -> None:
        for index in rng.permutation(len(fixed)):
            one = slice(index, index + 1)
            model.train_on_batch([moving[one], fixed[one]], [fixed[one], zeros])

    return repeat


def register(options: dict[str, Any]) -> Repeat:
    """One pair through the network, from arrays to arrays."""
    model = compiled_model(options)
    pair = list(images.pairs(1, options["size"]))

    def repeat() -> None:
        model.predict_on_batch(pair)

    return repeat


if __name__ == "__main__":
    serve(
        {
            "meta_step": meta_step,
            "training": meta_step,
            "start_up": meta_step,
            "finetune_epoch": finetune_epoch,
            "register": register,
        },
        functools.partial(about, "voxelmorph", "neurite"),
    )
