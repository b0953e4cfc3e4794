"""Reptile (Nichol et al., 2018) as Park et al. (2021) use it for registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

import tensorflow as tf

from tfmetareg.training import weight_algebra
from tfmetareg.training.optim import reset_optimizer
from tfmetareg.training.steps import LossFn, adapt, gradient_step
from tfmetareg.types import AnyEpisode, LossTerms


class Replica(NamedTuple):
    """A copy of the network and its optimizer, for one of the tasks that are adapted at the same time."""

    model: tf.keras.Model
    optimizer: tf.keras.optimizers.legacy.Optimizer


def reptile_step(
    model: tf.keras.Model,
    inner: tf.keras.optimizers.legacy.Optimizer,
    outer: tf.keras.optimizers.legacy.Optimizer,
    loss_fn: LossFn,
    episode: AnyEpisode,
    *,
    reset_inner: str = "never",
) -> dict[str, tf.Tensor]:
    """One meta-update, Eq. (2): theta <- theta + outer(mean_t(theta_t - theta)).

    For each task: set the weights to theta, adapt for k steps, add theta_t - theta to the mean. `outer`
    takes the negated mean delta as a gradient: SGD with rate alpha is Eq. (2) as printed, Adam is the
    paper's "two Adam optimizers".

    >>> from tfmetareg.models.registry import build_model
    >>> from tfmetareg.training.losses import registration_loss
    >>> from tfmetareg.training.optim import build_optimizer
    >>> from tfmetareg.types import Episode
    >>> model = build_model("vxm_dense", (16, 16), features=[[4], [4, 4]])
    >>> inner = build_optimizer("adam", 1e-3, model.trainable_variables)
    >>> outer = build_optimizer("sgd", 0.5, model.trainable_variables)
    >>> episode = Episode(*tf.random.uniform((2, 2, 3, 1, 16, 16, 1)))  # m = 2 tasks, k = 3 steps
    >>> before = weight_algebra.copy(model.trainable_variables)
    >>> metrics = reptile_step(model, inner, outer, registration_loss, episode)
    >>> sorted(metrics)
    ['delta_norm', 'similarity', 'smoothness', 'total']
    >>> zeros = weight_algebra.zeros_like(before)
    >>> change = weight_algebra.add_difference(zeros, model.trainable_variables, before)
    >>> bool(abs(tf.linalg.global_norm(change) / metrics["delta_norm"] - 0.5) < 1e-3)  # alpha
    True

    Args:
        model: `warped, displacement = model([moving, fixed])`; its weights are theta, before and after.
        inner, outer: optimizers built for the model's trainable variables.
        loss_fn: (pair, warped, displacement) -> LossTerms.
        episode: moving and fixed, (m, k, batch, height, width, 1) each, float32 in [0, 1] or uint8. If it has
            `moving_like_fixed`, that is what the loss sees warped.
        reset_inner: "never" keeps the inner optimizer's slots from task to task, "task" zeroes them before
            each task.

    Returns:
        float32 scalars: total, similarity, smoothness (means over tasks and inner steps) and delta_norm
        (norm of the mean delta).

    Raises:
        ValueError: `reset_inner` has another value.
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
        terms = adapt(model, inner, loss_fn, episode.pairs(task))
        deltas = weight_algebra.add_difference(deltas, variables, theta)
        losses += tf.stack(terms)
    weight_algebra.assign(variables, theta)
    return _outer_update(variables, outer, deltas, losses, tasks)


def reptile_step_side_by_side(
    model: tf.keras.Model,
    replicas: Sequence[Replica],
    outer: tf.keras.optimizers.legacy.Optimizer,
    loss_fn: LossFn,
    episode: AnyEpisode,
) -> dict[str, tf.Tensor]:
    """`reptile_step` with `reset_inner="task"`, all tasks adapted at the same time.

    Each task has its own copy of the network. That takes m times the memory, and pays on a device that one
    small step leaves partly idle.

    Args:
        model: its weights are theta, before and after.
        replicas: a copy of `model` and its inner optimizer for each of the m tasks.
        outer, loss_fn, episode: as for `reptile_step`.

    Returns:
        As for `reptile_step`.

    Raises:
        ValueError: the number of replicas is not the episode's number of tasks.
    """
    if len(replicas) != episode.moving.shape[0]:
        raise ValueError(f"{len(replicas)} replicas for {episode.moving.shape[0]} tasks; give one for each.")
    theta = weight_algebra.copy(model.trainable_variables)
    for replica in replicas:
        weight_algebra.assign(replica.model.trainable_variables, theta)
        reset_optimizer(replica.optimizer)
    losses = tf.zeros(3)
    steps = tf.shape(episode.moving)[1]
    for index in tf.range(steps):
        for task, replica in enumerate(replicas):
            losses += tf.stack(gradient_step(*replica, loss_fn, episode.pairs(task, index)))
    deltas = weight_algebra.zeros_like(theta)
    for replica in replicas:
        deltas = weight_algebra.add_difference(deltas, replica.model.trainable_variables, theta)
    losses /= tf.cast(steps, tf.float32)
    return _outer_update(model.trainable_variables, outer, deltas, losses, len(replicas))


def _outer_update(
    variables: Sequence[tf.Variable],
    outer: tf.keras.optimizers.legacy.Optimizer,
    deltas: Sequence[tf.Tensor],
    losses: tf.Tensor,
    tasks: Union[int, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Applies the mean delta by `outer`; `deltas` and `losses` are sums over the tasks."""
    share = 1.0 / tf.cast(tasks, tf.float32)
    mean_delta = weight_algebra.scale(deltas, share)
    outer.apply_gradients(zip(weight_algebra.scale(mean_delta, -1.0), variables))
    terms = LossTerms(*tf.unstack(losses * share))
    return {**terms._asdict(), "delta_norm": tf.linalg.global_norm(mean_delta)}
