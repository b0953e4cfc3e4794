"""The adapter against voxelmorph's own VxmDense."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg._compat import vxm
from tfmetareg.evaluation.metrics import folding_percent
from tfmetareg.geometry.warp import warp
from tfmetareg.models import convolution
from tfmetareg.models.fields import compose
from tfmetareg.models.registry import build_model
from tfmetareg.training.losses import registration_loss
from tfmetareg.types import PairBatch

DEEP = [[2, 2, 2, 4], [4, 2, 2, 2, 2]]


def spread_out(variables) -> None:
    """Weights well away from the tiny ones that voxelmorph begins with."""
    for index, variable in enumerate(variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, index], stddev=0.1))


def vxm_dense(size: tuple[int, int], features) -> tf.keras.Model:
    """A displacement network as voxelmorph makes it."""
    return vxm.networks.VxmDense(
        size, nb_unet_features=features, int_steps=0, svf_resolution=1, int_resolution=1, reg_field="warp"
    )


def value_and_gradients(model: tf.keras.Model, pair: PairBatch) -> tuple[list, list]:
    """Warped image and displacement, and the loss's gradients by the network's weights."""
    weights = getattr(model, "network", model).trainable_variables
    with tf.GradientTape() as tape:
        warped, displacement = model([pair.moving, pair.fixed])
        total = registration_loss(pair, warped, displacement).total
    return [warped, displacement], tape.gradient(total, weights)


def flat(tensors: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def cosine(one: tf.Tensor, other: tf.Tensor) -> float:
    return float(tf.reduce_sum(one * other) / (tf.norm(one) * tf.norm(other)))


@pytest.mark.parametrize(
    ("size", "features"),
    [((32, 48), DEEP), ((16, 16), DEEP), ((32, 32), [[4, 4], [4, 4, 4]]), ((6, 10), [[4], [4]])],
)
@pytest.mark.parametrize("slow_kernel_gradient", [False, True])
def test_a_multiple_of_the_stride_gives_vxmdenses_own_outputs_and_gradients(
    size, features, slow_kernel_gradient, monkeypatch
):
    monkeypatch.setattr(convolution, "slow_kernel_gradient", lambda: slow_kernel_gradient)
    theirs = vxm_dense(size, features)
    spread_out(theirs.trainable_variables)
    ours = build_model("vxm_dense", (32, 32), features=features, precision="float32")
    ours.network.set_weights(theirs.get_weights())
    pair = PairBatch(*[tf.random.stateless_uniform((2, *size, 1), [seed, 0]) for seed in range(2)])
    (outputs, gradients), (expected, plain) = (value_and_gradients(model, pair) for model in (ours, theirs))
    for one, other in zip(outputs, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)
    assert np.abs(outputs[1]).max() > 0.05
    assert len(gradients) == len(plain) > 0
    for one, other in zip(gradients, plain):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


def test_in_bfloat16_the_weights_and_what_comes_out_stay_float32():
    single, mixed = (
        build_model("vxm_dense", (32, 32), features=DEEP, precision=precision)
        for precision in ("float32", "mixed_bfloat16")
    )
    spread_out(single.trainable_variables)
    mixed.network.set_weights(single.network.get_weights())
    pair = PairBatch(*[tf.random.stateless_uniform((2, 32, 32, 1), [seed, 0]) for seed in range(2)])
    (outputs, gradients), (expected, plain) = (value_and_gradients(model, pair) for model in (mixed, single))
    assert {tensor.dtype for tensor in [*outputs, *gradients, *mixed.trainable_variables]} == {tf.float32}
    difference = np.abs(outputs[1] - expected[1]).max() / np.abs(expected[1]).max()
    assert 1e-4 < difference < 0.03  # 8 bits of mantissa, and that it was not float32 after all
    assert cosine(flat(gradients), flat(plain)) > 0.98


@pytest.mark.parametrize(
    ("levels", "size", "inshape"), [(4, (200, 100), (208, 112)), (2, (30, 32), (32, 32))]
)
def test_the_packages_network_is_built_at_the_next_multiple_of_the_stride(levels, size, inshape):
    model = build_model("vxm_dense", size, features=[[2] * levels, [2] * levels])
    assert model.stride == 2**levels
    assert model.network.inputs[0].shape[1:3] == inshape


# What voxelmorph calls them, and what they are here.
DIFFEOMORPHIC = {
    "as by default": ({}, {}),
    "at full resolution": ({"int_resolution": 1, "int_steps": 2}, {}),
    "half the velocity": ({"svf_resolution": 2, "int_steps": 2}, {}),
    "two convolutions at each level": (
        {"int_steps": 1, "nb_unet_conv_per_level": 2, "nb_unet_features": [[3, 2, 4, 2], [4, 3, 2, 2, 3]]},
        {"convolutions_per_level": 2, "features": [[3, 2, 4, 2], [4, 3, 2, 2, 3]]},
    ),
}


@pytest.mark.parametrize("theirs, ours", DIFFEOMORPHIC.values(), ids=DIFFEOMORPHIC)
def test_the_diffeomorphic_network_gives_vxmdenses_own_outputs(theirs, ours):
    arguments = {"nb_unet_features": [[4, 4], [4, 4, 4]], **theirs}
    network = vxm.networks.VxmDense((16, 24), reg_field="warp", **arguments)
    spread_out(network.trainable_variables)
    same = {name: value for name, value in theirs.items() if not name.startswith("nb_")}
    options = {"features": [[4, 4], [4, 4, 4]], **same, **ours}
    model = build_model("vxm_diffeomorphic", (16, 24), **options)
    model.network.set_weights(network.get_weights())
    pair = [tf.random.stateless_uniform((2, 16, 24, 1), [seed, 0]) for seed in range(2)]
    for one, other in zip(model(pair), network(pair)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert np.abs(model(pair)[1]).max() > 0.1


def test_a_network_begins_with_the_weights_that_voxelmorphs_has_for_that_seed():
    tf.keras.utils.set_random_seed(5)
    theirs = vxm_dense((16, 16), DEEP)
    tf.keras.utils.set_random_seed(5)
    ours = build_model("vxm_dense", (16, 16), features=DEEP)
    for one, other in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert [layer.name for layer in ours.network.layers if layer.weights] == [
        layer.name for layer in theirs.layers if layer.weights
    ]


@pytest.fixture(scope="module")
def diffeomorphic():
    """A network whose fields bend by pixels, smoothly: only the biases of its flow were changed much."""
    model = build_model("vxm_diffeomorphic", (32, 32), features=[[4, 4], [4, 4, 4]], int_resolution=2)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, index], stddev=0.15))
    return model


def smooth_pair(size: int) -> list[tf.Tensor]:
    waves = [np.sin(np.arange(size) * rate)[:, None] * np.cos(np.arange(size) * rate) for rate in (0.2, 0.3)]
    return [tf.constant(0.5 + 0.5 * wave[None, :, :, None], tf.float32) for wave in waves]


def test_the_inverse_undoes_the_field_and_nothing_folds(diffeomorphic):
    pair = smooth_pair(64)
    forward, (_, back) = diffeomorphic(pair)[1], diffeomorphic.inverse(pair)
    inner = np.s_[:, 8:-8, 8:-8]
    there_and_back = compose(forward, back).numpy()[inner]
    assert np.abs(forward.numpy()[inner]).max() > 0.5
    assert np.abs(there_and_back).max() < 0.1 * np.abs(forward.numpy()[inner]).max()
    assert float(folding_percent(forward)[0]) == float(folding_percent(back)[0]) == 0.0


def test_the_inverse_warps_the_fixed_image_at_any_size(diffeomorphic):
    pair = [image[:, :33, :27] for image in smooth_pair(64)]
    warped, back = diffeomorphic.inverse(pair)
    assert back.shape == (1, 33, 27, 2)
    np.testing.assert_allclose(warped, warp(pair[1], back), atol=1e-6)


def test_the_network_and_the_model_share_their_weights(small_model):
    model = small_model()
    assert {variable.ref() for variable in model.network.weights} == {
        variable.ref() for variable in model.weights
    }
    assert len(model.weights) == len({variable.ref() for variable in model.weights}) == 12


def test_the_default_features_are_voxelmorphs():
    ours = build_model("vxm_dense", (16, 16))
    assert [weight.shape for weight in ours.network.weights] == [
        w.shape for w in vxm_dense((16, 16), None).weights
    ]


def test_a_new_network_hardly_displaces_anything():
    model = build_model("vxm_dense", (32, 32), features=DEEP)
    pair = [tf.random.stateless_uniform((1, 32, 32, 1), [seed, 0]) for seed in range(2)]
    warped, displacement = model(pair)
    assert np.abs(displacement).max() < 1e-3
    np.testing.assert_allclose(warped, pair[0], atol=1e-3)
