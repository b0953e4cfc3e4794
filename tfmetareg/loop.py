"""The only outer loop, and the only place where a training step is compiled."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

from tfmetareg.checkpoint import Checkpoints, TrainState

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
            are tensors, so that a caller that does not read them does not wait.
        checkpoints: where to save, now and then and at the end.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after a termination signal.
    """
    compiled = tf.function(step_fn)
    with _stop_requests() as stop:
        while int(state.step.numpy()) < total_steps and not stop:
            metrics = compiled(next(state.iterator))
            state.step.assign_add(1)
            step = int(state.step.numpy())
            for callback in on_metrics:
                callback(step, metrics)
            if checkpoints:
                checkpoints.save_if_due(state)
    if checkpoints:
        checkpoints.save(state)
    if stop:
        raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])


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
