"""The project itself, compiled and fed as its own loop does it."""

# ruff: noqa: I001 - tfmetareg comes before TensorFlow, which it sets up, as on its command line.

from __future__ import annotations

import functools
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import tfmetareg  # noqa: F401
import tensorflow as tf

from benchmarks import images
from benchmarks.cases import SOURCES, TARGET
from benchmarks.contenders.tensorflow_settings import about
from benchmarks.protocol import Repeat, serve
from tfmetareg.cli import main
from tfmetareg.data.records import Records
from tfmetareg.data.tasks import episodes, task_pairs
from tfmetareg.device import accelerator, resolve_precision, set_precision
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.reptile import reptile_step
from tfmetareg.models.registry import RegistrationModel, build_model
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import gradient_step, register_pair
from tfmetareg.types import Episode, PairBatch

LEARNING_RATE = 1e-4
OUTER_RATE = 1.0

Step = Callable[[Any], dict[str, tf.Tensor]]


def prepared_model(options: dict[str, Any]) -> RegistrationModel:
    """The network, under the settings that a run begins with."""
    tf.keras.utils.set_random_seed(0)
    if not accelerator():
        tf.config.experimental.enable_op_determinism()
    size = (options["size"],) * 2
    set_precision(options["precision"])
    return build_model("vxm_dense", size, features=options["features"], precision=options["precision"])


def compiled(step: Step) -> Step:
    """The step as the loop compiles it."""
    return tf.function(step, jit_compile=True if accelerator() else None)


def compiled_meta_step(options: dict[str, Any]) -> Step:
    """episode -> scalars."""
    model = prepared_model(options)
    inner = build_optimizer("adam", LEARNING_RATE, model.trainable_variables)
    outer = build_optimizer("sgd", OUTER_RATE, model.trainable_variables)
    return compiled(functools.partial(reptile_step, model, inner, outer, registration_loss))


def check(metrics: dict[str, tf.Tensor]) -> None:
    """Looks at every scalar, as the loop does after each step; with it, the step has ended."""
    if not all(math.isfinite(value) for value in metrics.values()):
        raise ValueError("the loss is not a number")


def meta_step(options: dict[str, Any]) -> Repeat:
    """One Reptile update on an episode in memory."""
    step = compiled_meta_step(options)
    size = (options["tasks"], options["inner_steps"], options["batch"], options["size"])
    episode = Episode(*map(tf.constant, images.episode(*size)))
    return lambda: check(step(episode))


def training(options: dict[str, Any]) -> Repeat:
    """Meta-steps on episodes read from records; measures too how much of the time they are waited for."""
    step = compiled_meta_step(options)
    stream = episodes(
        Records(records_folder(options)),
        SOURCES,
        meta_batch_size=options["tasks"],
        inner_steps=options["inner_steps"],
        batch_size=options["batch"],
        seed=0,
        augment=True,
    )
    stream = iter(stream)

    def repeat() -> dict[str, float]:
        settle(step, stream)
        waited, began = 0.0, time.perf_counter()
        for _ in range(options["meta_steps"]):
            asked = time.perf_counter()
            episode = next(stream)
            waited += time.perf_counter() - asked
            check(step(episode))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "waiting_percent": 100 * waited / seconds}

    return repeat


def settle(step: Step, stream: Iterator[Episode]) -> None:
    """Uses up what was decoded during a pause: the steps after it wait as in a long run."""
    for _ in range(2):
        episode = next(stream)
    check(step(episode))


def finetune_epoch(options: dict[str, Any]) -> Repeat:
    """One epoch over the pairs of a target task, read from records."""
    model = prepared_model(options)
    optimizer = build_optimizer("adam", LEARNING_RATE, model.trainable_variables)
    step = compiled(lambda pair: gradient_step(model, optimizer, registration_loss, pair)._asdict())
    stream = iter(task_pairs(Records(records_folder(options)), TARGET, "finetune", batch_size=1, seed=0))

    def repeat() -> None:
        for pair in itertools.islice(stream, options["pairs"]):
            check(step(pair))

    return repeat


def register(options: dict[str, Any]) -> Repeat:
    """One pair through the network, from arrays to arrays."""
    registration = tf.function(functools.partial(register_pair, prepared_model(options)))
    pair = images.pairs(1, options["size"])

    def repeat() -> None:
        for output in registration(PairBatch(*map(tf.constant, pair))):
            output.numpy()

    return repeat


def start_up(options: dict[str, Any]) -> Repeat:
    """The command line up to the end of one meta-step, checkpoint and weights included."""
    arguments = [
        "--mode=reptile",
        f"--data.root={records_folder(options)}",
        "--reptile.init=scratch",
        "--reptile.meta_steps=1",
        f"--reptile.meta_batch_size={options['tasks']}",
        f"--reptile.inner_steps={options['inner_steps']}",
    ]

    def repeat() -> None:
        with tempfile.TemporaryDirectory() as workdir:
            if main([*arguments, f"--workdir={workdir}"]):
                raise RuntimeError("train.py failed")

    return repeat


def records_folder(options: dict[str, Any]) -> str:
    """Where the records of the case's image size lie."""
    return os.path.join(options["data"], str(options["size"]), "records")


def settings() -> dict[str, Any]:
    """Versions, and the precision that a run has by default on this machine."""
    return {**about("tfmetareg", "voxelmorph"), "precision by default": resolve_precision("auto")}


if __name__ == "__main__":
    serve(
        {
            "meta_step": meta_step,
            "training": training,
            "finetune_epoch": finetune_epoch,
            "register": register,
            "start_up": start_up,
        },
        settings,
    )
