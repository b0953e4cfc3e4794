"""The only outer loop, and the only place where a training step is compiled."""

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
    """The loss is no longer a number."""

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

    Ctrl-C and a termination signal take effect between two steps, after a
    checkpoint: a resumed run continues exactly there.

    Args:
        step_fn: batch -> scalars by name; traced once.
        state: advanced in place.
        total_steps: step at which to stop, counted from the stage's beginning.
        on_metrics: called with (step, scalars) after each step, in order. Scalars
            are tensors.
        checkpoints: where to save, now and then and at the end.
        accelerator: device, "GPU:0" for instance, for which XLA compiles the step
            as a whole and to which the next batch is copied while it works.

    Raises:
        DivergedError: training has diverged; nothing is saved then.
        tf.errors.OpError: a record cannot be read; nothing is saved then either.
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after a termination signal.
    """
    compiled = tf.function(step_fn, jit_compile=True if accelerator else None)
    step = int(state.step.numpy())
    ahead = None
    with _stop_requests() as stop:
        # A batch that was fetched is used: the iterator that a checkpoint holds is past it.
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
            if save:
                checkpoints.save(state)
    if checkpoints:
        checkpoints.save(state)
    if stop:
        raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])


def _next(iterator: Iterator[Any], accelerator: Optional[str]) -> Any:
    """The next batch, on the accelerator if there is one."""
    batch = next(iterator)
    with tf.device(accelerator):
        return tf.nest.map_structure(tf.identity, batch) if accelerator else batch


def _launched(step_fn: StepFn, batch: Any, step: int) -> dict[str, tf.Tensor]:
    """The step's scalars; an accelerator is still at work on them."""
    try:
        return step_fn(batch)
    except tf.errors.InvalidArgumentError as error:
        if "indices" not in error.message:  # What the warp makes of a displacement that is not a number.
            raise
        raise DivergedError(step) from None


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects the signals to stop, in place of acting on them in the midst of a step."""
    received: list[int] = []
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, lambda caught, frame: received.append(caught))
        except ValueError:  # Not in the main thread, where signals do not arrive either.
            break
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
