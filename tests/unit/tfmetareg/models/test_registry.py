"""The registry, and what every registered network does with images of any size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp
from tfmetareg.models.registry import (
    RegistrationModel,
    build_model,
    import_networks,
    options_of,
    register_model,
    registered,
)


def random_images(height: int, width: int, batch: int = 1) -> list[tf.Tensor]:
    rng = np.random.default_rng(height * width)
    return [tf.constant(rng.random((batch, height, width, 1)), tf.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def deep_model():
    """Four levels, as the default network has: its stride is 16."""
    model = build_model("vxm_dense", (32, 32), features=[[2, 2, 2, 4], [4, 2, 2, 2, 2]])
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.1))
    return model


@pytest.mark.parametrize("size", [(200, 200), (100, 90), (32, 48), (7, 5)], ids=str)
def test_any_size_is_padded_below_and_right_and_cropped_back(deep_model, size):
    height, width = size
    moving, fixed = random_images(height, width)
    warped, displacement = deep_model([moving, fixed])
    assert displacement.shape == (1, height, width, 2) and warped.shape == (1, height, width, 1)
    below, right = -height % 16, -width % 16
    widened = [np.pad(image, ((0, 0), (0, below), (0, right), (0, 0))) for image in (moving, fixed)]
    expected = deep_model.field(widened)[:, :height, :width]
    np.testing.assert_allclose(displacement, expected, atol=1e-5)
    np.testing.assert_allclose(warped, warp(moving, displacement), atol=1e-5)
    assert np.abs(displacement).max() > 0.01


@pytest.mark.parametrize("size", [(100, 90), (32, 48)], ids=str)
def test_a_graph_that_does_not_know_the_size_gives_the_same(deep_model, size):
    images = random_images(*size, batch=2)
    anywhere = tf.TensorSpec((None, None, None, 1), tf.float32)
    compiled = tf.function(lambda *pair: deep_model(pair), input_signature=[anywhere, anywhere])
    for one, other in zip(compiled(*images), deep_model(images)):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_pair_registers_in_a_batch_as_it_does_alone(deep_model):
    moving, fixed = random_images(32, 32, batch=3)
    alone = deep_model([moving[1:2], fixed[1:2]])
    for one, other in zip(deep_model([moving, fixed]), alone):
        np.testing.assert_allclose(one[1:2], other, atol=1e-5)


def test_the_two_images_are_not_interchangeable(deep_model):
    moving, fixed = random_images(32, 32)
    difference = deep_model([moving, fixed])[1] - deep_model([fixed, moving])[1]
    assert np.abs(difference).max() > 0.01


def test_a_registered_name_builds_with_its_own_options_and_is_not_given_twice(monkeypatch):
    monkeypatch.setattr("tfmetareg.models.registry._BUILDERS", {})
    calls = []

    @register_model("still")
    def still(image_shape, *, features):
        calls.append((image_shape, features))
        return RegistrationModel(tf.keras.Sequential(name="still"), None, 1)

    assert build_model("still", (8, 9), features=[[1], [1]]).name == "still"
    assert calls == [((8, 9), [[1], [1]])]
    with pytest.raises(ValueError, match="`still` is registered already"):
        register_model("still")(still)


# Types of an option, values that fit and what the builder is handed for them, and values that do not fit.
TYPES = {
    "tuple of any length": (tuple[int, ...], [([1, 2, 3], (1, 2, 3)), ((1,), (1,)), ([], ())], [["a"], 3]),
    "tuple of two": (tuple[int, float], [([1, 2.5], (1, 2.5))], [[1], [1, 2.5, 3], [1, "a"]]),
    "tuple or nothing": (Optional[tuple[int, int]], [([1, 2], (1, 2)), (None, None)], [[1]]),
    "list": (list[int], [([1], [1]), ([], [])], [["a"], "a"]),
    "bare sequence": (Sequence, [([1, "a"], [1, "a"]), ([], [])], ["text", 3]),
    "bare tuple": (tuple, [([1, "a"], (1, "a"))], ["text"]),
}
if sys.version_info >= (3, 10):
    TYPES["one or the other"] = (int | None, [(1, 1), (None, None)], ["a", 1.5, True])


@pytest.mark.parametrize("kind, fitting, others", TYPES.values(), ids=TYPES)
def test_an_option_is_held_to_its_type(monkeypatch, kind, fitting, others):
    monkeypatch.setattr("tfmetareg.models.registry._BUILDERS", {})
    handed: list[Any] = []

    @register_model("own")
    def own(image_shape, *, option):
        handed.append(option)
        return RegistrationModel(tf.keras.Sequential(name="own"), None, 1)

    own.__annotations__["option"] = kind
    for value, expected in fitting:
        model = build_model("own", (8, 8), option=value)
        build_model("own", (8, 8), **model.architecture.options)  # As a weights file holds it.
        assert handed[-2:] == [expected] * 2
    for value in others:
        with pytest.raises(UserError, match="`option` .* of own must be of type"):
            build_model("own", (8, 8), option=value)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UserError) as caught:
        build_model("vxm_dens", (32, 32), features=[[4], [4]])
    message = str(caught.value)
    assert message.startswith("`model.name` must be one of ") and message.endswith("; got vxm_dens.")
    assert "vxm_dense, vxm_diffeomorphic;" in message


BAD_OPTIONS = {
    "one it does not take": (
        {"int_step": 7},
        "`int_step` is not an option of vxm_diffeomorphic; it takes features, int_steps, int_resolution, "
        "svf_resolution, convolutions_per_level, use_probs, precision.",
    ),
    "text for a number": ({"int_steps": "7"}, "`int_steps` ('7') of vxm_diffeomorphic must be of type int."),
    "yes for a number": ({"int_steps": True}, "`int_steps` (True) of vxm_diffeomorphic must be of type int."),
    "a number for yes": ({"use_probs": 1}, "`use_probs` (1) of vxm_diffeomorphic must be of type bool."),
    "a flat list": (
        {"features": [4, 4]},
        "`features` ([4, 4]) of vxm_diffeomorphic must be of type Sequence[Sequence[int]].",
    ),
    "no integration": ({"int_steps": 0}, "`int_steps` (0) must be at least 1"),
    "no power of 2": ({"int_resolution": 3}, "`int_resolution` (3) must be a power of 2 from 1 to"),
    "coarser than the network": ({"svf_resolution": 32}, "`svf_resolution` (32) must be a power of 2 from 1"),
    "a velocity that voxelmorph leaves coarse": (
        {"svf_resolution": 2, "int_resolution": 1},
        "`int_resolution` (1) must be above 1",
    ),
    "an uneven encoder": ({"convolutions_per_level": 3}, "`convolutions_per_level` (3) must divide"),
    "a short decoder": ({"features": [[4, 4], [4]]}, "must be [encoder, decoder], the decoder at least"),
}


@pytest.mark.parametrize("options, message", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_an_option_that_a_network_does_not_take_is_refused_in_one_line(options, message):
    with pytest.raises(UserError) as caught:
        build_model("vxm_diffeomorphic", (32, 32), **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cascade", {"cascades": 0}),
        ("large_kernel", {"kernel_size": 6}),
        ("large_kernel", {"kernel_size": 3}),
        ("affine_deformable", {"affine_features": []}),
    ],
)
def test_an_option_out_of_range_is_refused(name, options):
    with pytest.raises(UserError, match=f"`{next(iter(options))}`"):
        build_model(name, (32, 32), **options)


def test_a_model_knows_what_it_was_built_from_in_plain_types():
    model = build_model("vxm_diffeomorphic", (32, 32), features=((4,), (4, 4)), precision="mixed_bfloat16")
    assert model.architecture.name == "vxm_diffeomorphic"
    assert model.architecture.options == {
        "features": [[4], [4, 4]],
        "int_steps": 7,
        "int_resolution": 2,
        "svf_resolution": 1,
        "convolutions_per_level": 1,
        "use_probs": False,
    }


def test_a_network_without_an_inverse_says_which_has_one(deep_model):
    with pytest.raises(UserError, match="vxm_diffeomorphic"):
        deep_model.inverse(random_images(32, 32))


OWN = """
from tfmetareg.models.registry import register_model

