"""Reptile (Nichol et al., 2018) as Park et al. (2021) use it for registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

import tensorflow as tf

from tfmetareg.training import weight_algebra
from tfmetareg.training.optim import reset_optimizer
from tfmetareg.training.steps import LossFn, adapt, gradient_step
from tfmetareg.types import Episode, LossTerms, PairBatch


class Replica(NamedTuple):
    """What one task is adapted with beside the others: a network of its own and an optimizer for it."""

    model: tf.keras.Model
    optimizer: tf.keras.optimizers.legacy.Optimizer


def reptile_step(
    model: tf.keras.Model,
    inner: tf.keras.optimizers.legacy.Optimizer,
    outer: tf.keras.optimizers.legacy.Optimizer,
    loss_fn: LossFn,
    episode: Episode,
    *,
    reset_inner: str = "never",
) -> dict[str, tf.Tensor]:
    """One meta-update, Eq. (2): theta <- theta + outer(mean_t(theta_t - theta)).

    For each task: copy theta in, adapt for k steps, add theta_t - theta to the
    mean. The mean delta, negated, is handed to `outer` as a gradient: SGD with
    rate alpha is Eq. (2) as printed, Adam is the paper's "two Adam optimizers".

    Args:
        model: `warped, displacement = model([moving, fixed])`; holds theta before and after.
        inner, outer: optimizers built for the model's trainable variables.
        loss_fn: (pair, warped, displacement) -> LossTerms.
        episode: (m, k, batch, height, width, 1) each, float32 in [0, 1] or uint8.
        reset_inner: "never" carries the inner slots from task to task, "task"
            zeroes them before each one.

    Returns:
        float32 scalars: total, similarity, smoothness (means over tasks and
        inner steps) and delta_norm (norm of the mean delta).

    Raises:
        ValueError: `reset_inner` is something else.
    """
    if reset_inner not in ("never", "task"):
        raise ValueError(f"`reset_inner` must be 'never' or 'task', got {reset_inner!r}.")
    variables = model.trainable_variables
    theta = weight_algebra.copy(variables)
    deltas = weight_algebra.zeros_like(theta)
    losses = tf.zeros(3)
    tasks = tf.shape(episode.moving)[0]
    for task in tf.range(tasks):
        weight_algebra.assign(variables, theta)
        if reset_inner == "task":
            reset_optimizer(inner)
        terms = adapt(model, inner, loss_fn, PairBatch(episode.moving[task], episode.fixed[task]))
        deltas = weight_algebra.add_difference(deltas, variables, theta)
        losses += tf.stack(terms)
    weight_algebra.assign(variables, theta)
    return _outer_update(variables, outer, deltas, losses, tasks)


def reptile_step_side_by_side(
    model: tf.keras.Model,
    lanes: Sequence[Replica],
    outer: tf.keras.optimizers.legacy.Optimizer,
    loss_fn: LossFn,
    episode: Episode,
) -> dict[str, tf.Tensor]:
    """`reptile_step` with `reset_inner="task"`, all tasks adapted at once.

    Each task has a copy of the network: m times the memory, for a device that
    one small step does not fill.

    Args:
        model: holds theta before and after.
        lanes: for each of the m tasks a network like `model` and its inner optimizer.
        outer, loss_fn, episode: as for `reptile_step`.

    Returns:
        As `reptile_step`.

    Raises:
        ValueError: not as many lanes as the episode has tasks.
    """
    if len(lanes) != episode.moving.shape[0]:
        raise ValueError(f"{len(lanes)} lanes for {episode.moving.shape[0]} tasks; give one for each.")
    theta = weight_algebra.copy(model.trainable_variables)
    for lane in lanes:
        weight_algebra.assign(lane.model.trainable_variables, theta)
        reset_optimizer(lane.optimizer)
    losses = tf.zeros(3)
    steps = tf.shape(episode.moving)[1]
    for index in tf.range(steps):
        for task, lane in enumerate(lanes):
            pair = PairBatch(episode.moving[task, index], episode.fixed[task, index])
            losses += tf.stack(gradient_step(*lane, loss_fn, pair))
    deltas = weight_algebra.zeros_like(theta)
    for lane in lanes:
        deltas = weight_algebra.add_difference(deltas, lane.model.trainable_variables, theta)
    losses /= tf.cast(steps, tf.float32)
    return _outer_update(model.trainable_variables, outer, deltas, losses, len(lanes))


def _outer_update(
    variables: Sequence[tf.Variable],
    outer: tf.keras.optimizers.legacy.Optimizer,
    deltas: Sequence[tf.Tensor],
    losses: tf.Tensor,
    tasks: Union[int, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Hands the mean over tasks to `outer`; `deltas` and `losses` are sums over them."""
    share = 1.0 / tf.cast(tasks, tf.float32)
    mean_delta = weight_algebra.scale(deltas, share)
    outer.apply_gradients(zip(weight_algebra.scale(mean_delta, -1.0), variables))
    terms = LossTerms(*tf.unstack(losses * share))
    return {**terms._asdict(), "delta_norm": tf.linalg.global_norm(mean_delta)}
