"""Every registered network through one contract."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import SIZE, texture
from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp
from tfmetareg.models.build import load_model
from tfmetareg.models.registry import _BUILDERS, build_model
from tfmetareg.models.weights import describe, load_weights, save_weights
from tfmetareg.training.checkpoint import Checkpoints, TrainState
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.reptile import reptile_step
from tfmetareg.training.steps import gradient_step, register_pair
from tfmetareg.types import Episode, PairBatch

# Small ones, for tests that take seconds.
OPTIONS = {
    name: {"features": [[4, 4], [4, 4]]}
    for name in ("affine_deformable", "cascade", "large_kernel", "vxm_dense", "vxm_diffeomorphic")
}
OPTIONS["affine_deformable"]["affine_features"] = [4, 4]
OPTIONS["cascade"]["cascades"] = 2
OPTIONS["vxm_diffeomorphic"]["int_steps"] = 3


def build(name: str, seed: int = 0) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    return build_model(name, (SIZE, SIZE), **OPTIONS[name])


def build_displacing(name: str, seed: int = 0) -> tf.keras.Model:
    """A network that moves pixels by more than a tenth."""
    model, rng = build(name, seed), np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.1, variable.shape).astype(np.float32))
    return model


def images(height: int, width: int, batch: int = 1) -> PairBatch:
    rng = np.random.default_rng(height * width)
    return PairBatch(*[tf.constant(rng.random((batch, height, width, 1)), tf.float32) for _ in range(2)])


def assert_equal_weights(one: tf.keras.Model, other: tf.keras.Model) -> None:
    for first, second in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(first, second)


def test_every_network_of_the_project_is_held_to_this():
    own = {name for name, builder in _BUILDERS.items() if builder.__module__.startswith("tfmetareg.")}
    assert own == set(OPTIONS)


@pytest.fixture(scope="module", params=OPTIONS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def displacing(name):
    """No test changes its weights."""
    return build_displacing(name)


@pytest.mark.parametrize("size", [(32, 32), (33, 27), (2, 5)], ids=str)
def test_a_new_network_leaves_images_of_any_size_where_they_are(name, size):
    pair = images(*size, batch=2)
    warped, displacement = register_pair(build(name), pair)
    assert (warped.shape, warped.dtype) == ((2, *size, 1), tf.float32)
    assert (displacement.shape, displacement.dtype) == ((2, *size, 2), tf.float32)
    assert np.abs(displacement).max() < 0.01
    np.testing.assert_allclose(warped, pair.moving, atol=0.01)


@pytest.mark.parametrize(
    ("features", "resolution", "size"),
    [([[4], [4]], 2, (2, 2)), ([[4], [4]], 2, (2, 9)), ([[4] * 4, [4] * 4], 16, (2, 2))],
    ids=str,
)
def test_a_velocity_on_a_grid_of_one_pixel_is_integrated(features, resolution, size):
    options = {"features": features, "int_resolution": resolution, "int_steps": 2}
    model = build_model("vxm_diffeomorphic", (SIZE, SIZE), **options)
    pair = images(*size)
    for outputs in (register_pair(model, pair), model.inverse(list(pair))):
        assert [output.shape[1:3] for output in outputs] == [size, size]
        assert all(np.isfinite(output).all() for output in outputs)


@pytest.fixture(scope="module")
def compiled(displacing):
    """The same in a graph that does not know the size."""
    anywhere = tf.TensorSpec((None, None, None, 1), tf.float32)
    return tf.function(lambda *pair: displacing(list(pair)), input_signature=[anywhere, anywhere])


def test_a_graph_that_does_not_know_the_size_gives_what_eager_execution_gives(displacing, compiled):
    for size in [(32, 32), (33, 27)]:
        pair = images(*size, batch=2)
        (warped, displacement), (eager_warped, eager) = compiled(*pair), displacing(list(pair))
        np.testing.assert_allclose(displacement, eager, atol=1e-5)
        np.testing.assert_allclose(warped, eager_warped, atol=1e-5)
        np.testing.assert_allclose(warped, warp(pair.moving, displacement), atol=1e-5)
        assert np.abs(displacement).max() > 0.1


def test_the_gradient_is_finite_and_reaches_every_weight(displacing):
    pair = images(32, 32, batch=2)
    with tf.GradientTape() as tape:
        total = registration_loss(pair, *displacing(list(pair))).total
    gradients = tape.gradient(total, displacing.trainable_variables)
    for variable, gradient in zip(displacing.trainable_variables, gradients):
        assert gradient is not None and np.isfinite(gradient).all(), variable.name
        assert np.abs(gradient).max() > 0, variable.name


def test_weights_come_back_from_their_file_bit_for_bit_with_the_network(name, displacing, tmp_path):
    save_weights(displacing, tmp_path / "model.h5")
    assert describe(tmp_path / "model.h5") == displacing.architecture
    assert displacing.architecture.name == name
    assert displacing.architecture.options.items() >= OPTIONS[name].items()
    loaded = load_model(tmp_path / "model.h5", image_shape=(48, 40))
    assert_equal_weights(loaded, displacing)
    for one, other in zip(register_pair(loaded, images(32, 32)), register_pair(displacing, images(32, 32))):
        np.testing.assert_array_equal(one, other)


def test_a_file_of_another_network_is_refused_with_the_layers_that_differ(name, displacing, tmp_path):
    other = build_model("cascade" if name != "cascade" else "vxm_dense", (SIZE, SIZE))
    save_weights(other, tmp_path / "other.h5")
    before = displacing.get_weights()
    with pytest.raises(UserError, match="not weights of this network") as caught:
        load_weights(displacing, tmp_path / "other.h5")
    table = str(caught.value).splitlines()[1:]
    assert table[0].split() == ["layer", "this", "network", "file"]
    layers = {layer.name for model in (displacing, other) for layer in model.network.layers}
    assert {row.split()[0] for row in table[1:]} <= layers
    for weight, old in zip(displacing.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_a_checkpoint_brings_back_weights_and_slots(name, tmp_path):
    def state(seed: int) -> TrainState:
        model = build_displacing(name, seed)
        optimizer = build_optimizer("adam", 1e-3, model.trainable_variables)
        return TrainState(model, {"optimizer": optimizer}, tf.data.Dataset.range(3))

    trained, restored = state(1), state(2)
    gradient_step(trained.model, trained.optimizers["optimizer"], registration_loss, images(32, 32))
    trained.step.assign(7)
    Checkpoints(tmp_path, {}, 1e9).save(trained)
    assert Checkpoints(tmp_path, {}, 1e9).restore(restored) == 7
    assert_equal_weights(restored.model, trained.model)
    slots = [each.optimizers["optimizer"].get_weights() for each in (trained, restored)]
    assert len(slots[0]) == 1 + 2 * len(trained.model.trainable_variables)
    for one, other in zip(*slots):
        np.testing.assert_array_equal(one, other)


def test_plain_tensorflow_loads_a_saved_model_that_gives_the_same(displacing, compiled, tmp_path):
    module = tf.Module()
    module.weights = displacing.weights
    module.register = compiled
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # Tracing them takes seconds.
    tf.saved_model.save(module, str(tmp_path / "saved"), options=options)
    pair = images(33, 27)
    served = tf.saved_model.load(str(tmp_path / "saved"))
    for one, other in zip(served.register(*pair), displacing(list(pair))):
        np.testing.assert_allclose(one, other, atol=1e-5)


def shifted(seed: int, shape: tuple[int, ...], shift: tuple[int, int]) -> PairBatch:
    """moving(p + shift) = fixed(p), (*shape, SIZE, SIZE, 1), intensities in [0, 1]."""
    rng = np.random.default_rng(seed)
    fixed = np.stack([texture(rng, 2.0) for _ in range(np.prod(shape))]).reshape(*shape, SIZE, SIZE, 1)
    low, high = (bound(fixed, axis=(-3, -2, -1), keepdims=True) for bound in (np.min, np.max))
    fixed = ((fixed - low) / (high - low)).astype(np.float32)
    return PairBatch(tf.constant(np.roll(fixed, shift, axis=(-3, -2))), tf.constant(fixed))


def test_meta_training_lowers_the_loss_after_adaptation_on_pairs_not_seen(name):
    """The tasks are shifts; the held-out one is a shift that none of them has."""
    model = build(name)
    theta = model.get_weights()
    inner, outer, tuner = (
        build_optimizer(kind, rate, model.trainable_variables)
        for kind, rate in (("adam", 2e-3), ("sgd", 1.0), ("sgd", 1e-2))
    )
    step = tf.function(functools.partial(reptile_step, model, inner, outer, registration_loss))
    seen, unseen = shifted(98, (2,), (2, 1)), shifted(99, (4,), (2, 1))

    def adapted_loss() -> float:
        weights = model.get_weights()
        for _ in range(3):
            gradient_step(model, tuner, registration_loss, seen)
        loss = float(registration_loss(unseen, *register_pair(model, unseen)).total)
        model.set_weights(weights)
        return loss

    before = adapted_loss()
    for number in range(12):
        tasks = [shifted(10 * number + task, (8, 1), shift) for task, shift in enumerate([(2, 2), (2, 0)])]
        step(Episode(*[tf.stack(both) for both in zip(*tasks)]))
    after = adapted_loss()
    assert after < before - 0.03
    assert any(np.abs(one - other).max() > 0 for one, other in zip(model.get_weights(), theta))
