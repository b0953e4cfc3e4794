"""Reptile against second implementations of Eq. (2)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg._compat import tfa
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.reptile import Replica, reptile_step, reptile_step_side_by_side
from tfmetareg.training.steps import adapt, gradient_step
from tfmetareg.types import ContrastEpisode, Episode, PairBatch


def random_episode(seed: int, tasks: int = 3, steps: int = 4, batch: int = 1) -> Episode:
    rng = np.random.default_rng(seed)
    shape = (tasks, steps, batch, 32, 32, 1)
    return Episode(*[tf.constant(rng.random(shape, np.float32)) for _ in range(2)])


def values(model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.trainable_variables]


def largest_difference(one, other) -> float:
    return max(np.abs(a - b).max() for a, b in zip(one, other))


def optimizers(model, inner=("adam", 1e-2), outer=("sgd", 0.5)):
    variables = model.trainable_variables
    inner = build_optimizer(*inner, variables)
    if "epsilon" in inner.get_config():
        # With the usual 1e-7, Adam turns the rounding noise of a vanishing gradient into a full step.
        inner.epsilon = 1e-3
    return inner, build_optimizer(*outer, variables)


def reptile_by_hand(model, inner, alpha: float, episode: Episode) -> None:
    """Eq. (2) with get_weights and set_weights, one eager step after the other."""
    theta = model.get_weights()
    deltas = []
    for moving, fixed in zip(episode.moving, episode.fixed):
        model.set_weights(theta)
        for pair in zip(moving, fixed):
            pair = PairBatch(*pair)
            with tf.GradientTape() as tape:
                warped, displacement = model([pair.moving, pair.fixed])
                loss = registration_loss(pair, warped, displacement).total
            gradients = tape.gradient(loss, model.trainable_variables)
            inner.apply_gradients(zip(gradients, model.trainable_variables))
        deltas.append([adapted - start for adapted, start in zip(model.get_weights(), theta)])
    mean = [np.mean(delta, axis=0) for delta in zip(*deltas)]
    model.set_weights([start + alpha * delta for start, delta in zip(theta, mean)])


@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_the_graph_step_equals_an_eager_reference_over_several_episodes(small_model, inner):
    model, reference = small_model(), small_model()
    adapts, outer = optimizers(model, inner=(inner, 1e-2))
    by_hand, _ = optimizers(reference, inner=(inner, 1e-2))
    step = tf.function(lambda episode: reptile_step(model, adapts, outer, registration_loss, episode))
    start = values(model)
    for seed in range(3):
        step(random_episode(seed))
        reptile_by_hand(reference, by_hand, 0.5, random_episode(seed))
    assert largest_difference(values(model), start) > 1e-3
    assert largest_difference(values(model), values(reference)) < 2e-6


def test_one_task_with_sgd_outside_equals_the_lookahead_optimizer(small_model):
    alpha, k = 0.5, 4
    model, reference = small_model(), small_model()
    inner, outer = optimizers(model, inner=("sgd", 0.1), outer=("sgd", alpha))
    lookahead = tfa.optimizers.Lookahead(
        tf.keras.optimizers.legacy.SGD(0.1), sync_period=k, slow_step_size=alpha
    )
    start = values(model)
    for seed in range(3):
        episode = random_episode(seed, tasks=1, steps=k)
        reptile_step(model, inner, outer, registration_loss, episode)
        for moving, fixed in zip(episode.moving[0], episode.fixed[0]):
            gradient_step(reference, lookahead, registration_loss, PairBatch(moving, fixed))
    assert largest_difference(values(model), start) > 1e-3
    assert largest_difference(values(model), values(reference)) < 1e-6


def test_one_inner_sgd_step_equals_sgd_on_the_mean_gradient(small_model):
    model, reference = small_model(), small_model()
    inner, outer = optimizers(model, inner=("sgd", 0.2), outer=("sgd", 1.0))
    episode = random_episode(0, steps=1)
    reptile_step(model, inner, outer, registration_loss, episode)
    pooled = PairBatch(episode.moving[:, 0, 0], episode.fixed[:, 0, 0])
    plain = build_optimizer("sgd", 0.2, reference.trainable_variables)

    def mean_of_losses(pair, warped, displacement):
        terms = [
            registration_loss(PairBatch(*[image[i : i + 1] for image in pair]), warped[i : i + 1], field)
            for i, field in enumerate(tf.split(displacement, 3))
        ]
        return terms[0]._replace(total=tf.add_n([term.total for term in terms]) / 3.0)

    start = values(model)
    gradient_step(reference, plain, mean_of_losses, pooled)
    assert largest_difference(values(model), values(reference)) < 1e-6
    assert largest_difference(values(small_model()), start) > 1e-4


def test_a_step_size_of_zero_leaves_the_weights_alone(small_model):
    model = small_model()
    inner, outer = optimizers(model, outer=("sgd", 0.0))
    before = values(model)
    reptile_step(model, inner, outer, registration_loss, random_episode(0))
    assert largest_difference(values(model), before) == 0.0


def test_a_full_step_on_one_task_equals_adaptation(small_model):
    model, adapted = small_model(), small_model()
    inner, outer = optimizers(model, outer=("sgd", 1.0))
    alone, _ = optimizers(adapted)
    episode = random_episode(0, tasks=1)
    reptile_step(model, inner, outer, registration_loss, episode)
    adapt(adapted, alone, registration_loss, PairBatch(episode.moving[0], episode.fixed[0]))
    assert largest_difference(values(model), values(small_model())) > 1e-3
    assert largest_difference(values(model), values(adapted)) < 1e-6


def test_the_order_of_tasks_matters_only_when_the_inner_slots_are_carried(small_model):
    episode = random_episode(0)
    reversed_episode = Episode(episode.moving[::-1], episode.fixed[::-1])

    def after(order: Episode, reset: str) -> list[np.ndarray]:
        model = small_model()
        inner, outer = optimizers(model, outer=("sgd", 1.0))
        reptile_step(model, inner, outer, registration_loss, order, reset_inner=reset)
        return values(model)

    assert largest_difference(after(episode, "task"), after(reversed_episode, "task")) < 1e-6
    assert largest_difference(after(episode, "never"), after(reversed_episode, "never")) > 1e-5


def test_the_paper_s_outer_adam_moves_each_weight_by_its_rate_at_first(small_model):
    model = small_model()
    inner, outer = optimizers(model, outer=("adam", 1e-4))
    before = values(model)
    reptile_step(model, inner, outer, registration_loss, random_episode(0))
    moved = np.concatenate([(a - b).ravel() for a, b in zip(values(model), before)])
    assert np.isclose(np.median(np.abs(moved)), 1e-4, rtol=0.02)


def test_outer_momentum_is_nesterov_s_on_the_mean_differences(small_model):
    alpha, momentum = 0.3, 0.9
    model, reference = small_model(), small_model()
    adapts, _ = optimizers(model)
    by_hand, _ = optimizers(reference)
    outer = build_optimizer("sgd", alpha, model.trainable_variables, momentum=momentum)
    velocity = [np.zeros_like(value) for value in values(reference)]
    for seed in range(3):
        reptile_step(model, adapts, outer, registration_loss, random_episode(seed))
        theta = values(reference)
        reptile_by_hand(reference, by_hand, 1.0, random_episode(seed))
        deltas = [adapted - start for adapted, start in zip(values(reference), theta)]
        velocity = [momentum * old + alpha * delta for old, delta in zip(velocity, deltas)]
        ahead = [momentum * speed + alpha * delta for speed, delta in zip(velocity, deltas)]
        reference.set_weights([start + move for start, move in zip(theta, ahead)])
    assert largest_difference(values(model), values(small_model())) > 1e-3
    assert largest_difference(values(model), values(reference)) < 2e-6


def test_the_losses_reported_are_means_over_tasks_and_inner_steps(small_model):
    model = small_model()
    inner, outer = optimizers(model, inner=("sgd", 1e-12), outer=("sgd", 1.0))
    episode = random_episode(0)
    reported = reptile_step(model, inner, outer, registration_loss, episode)
    losses = [
        registration_loss(PairBatch(moving, fixed), *model([moving, fixed])).total.numpy()
        for task in zip(episode.moving, episode.fixed)
        for moving, fixed in zip(*task)
    ]
    assert np.isclose(reported["total"], np.mean(losses), rtol=1e-5)
    assert np.isclose(reported["total"], reported["similarity"] + reported["smoothness"], rtol=1e-5)


def test_an_unknown_reset_is_refused(small_model):
    model = small_model()
    inner, outer = optimizers(model)
    with pytest.raises(ValueError, match="reset_inner"):
        reptile_step(model, inner, outer, registration_loss, random_episode(0), reset_inner="always")


def test_tasks_side_by_side_are_adapted_as_one_after_the_other(small_model):
    model, reference = small_model(), small_model()
    inner, outer = optimizers(reference)
    replicas = [Replica(copy, optimizers(copy)[0]) for copy in (small_model() for _ in range(3))]
    outer_beside = optimizers(model)[1]
    step = tf.function(
        lambda e: reptile_step(reference, inner, outer, registration_loss, e, reset_inner="task")
    )
    beside = tf.function(
        lambda e: reptile_step_side_by_side(model, replicas, outer_beside, registration_loss, e)
    )
    start = values(model)
    for seed in range(2):
        one, other = step(random_episode(seed)), beside(random_episode(seed))
        assert one.keys() == other.keys()
        np.testing.assert_allclose([*one.values()], [*other.values()], rtol=1e-4)
    assert largest_difference(values(model), start) > 1e-3
    assert largest_difference(values(model), values(reference)) < 2e-6


def test_a_replica_for_each_task_is_needed(small_model):
    model = small_model()
    with pytest.raises(ValueError, match="1 replicas for 3 tasks"):
        replicas = [Replica(model, None)]
        reptile_step_side_by_side(model, replicas, None, registration_loss, random_episode(0))


@pytest.mark.parametrize("side_by_side", [False, True])
def test_copies_of_an_episode_reach_the_loss(small_model, side_by_side):
    episode = random_episode(0)
    other = random_episode(1).moving
    similarities = []
    for given in (episode, ContrastEpisode(*episode, episode.moving), ContrastEpisode(*episode, other)):
        model = small_model()
        inner, outer = optimizers(model)
        if side_by_side:
            replicas = [Replica(copy, optimizers(copy)[0]) for copy in (small_model() for _ in range(3))]
            step = functools.partial(reptile_step_side_by_side, model, replicas, outer, registration_loss)
        else:
            step = functools.partial(reptile_step, model, inner, outer, registration_loss, reset_inner="task")
        similarities.append(float(tf.function(step)(given)["similarity"]))
    assert similarities[1] == pytest.approx(similarities[0], rel=1e-5)
    assert abs(similarities[2] - similarities[0]) > 1e-3
