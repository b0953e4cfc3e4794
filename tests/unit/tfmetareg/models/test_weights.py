"""Weight files that come from voxelmorph, go to it, or are no good."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tfmetareg._compat import vxm
from tfmetareg.errors import UserError
from tfmetareg.models import weights_file
from tfmetareg.models.build import load_model, resolve_network
from tfmetareg.models.registry import Architecture, build_model
from tfmetareg.models.weights import describe, load_weights, save_weights
from tfmetareg.registration.weights import SHIPPED

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
FEATURES = [[4, 4], [4, 4, 4]]
PAIR = [tf.random.stateless_uniform((1, 32, 32, 1), [seed, 0]) for seed in range(2)]


def vxm_dense(seed: int = 0, size=(32, 32)) -> tf.keras.Model:
    network = vxm.networks.VxmDense(
        size, nb_unet_features=FEATURES, int_steps=0, svf_resolution=1, int_resolution=1, reg_field="warp"
    )
    spread_out(network.trainable_variables, seed)
    return network


def build_network(features) -> tf.keras.Model:
    """voxelmorph's, for displacements."""
    network = vxm.networks.VxmDense((32, 32), features, int_steps=0, int_resolution=1)
    spread_out(network.trainable_variables, seed=6)
    return network


def spread_out(variables, seed: int) -> None:
    for index, variable in enumerate(variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [seed, index], stddev=0.1))


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


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """The file of that network."""
    path = tmp_path_factory.mktemp("saved") / "model.h5"
    save_weights(model, path)
    return path


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
    save_weights(build_model("vxm_diffeomorphic", (32, 32), features=FEATURES), tmp_path / "theirs.h5")
    with pytest.warns(UserWarning, match="theirs.h5: trained as vxm_diffeomorphic, .* here as vxm_dense"):
        load_weights(small_model(), tmp_path / "theirs.h5")


def test_voxelmorph_loads_our_diffeomorphic_network_with_its_integration(tmp_path):
    model = build_model("vxm_diffeomorphic", (32, 32), features=FEATURES, int_steps=4)
    spread_out(model.trainable_variables, seed=2)
    save_weights(model, tmp_path / "model.h5")
    theirs = vxm.networks.VxmDense.load(tmp_path / "model.h5")
    assert theirs.get_config()["int_steps"] == 4
    assert_same_outputs(theirs, model)


