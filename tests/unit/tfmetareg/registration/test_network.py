"""From what the network saw back to the images as they were."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tests.conftest import SIZE, shifted_pair
from tfmetareg.errors import UserError
from tfmetareg.geometry.affine import compose, invert
from tfmetareg.geometry.displacement import covered_pixels, to_image_grids, warp_image
from tfmetareg.geometry.frame import centre_mapping, resize_mapping
from tfmetareg.geometry.warp import warp
from tfmetareg.models.registry import build_model
from tfmetareg.registration import network
from tfmetareg.registration.network import Adaptation, Registrar
from tfmetareg.training.losses import registration_loss


def field(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth displacement of a few pixels."""
    noise = np.random.default_rng(seed).normal(size=(*shape, 2))
    return np.float32(30 * ndimage.gaussian_filter(noise, (5, 5, 0)))


def prepared(seed: int) -> tuple[np.ndarray, np.ndarray]:
    pair = shifted_pair(seed, "test", 2.0)
    return tuple(np.float32((image - image.min()) / np.ptp(image)) for image in (pair.moving, pair.fixed))


@pytest.mark.parametrize("as_type", [np.float32, np.uint8])
def test_a_registrar_gives_what_the_model_gives_with_the_weights_as_they_are(small_model, as_type):
    model = small_model()
    register = Registrar(model)
    moving, fixed = (
        np.asarray(255 * image if as_type is np.uint8 else image, as_type) for image in prepared(1)
    )
    for _ in range(2):
        warped, displacement = register(moving, fixed)
        scale = 255 if as_type is np.uint8 else 1
        inputs = [tf.constant(np.float32(image)[None, ..., None] / scale) for image in (moving, fixed)]
        expected = model(inputs, training=False)
        np.testing.assert_allclose(warped, expected[0][0, ..., 0], atol=1e-5)
        np.testing.assert_allclose(displacement, expected[1][0], atol=1e-5)
        assert np.abs(displacement).max() > 0.01
        model.set_weights([0.5 * value for value in model.get_weights()])


def test_the_network_is_compiled_once_for_a_size(small_model):
    model = small_model()
    calls = []
    plain = model.field
    model.field = lambda images: calls.append(images[0].shape) or plain(images)
    register = Registrar(model)
    for _ in range(3):
        register(*prepared(1))
    assert len(calls) == 1


def test_sizes_beyond_the_last_few_are_given_up(small_model, monkeypatch):
    monkeypatch.setattr(network, "_MAX_SIZES", 2)
    model = small_model()
    calls = []
    plain = model.field
    model.field = lambda images: calls.append(images[0].shape[1]) or plain(images)
    register = Registrar(model)
    for side in (16, 20, 16, 24, 24, 16, 20):
        register(np.zeros((side, 16), np.float32), np.zeros((side, 16), np.float32))
    assert calls == [16, 20, 24, 16, 20]


