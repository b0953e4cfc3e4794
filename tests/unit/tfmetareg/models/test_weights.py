"""Weight files that come from voxelmorph, go to it, or are no good."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tfmetareg._compat import vxm
from tfmetareg.errors import UserError
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
FEATURES = [[4, 4], [4, 4, 4]]
PAIR = [tf.random.stateless_uniform((1, 32, 32, 1), [seed, 0]) for seed in range(2)]


def vxm_dense(seed: int = 0, size=(32, 32)) -> tf.keras.Model:
    network = vxm.networks.VxmDense(
        size, nb_unet_features=FEATURES, int_steps=0, svf_resolution=1, int_resolution=1, reg_field="warp"
    )
    for index, variable in enumerate(network.trainable_variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [seed, index], stddev=0.1))
    return network


def assert_same_outputs(one, other) -> None:
    for first, second in zip(one(PAIR), other(PAIR)):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def refused(model, path) -> str:
    """The message of a refusal that leaves every weight as it was."""
    before = model.get_weights()
    with pytest.raises(UserError) as caught:
        load_weights(model, path)
    for weight, old in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, old)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def model():
    """A network that no refused file may change."""
    return build_model("vxm_dense", (32, 32), features=FEATURES)


def test_voxelmorph_loads_what_we_save(small_model, tmp_path):
    model = small_model(seed=3)
    save_weights(model, tmp_path / "model.h5")
    assert_same_outputs(vxm.networks.VxmDense.load(tmp_path / "model.h5"), model)
    other = vxm_dense()
    other.load_weights(tmp_path / "model.h5")
    assert_same_outputs(other, model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.h5"]


@pytest.mark.parametrize("writer", ["save", "save_weights"])
@pytest.mark.parametrize("size", [(32, 32), (64, 48)], ids=str)
def test_we_load_what_voxelmorph_saves_at_any_image_size(small_model, tmp_path, writer, size):
    theirs = vxm_dense(seed=5, size=size)
    getattr(theirs, writer)(str(tmp_path / "theirs.h5"))
    model = small_model()
    load_weights(model, tmp_path / "theirs.h5")
    for one, other in zip(model.network.get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(one, other)
    if size == (32, 32):
        assert_same_outputs(model, theirs)


def test_a_network_that_predicts_velocities_loads_with_a_warning(small_model, tmp_path):
    vxm.networks.VxmDense((32, 32), nb_unet_features=FEATURES).save(tmp_path / "theirs.h5")
    with pytest.warns(UserWarning, match="theirs.h5: trained with int_steps=7, used here with int_steps=0"):
        load_weights(small_model(), tmp_path / "theirs.h5")


def test_saving_over_a_file_replaces_it(small_model, tmp_path):
    path = tmp_path / "model.h5"
    save_weights(small_model(seed=1), path)
    second, third = small_model(seed=2), small_model(seed=3)
    save_weights(second, path)
    load_weights(third, path)
    assert_same_outputs(third, second)


def test_a_file_of_another_network_is_refused_with_the_layers_that_differ(model, tmp_path):
    other = build_model("vxm_dense", (32, 32), features=[[4, 8], [4, 4, 4]])
    save_weights(other, tmp_path / "model.h5")
    first, header, *rows = refused(model, tmp_path / "model.h5").splitlines()
    assert first.endswith("not weights of this network.")
    assert header.split() == ["layer", "this", "network", "file"]
    assert [row.split() for row in rows] == [
        ["vxm_dense_unet_enc_conv_1_0", "3x3x4x4", "4", "3x3x4x8", "8"],
        ["vxm_dense_unet_dec_conv_1_0", "3x3x4x4", "4", "3x3x8x4", "4"],
        ["vxm_dense_unet_dec_conv_0_0", "3x3x8x4", "4", "3x3x12x4", "4"],
    ]


def test_missing_and_surplus_layers_are_named(model, tmp_path):
    other = build_model("vxm_dense", (32, 32), features=[[4, 4], [4, 4, 4, 4]])
    save_weights(other, tmp_path / "more.h5")
    *_, surplus = refused(model, tmp_path / "more.h5").splitlines()
    assert surplus.split() == ["vxm_dense_unet_dec_final_conv_1", "-", "3x3x4x4", "4"]
    save_weights(model, tmp_path / "fewer.h5")
    *_, missing = refused(other, tmp_path / "fewer.h5").splitlines()
    assert missing.split() == ["vxm_dense_unet_dec_final_conv_1", "3x3x4x4", "4", "-"]


def test_a_missing_file_is_refused(model, tmp_path):
    assert "no such weights file" in refused(model, tmp_path / "none.h5")
    assert "no such weights file" in refused(model, tmp_path)


def cut(length: int):
    return lambda whole: whole[:length]


def heaps_with_a_bad_free_list(whole: bytes) -> bytes:
    """HDF5's heaps of names: signature, version, size (8 bytes), offset of the free list (8 bytes)."""
    first, *heaps = whole.split(b"HEAP")
    return b"HEAP".join([first, *[heap[:12] + b"\xf0\xff" + heap[14:] for heap in heaps]])


DAMAGE = {
    "emptied": cut(0),
    "cut in the header": cut(100),
    "cut in the middle": cut(20_000),
    "cut by a byte": cut(-1),
    "text": lambda whole: b"not a weights file\n" * 100,
    "other signature": lambda whole: b"x" + whole[1:],
    "lost groups": lambda whole: whole.replace(b"TREE", b"TREF"),
    "lost names": lambda whole: whole.replace(b"SNOD", b"SNOE"),
    "lost list of layers": lambda whole: whole.replace(b"layer_names", b"layer_nbmes"),
    "broken name": lambda whole: whole.replace(b"vxm_dense_flow", b"vxm_dense_fl\xffw"),
    "bad heaps": heaps_with_a_bad_free_list,
}


@pytest.fixture(scope="module", params=["save", "save_weights"])
def whole_file(request, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.h5"
    getattr(vxm_dense(), request.param)(str(path))
    return path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(model, tmp_path, whole_file, damage):
    (tmp_path / "model.h5").write_bytes(damage(whole_file))
    message = refused(model, tmp_path / "model.h5")
    assert "not a readable .h5 weights file" in message and "\n" not in message


def test_an_h5_file_of_something_else_is_refused_in_one_line(model, tmp_path):
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["volume"] = np.zeros((4, 4))
    message = refused(model, tmp_path / "image.h5")
    assert "not a readable .h5 weights file" in message and "\n" not in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_and_the_layer_named(model, tmp_path, value):
    save_weights(model, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        layer = file["model_weights/vxm_dense_unet_enc_conv_1_0/vxm_dense_unet_enc_conv_1_0"]
        layer["kernel:0"][0, 0, 0, 0] = value
    message = refused(model, tmp_path / "model.h5")
    assert "vxm_dense_unet_enc_conv_1_0 are not finite" in message and "\n" not in message


def test_a_save_that_fails_leaves_the_old_file(small_model, tmp_path, monkeypatch):
    model, path = small_model(seed=1), tmp_path / "model.h5"
    save_weights(model, path)
    old = path.read_bytes()

    def fail(temporary, **options):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(model.network, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.h5"] and path.read_bytes() == old