# Arguments of voxelmorph's VxmDense, and the network that its file holds.
WRITTEN = {
    "a displacement": (
        {"int_steps": 0, "int_resolution": 1},
        "vxm_dense",
        {"features": FEATURES},
    ),
    "under another name, from other sizes": (
        {"int_steps": 0, "int_resolution": 1, "name": "mine", "inshape": (48, 16)},
        "vxm_dense",
        {"features": FEATURES},
    ),
    "by default": ({}, "vxm_diffeomorphic", {"int_steps": 7, "int_resolution": 2, "svf_resolution": 1}),
    "in both directions": ({"bidir": True, "int_steps": 1}, "vxm_diffeomorphic", {"int_steps": 1}),
    "by the options of before": (
        {"int_steps": 1, "int_downsize": 1, "name": "old"},
        "vxm_diffeomorphic",
        {"int_steps": 1, "int_resolution": 1},
    ),
    "at half resolution": (
        {"int_steps": 1, "unet_half_res": True},
        "vxm_diffeomorphic",
        {"int_resolution": 2, "svf_resolution": 2},
    ),
    "with features by level": (
        {"int_steps": 1, "nb_unet_features": 4, "nb_unet_levels": 3, "nb_unet_conv_per_level": 2},
        "vxm_diffeomorphic",
        {"features": [[4] * 4, [4] * 6], "convolutions_per_level": 2},
    ),
    "with voxelmorph's own features": (
        {"int_steps": 0, "int_resolution": 1, "nb_unet_features": None},
        "vxm_dense",
        {"features": [[16, 32, 32, 32], [32, 32, 32, 32, 32, 16, 16]]},
    ),
    "with probabilities": ({"int_steps": 1, "use_probs": True}, "vxm_diffeomorphic", {"use_probs": True}),
}


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("arguments, name, options", WRITTEN.values(), ids=WRITTEN)
def test_every_vxmdense_that_voxelmorph_saves_is_described_and_loads(tmp_path, arguments, name, options):
    theirs = vxm.networks.VxmDense(**{"inshape": (32, 32), "nb_unet_features": FEATURES, **arguments})
    spread_out(theirs.trainable_variables, seed=4)
    theirs.save(tmp_path / "theirs.h5")
    described = describe(tmp_path / "theirs.h5")
    assert described.name == name
    assert described.options.items() >= options.items()
    model = load_model(tmp_path / "theirs.h5", image_shape=(32, 32))
    assert len(model.get_weights()) == len(theirs.get_weights())
    for one, other in zip(model.get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:.*does not say whether")
@pytest.mark.parametrize("file", ["theirs.h5", "theirs.weights.h5"])
@pytest.mark.parametrize("features", [FEATURES, [[2, 3, 4], [5, 4, 3]], [[4], [4, 4]]], ids=str)
def test_the_features_are_read_from_the_layers_where_only_weights_were_saved(tmp_path, file, features):
    """A name that ends in .weights.h5 makes Keras write another format, without the layers' names."""
    theirs = build_network(features)
    theirs.save_weights(str(tmp_path / file))
    assert describe(tmp_path / file).options["features"] == features
    for one, other in zip(load_model(tmp_path / file).get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_weights_alone_do_not_tell_of_an_integration_and_a_warning_says_so(tmp_path, recwarn):
    vxm.networks.VxmDense((32, 32), FEATURES).save_weights(tmp_path / "theirs.h5")
    with pytest.warns(
        UserWarning, match="theirs.h5: does not say whether its field is integrated.*`model.na"
    ):
        assert describe(tmp_path / "theirs.h5").name == "vxm_dense"
    recwarn.clear()
    named = resolve_network(tmp_path / "theirs.h5", name="vxm_diffeomorphic")
    assert named.options["features"] == FEATURES and not recwarn.list


def test_a_fill_value_is_not_used_and_a_warning_says_so(tmp_path):
    theirs = vxm.networks.VxmDense((32, 32), FEATURES, int_steps=0, int_resolution=1, fill_value=0.0)
    theirs.save(tmp_path / "theirs.h5")
    with pytest.warns(UserWarning, match=r"theirs.h5: its `fill_value` \(0.0\) is not used"):
        load_model(tmp_path / "theirs.h5")


# Arguments of voxelmorph's VxmDense that no network here has, and what the refusal says.
NOT_HERE = {
    "a coarse field": (
        {"int_steps": 0, "svf_resolution": 2},
        "one-channel images with a field of their size",
    ),
    "colour images": ({"src_feats": 3, "trg_feats": 3}, "one-channel images"),
    "a third of the size": (
        {"int_resolution": 3, "inshape": (48, 48)},
        "`int_resolution` (3) must be a power",
    ),
}


@pytest.mark.parametrize("arguments, message", NOT_HERE.values(), ids=NOT_HERE)
def test_a_vxmdense_that_no_network_here_is_is_refused_with_the_reason(tmp_path, arguments, message):
    theirs = vxm.networks.VxmDense(**{"inshape": (32, 32), "nb_unet_features": FEATURES, **arguments})
    theirs.save(tmp_path / "theirs.h5")
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "theirs.h5")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_kind_of_network_is_refused_in_one_line(tmp_path):
    volumes = tf.keras.Sequential([tf.keras.Input((8, 8, 8, 2)), tf.keras.layers.Conv3D(2, 3, name="flow")])
    volumes.save_weights(tmp_path / "volumes.h5")
    dense = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(2, name="only")])
    dense.save(tmp_path / "dense.h5")
    for file, held in (("volumes.h5", "the layers flow"), ("dense.h5", "Sequential")):
        with pytest.raises(UserError, match=f"{file}: holds {held}, neither") as caught:
            describe(tmp_path / file)
        assert "\n" not in str(caught.value)


def test_a_file_of_a_network_that_is_not_registered_names_what_registers_it(tmp_path, small_model):
    model = small_model()
    model.architecture = Architecture("mine", {})
    save_weights(model, tmp_path / "model.h5")
    with pytest.raises(UserError, match="holds the network mine, which is not registered; .*`model.module`"):
        load_model(tmp_path / "model.h5")


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