@pytest.mark.parametrize(
    ("features", "each", "shape"),
    [(((4, 4), (4, 4, 4)), 1, (211, 30)), (((4, 4, 4, 4), (4, 4, 4, 4, 4)), 2, (603, 20))],
)
def test_in_strips_the_network_gives_the_same(monkeypatch, features, each, shape):
    model = build_model("vxm_dense", (32, 32), features=features, convolutions_per_level=each)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.1, variable.shape).astype(np.float32))
    images = rng.random((2, *shape), np.float32)
    whole = Registrar(model)(*images)
    monkeypatch.setattr(network, "_STRIP_PIXELS", images[0].size // 3)
    strips = Registrar(model)(*images)
    for one, other in zip(whole, strips):
        np.testing.assert_allclose(other, one, atol=1e-4 * np.abs(one).max())


def test_a_warm_pair_of_400x400_costs_at_most_a_quarter_more_than_the_bare_network():
    model = build_model("vxm_dense", (400, 400))
    images = [np.random.default_rng(seed).random((400, 400), np.float32) for seed in range(2)]
    tensors = [tf.constant(image[None, ..., None]) for image in images]
    bare, register = tf.function(model.field), Registrar(model)
    calls = {"bare": lambda: bare(tensors).numpy(), "registered": lambda: register(*images)}
    seconds = {name: [] for name in calls}
    for _ in range(12):  # In turns, and the best of them: other work on the machine only adds time.
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    assert min(seconds["registered"]) <= 1.25 * min(seconds["bare"])


def test_adaptation_lowers_the_loss_and_starts_anew_each_time(small_model):
    model = small_model()
    start = model.get_weights()
    adapt = Adaptation(model, functools.partial(registration_loss, window=9), 1e-2)
    ends = []
    for _ in range(2):
        model.set_weights(start)
        first, last = adapt([prepared(1)] * 12)
        assert last < first - 0.01
        ends.append(model.get_weights())
    assert all(np.array_equal(one, other) for one, other in zip(*ends))
    assert adapt([]) is None


def test_adaptation_that_diverges_says_so(small_model):
    adapt = Adaptation(small_model(), lambda *pair: registration_loss(*pair, smoothness_weight=1e30), 1.0)
    with pytest.raises(UserError, match="diverged; lower the learning rate"):
        adapt([prepared(1)] * 30)


def test_images_of_one_size_keep_the_displacement_as_it_is():
    u = field((20, 24))
    identity = centre_mapping((20, 24), (20, 24)).matrix()
    np.testing.assert_allclose(to_image_grids(u, (20, 24), identity, identity), u, atol=1e-6)


@pytest.mark.parametrize("kind", [resize_mapping, centre_mapping])
@pytest.mark.parametrize("shapes", [((50, 61), (37, 80)), ((33, 33), (64, 48))])
def test_a_point_goes_the_same_way_through_the_frame_as_by_the_displacement(kind, shapes):
    """Fixed image -> frame -> u -> alignment -> moving image, at pixels whose way lies in the frame."""
    frame = (48, 56) if kind is resize_mapping else (64, 80)
    moving, fixed = (kind(shape, frame) for shape in shapes)
    u = field(frame)
    alignment = np.array([[1.02, 0.05, 1.5], [-0.04, 0.97, -2.0]])
    from_frame = compose(invert(moving.matrix()), alignment)
    found = to_image_grids(u, shapes[1], fixed.matrix(), from_frame)
    pixels = np.stack(np.indices(shapes[1]), axis=-1).reshape(-1, 2)
    places = fixed.points(pixels).astype(np.float64)
    inside = ((places >= 0) & (places <= np.array(frame) - 1)).all(axis=1)
    read = [ndimage.map_coordinates(u[..., axis], places.T, order=1) for axis in (0, 1)]
    aligned = (places + np.stack(read, axis=-1)) @ alignment[:, :2].T + alignment[:, 2]
    expected = (aligned + 0.5 - moving.shift) / moving.scale - 0.5
    landed = pixels + found.reshape(-1, 2)
    np.testing.assert_allclose(landed[inside], expected[inside], atol=2e-4)
    assert inside.mean() > 0.8


def test_alignments_are_joined_and_inverted():
    one, other = np.array([[1.1, 0.2, 3], [-0.1, 0.9, -4]]), np.array([[0.8, 0, 1], [0.3, 1.2, 2]])
    point = np.array([5.0, 7.0])
    mapped = other[:, :2] @ (one[:, :2] @ point + one[:, 2]) + other[:, 2]
    both = compose(other, one)
    np.testing.assert_allclose(both[:, :2] @ point + both[:, 2], mapped)
    np.testing.assert_allclose(compose(invert(one), one), np.eye(2, 3), atol=1e-12)


def test_an_image_is_warped_as_the_network_warps_it():
    moving, u = np.random.default_rng(0).random((SIZE, SIZE), np.float32), field((SIZE, SIZE))
    expected = warp(moving[None, ..., None], u[None])[0, ..., 0]
    np.testing.assert_allclose(warp_image(moving, u), expected, atol=1e-5)


@pytest.mark.parametrize("as_type", ["uint8", "uint16", "int16", "float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_warped_image_keeps_type_channels_and_values(as_type, channels):
    values = np.random.default_rng(0).integers(0, 2 if as_type == "bool" else 120, (20, 30, *channels))
    moving = values.astype(as_type) if as_type != "int32" else (values + 2**28).astype(as_type)
    shift = np.zeros((25, 22, 2), np.float32) + np.float32([-1, 3])
    warped = warp_image(moving, shift)
    assert (warped.dtype, warped.shape) == (moving.dtype, (25, 22, *channels))
    np.testing.assert_array_equal(warped[1:21], moving[:, 3:25])
    np.testing.assert_array_equal(warped[22:], np.broadcast_to(moving[-1, 3:25], (3, 22, *channels)))


def test_what_lies_outside_the_moving_image_is_known_and_can_be_filled():
    shift = np.zeros((10, 10, 2), np.float32) + np.float32([0, 4])
    assert covered_pixels(shift, (10, 10)).sum() == 60
    filled = warp_image(np.ones((10, 10), np.float32), shift, fill=0)
    assert filled[:, :6].all() and not filled[:, 6:].any()


def test_the_documented_way_to_register_many_pairs_works():
    page = (Path(__file__).resolve().parents[4] / "docs" / "registering.md").read_text(encoding="utf-8")
    code = page.partition("## Many pairs in one process")[2].split("```")[1].removeprefix("python\n")
    raw = shifted_pair(0, "test", 2.0)
    names = {"moving": raw.moving, "fixed": raw.fixed}
    exec(code, names)
    assert names["warped"].shape == (128, 128) and names["displacement"].shape == (128, 128, 2)
    moving, warped, fixed = (names[name].ravel() for name in ("moving", "warped", "fixed"))
    assert np.corrcoef(warped, fixed)[0, 1] > np.corrcoef(moving, fixed)[0, 1]
