"""The training loop of every stage, and the only place where a training step is compiled."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.training.checkpoint import Checkpoints, TrainState

StepFn = Callable[[Any], dict[str, tf.Tensor]]
OnMetrics = Callable[[int, dict[str, tf.Tensor]], None]


class DivergedError(UserError):
    """The loss has become NaN or infinite."""

    def __init__(self, step: int):
        super().__init__(
            f"training diverged at step {step}; lower the learning rate and use another --workdir."
        )


def run_loop(
    step_fn: StepFn,
    state: TrainState,
    *,
    total_steps: int,
    on_metrics: Sequence[OnMetrics] = (),
    checkpoints: Optional[Checkpoints] = None,
    accelerator: Optional[str] = None,
) -> None:
    """Runs `step_fn` on the state's batches until `total_steps` is reached.

    Ctrl-C and a termination signal stop it between two steps, after saving a checkpoint: a resumed run
    continues exactly there.

    Args:
        step_fn: batch -> scalars by name; traced once.
        state: model, optimizers, data position and step; updated in place.
        total_steps: step at which to stop, counted from the beginning of the stage.
        on_metrics: callbacks, called in order with (step, scalar tensors by name) after each step.
        checkpoints: where to save checkpoints, periodically and at the end; None to save none.
        accelerator: device, for instance "GPU:0": XLA compiles the whole step for it, and the next batch is
            copied to it while it computes.

    Raises:
        DivergedError: training has diverged; no checkpoint is saved.
        tf.errors.OpError: a record cannot be read; no checkpoint is saved.
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after a termination signal.
    """
    compiled = tf.function(step_fn, jit_compile=True if accelerator else None)
    step = int(state.step.numpy())
    ahead = None
    with _stop_requests() as stop:
        # A batch that was fetched ahead must be used: the iterator in a checkpoint is already past it.
        while step < total_steps and not (stop and ahead is None):
            batch = _next(state.iterator, accelerator) if ahead is None else ahead
            step += 1
            metrics = _launched(compiled, batch, step)
            save = checkpoints is not None and checkpoints.due()
            fetch = accelerator and step < total_steps and not (save or stop)
            ahead = _next(state.iterator, accelerator) if fetch else None
            if not all(math.isfinite(value) for value in metrics.values()):
                raise DivergedError(step)
            state.step.assign(step)
            for callback in on_metrics:
                callback(step, metrics)
            if checkpoints and save:
                checkpoints.save(state)
    if checkpoints:
        checkpoints.save(state)
    if stop:
        raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])


def _next(iterator: Iterator[Any], accelerator: Optional[str]) -> Any:
    """The next batch, copied to the accelerator if there is one."""
    batch = next(iterator)
    with tf.device(accelerator):
        return tf.nest.map_structure(tf.identity, batch) if accelerator else batch


def _launched(step_fn: StepFn, batch: Any, step: int) -> dict[str, tf.Tensor]:
    """Starts a step and returns its scalars, which an accelerator may still be computing."""
    try:
        return step_fn(batch)
    except tf.errors.InvalidArgumentError as error:
        if "indices" not in error.message:  # The warp's error for a displacement of NaN or infinity.
            raise
        raise DivergedError(step) from None


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that they do not interrupt a step."""
    received: list[int] = []
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, lambda caught, frame: received.append(caught))
        except ValueError:  # Only the main thread can set handlers, and only it receives signals.
            break
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