@register_model("{name}")
def own(image_shape, *, width: int = 3):
    raise NotImplementedError
"""


def test_a_file_registers_networks_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmetareg.models.registry._BUILDERS", {})
    (tmp_path / "own.py").write_text(OWN.format(name="own"))
    import_networks(str(tmp_path / "own.py"))
    import_networks(str(tmp_path / "own.py"))
    assert registered() == ["own"] and options_of("own") == {"width": 3}


def test_a_module_is_found_by_its_dotted_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmetareg.models.registry._BUILDERS", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "group_of_networks").mkdir()
    (tmp_path / "group_of_networks" / "__init__.py").write_text("from group_of_networks import own")
    (tmp_path / "group_of_networks" / "own.py").write_text(OWN.format(name="own"))
    import_networks("group_of_networks")
    assert registered() == ["own"]


BAD_MODULES = {
    "missing.py": (None, "cannot be imported: FileNotFoundError"),
    "broken.py": ("def :", "cannot be imported: SyntaxError"),
    "failing.py": (
        "import no_such_package",
        "ModuleNotFoundError: No module named 'no_such",
    ),
    "empty.py": ("", "registers no network"),
    "taken.py": (OWN.format(name="vxm_dense"), "ValueError: model `vxm_dense` is registered already."),
}


@pytest.mark.parametrize("file", BAD_MODULES)
def test_a_module_that_registers_nothing_is_refused_in_one_line(tmp_path, file):
    content, message = BAD_MODULES[file]
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as caught:
        import_networks(str(tmp_path / file))
    assert message in str(caught.value) and file in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no.such.module. cannot be imported"):
        import_networks("no.such.module")
