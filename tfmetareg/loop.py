"""The only outer loop, and the only place where a training step is compiled."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

from tfmetareg.checkpoint import Checkpoints, TrainState
from tfmetareg.errors import UserError

StepFn = Callable[[Any], dict[str, tf.Tensor]]
OnMetrics = Callable[[int, dict[str, tf.Tensor]], None]


def run_loop(
    step_fn: StepFn,
    state: TrainState,
    *,
    total_steps: int,
    on_metrics: Sequence[OnMetrics] = (),
    checkpoints: Optional[Checkpoints] = None,
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

    Raises:
        UserError: training has diverged, or a record cannot be read. Nothing is saved then.
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after a termination signal.
    """
    compiled = tf.function(step_fn)
    with _stop_requests() as stop:
        while int(state.step.numpy()) < total_steps and not stop:
            batch = _next(state.iterator)
            step = int(state.step.numpy()) + 1
            metrics = _finite(compiled, batch, step)
            state.step.assign(step)
            for callback in on_metrics:
                callback(step, metrics)
            if checkpoints:
                checkpoints.save_if_due(state)
    if checkpoints:
        checkpoints.save(state)
    if stop:
        raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])


def _next(iterator: Iterator[Any]) -> Any:
    try:
        return next(iterator)
    except tf.errors.DataLossError as error:
        raise UserError(
            f"the records are damaged ({error.message.splitlines()[0]}); "
            "`python -m tfrecords_builder inspect` names the shard."
        ) from None


def _finite(step_fn: StepFn, batch: Any, step: int) -> dict[str, tf.Tensor]:
    """The step's scalars, checked before they, or the weights behind them, are kept."""
    diverged = UserError(
        f"training diverged at step {step}; lower the learning rate and use another --workdir."
    )
    try:
        metrics = step_fn(batch)
    except tf.errors.InvalidArgumentError:  # What the warp makes of a displacement that is not a number.
        raise diverged from None
    if not all(math.isfinite(value) for value in metrics.values()):
        raise diverged
    return metrics


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