# A variable-length type (class 9 of version 1) of texts (1).
LIST_OF_TEXTS = b"layer_names\0\0\0\0\0\x19\x01"

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
    "a type that crashes h5py": lambda whole: whole.replace(LIST_OF_TEXTS, LIST_OF_TEXTS[:-1] + b"\x09"),
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


@pytest.mark.parametrize("key", ["tfmetareg", "model_config"])
@pytest.mark.parametrize("value", ["3", "[1]", "null", "{}", {"name": 1}, {"options": [1]}, "text"], ids=str)
def test_an_attribute_that_names_no_network_is_refused_in_one_line(model, saved, tmp_path, key, value):
    shutil.copyfile(saved, tmp_path / "model.h5")
    if isinstance(value, dict):
        whole = {"name": "vxm_dense", "options": {}, **value}
        value = json.dumps({**whole, "class_name": whole["name"], "config": whole["options"]})
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs[key] = value
    message = refused(model, tmp_path / "model.h5")
    assert "not a readable .h5 weights file" in message and "\n" not in message


def test_a_group_in_place_of_a_weight_is_refused_in_one_line(model, saved, tmp_path):
    shutil.copyfile(saved, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        layer = file["model_weights/vxm_dense_flow/vxm_dense_flow"]
        del layer["kernel:0"]
        layer.create_group("kernel:0/0")
    message = refused(model, tmp_path / "model.h5")
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

    def fail(group, name, **options):
        raise OSError("disk full")

    monkeypatch.setattr(h5py.Group, "create_group", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.h5"] and path.read_bytes() == old


@pytest.fixture
def checks(monkeypatch) -> list:
    """The commands of second processes that read a file first."""
    commands = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **rest: commands.append(command) or run(command, **rest)
    )
    return commands


def test_a_file_is_checked_once_and_one_that_was_just_written_not_at_all(model, saved, tmp_path, checks):
    save_weights(model, tmp_path / "own.h5")
    load_weights(model, tmp_path / "own.h5")
    assert not checks
    shutil.copyfile(saved, tmp_path / "copy.h5")
    for _ in range(2):
        load_weights(model, tmp_path / "copy.h5")
    assert len(checks) == 1
    shutil.copyfile(saved, tmp_path / "other.h5")
    os.replace(tmp_path / "other.h5", tmp_path / "copy.h5")
    load_weights(model, tmp_path / "copy.h5")
    assert len(checks) == 2


def test_the_check_imports_neither_tensorflow_nor_this_package():
    tree = ast.parse(Path(weights_file.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    standard = {"__future__", "hashlib", "json", "math", "os", "pathlib", "re", "subprocess", "sys", "typing"}
    assert names - standard == {"h5py", "numpy"}


@pytest.fixture(params=["signals as usual", "SIGCHLD ignored"])
def signals(request):
    """Where a program ignores SIGCHLD, it never learns how its children ended."""
    if request.param == "signals as usual":
        yield
    else:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        yield
        signal.signal(signal.SIGCHLD, before)


def test_a_sound_file_is_read_and_one_that_crashes_h5py_refused(model, saved, tmp_path, signals, checks):
    shutil.copyfile(saved, tmp_path / "sound.h5")
    load_weights(model, tmp_path / "sound.h5")
    theirs = vxm_dense()
    theirs.save(tmp_path / "theirs.h5")
    crashing = DAMAGE["a type that crashes h5py"]((tmp_path / "theirs.h5").read_bytes())
    (tmp_path / "crashing.h5").write_bytes(crashing)
    assert "reading it ends the program" in refused(model, tmp_path / "crashing.h5")
    assert len(checks) == 2


def test_a_file_whose_reading_does_not_end_is_refused(model, saved, tmp_path, monkeypatch):
    """A file that stays busy: its second process says that it started, and no more."""
    slow = tmp_path / "slow.py"
    slow.write_text("import os, time\nos.write(1, b'started\\n')\ntime.sleep(60)\n")
    monkeypatch.setattr(weights_file, "__file__", str(slow))
    monkeypatch.setattr(weights_file, "_MOST_SECONDS_TO_READ", 3)
    shutil.copyfile(saved, tmp_path / "model.h5")
    assert "reading it ends the program" in refused(model, tmp_path / "model.h5")


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_without_a_second_process_a_file_is_read_at_once(model, saved, tmp_path, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    shutil.copyfile(saved, tmp_path / "model.h5")
    load_weights(model, tmp_path / "model.h5")


def test_the_shipped_weights_need_no_second_process(tmp_path, monkeypatch):
    """They are known by their SHA-256: whoever renews them renews `SHIPPED_DIGESTS`."""
    shutil.copyfile(SHIPPED["start"], tmp_path / "start.h5")
    monkeypatch.setattr(weights_file, "_ends_in_second_process", lambda path: False)
    assert describe(tmp_path / "start.h5").name == "vxm_dense"
    damaged = bytearray(SHIPPED["start"].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "other.h5").write_bytes(damaged)
    with pytest.raises(UserError, match="reading it ends the program"):
        describe(tmp_path / "other.h5")


KERNEL = "model_weights/vxm_dense_flow/vxm_dense_flow/kernel:0"


def soft_link(file, kernel, folder):
    file[KERNEL] = h5py.SoftLink("/elsewhere")
    file["elsewhere"] = kernel


def external_link(file, kernel, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["elsewhere"] = kernel
    file[KERNEL] = h5py.ExternalLink("other.h5", "elsewhere")


def external_storage(file, kernel, folder):
    kernel.tofile(folder / "numbers.raw")
    file.create_dataset(KERNEL, kernel.shape, kernel.dtype, external=str(folder / "numbers.raw"))


def virtual_dataset(file, kernel, folder):
    layout = h5py.VirtualLayout(kernel.shape, kernel.dtype)
    layout[:] = h5py.VirtualSource(".", "elsewhere", kernel.shape)
    file["elsewhere"] = kernel
    file.create_virtual_dataset(KERNEL, layout)


def huge_and_empty(file, kernel, folder):
    file.create_dataset(KERNEL, (10**6, 10**6), kernel.dtype)


def huge_and_compressed(file, kernel, folder):
    file.create_dataset(KERNEL, (10**6, 10**6), kernel.dtype, chunks=(1000, 1000), compression="gzip")


def one_for_all(file, kernel, folder):
    """The same large array as weights of many layers."""
    group = file["model_weights"]
    names = [f"copy_{index}" for index in range(9)]
    group["large"] = np.zeros((200, 200), np.float32)
    for name in names:
        group.create_group(name).attrs["weight_names"] = [b"kernel:0"]
        group[name]["kernel:0"] = group["large"]
    group.attrs["layer_names"] = [name.encode() for name in names]


def words(file, kernel, folder):
    file[KERNEL] = ["words"]


NOT_LOCAL = {
    soft_link: "vxm_dense_flow/kernel:0 is a link, and links are not followed",
    external_link: "vxm_dense_flow/kernel:0 is a link, and links are not followed",
    external_storage: "vxm_dense_flow/kernel:0 lies in another file",
    virtual_dataset: "vxm_dense_flow/kernel:0 lies in another file",
    huge_and_empty: "its arrays claim more than its",
    huge_and_compressed: "its arrays claim more than its",
    one_for_all: "its arrays claim more than its",
    words: "vxm_dense_flow/kernel:0 is not an array of numbers",
}


@pytest.mark.parametrize("change, message", NOT_LOCAL.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_only_numbers_that_lie_in_the_file_are_read(model, saved, tmp_path, change, message):
    shutil.copyfile(saved, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        kernel = file[KERNEL][()]
        del file[KERNEL]
        change(file, kernel, tmp_path)
    line = refused(model, tmp_path / "model.h5")
    assert message in line and "\n" not in line


def test_compressed_weights_are_read(model, saved, tmp_path):
    shutil.copyfile(saved, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        kernel = file[KERNEL][()]
        del file[KERNEL]
        file.create_dataset(KERNEL, data=kernel, compression="gzip")
    load_weights(model, tmp_path / "model.h5")
    np.testing.assert_array_equal(model.network.get_layer("vxm_dense_flow").kernel, kernel)
