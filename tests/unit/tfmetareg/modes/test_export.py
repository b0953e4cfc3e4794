"""The mode `export`: a network loaded by plain TensorFlow where this project is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.tfmetareg.serving.conftest import FEATURES, displacing_network, encoded, scan
from tfmetareg.cli import main
from tfmetareg.config import Config, DataOptions, ExportOptions, ModelOptions
from tfmetareg.data.records import examples
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.models.weights import save_weights
from tfmetareg.modes import export

SHAPES = [(1, 64, 64, 1), (1, 100, 90, 1), (1, 7, 5, 1), (3, 32, 40, 1)]

CLIENT = """
import sys
hidden = (
    *("tfmetareg", "tfrecords_builder", "voxelmorph", "neurite", "tensorflow_addons", "tensorflow_serving"),
    *("skimage", "scipy", "PIL", "nibabel", "SimpleITK", "tifffile", "jsonargparse"),
)
sys.modules.update(dict.fromkeys(hidden))  # Whoever imports one of them fails.
import numpy as np
import tensorflow as tf
folder, inputs, outputs = sys.argv[1:]
signatures = tf.saved_model.load(folder).signatures
serve = signatures["serving_default"]
specs = {name: spec.shape.as_list() for name, spec in serve.structured_input_signature[1].items()}
assert specs == {"moving": [None, None, None, 1], "fixed": [None, None, None, 1]}, specs
inputs, results = np.load(inputs), {}
for index in range(len(inputs) // 2 - 1):
    moving, fixed = (tf.constant(inputs[f"{name}_{index}"]) for name in ("moving", "fixed"))
    points = tf.zeros([len(moving), 1, 2])
    for name, value in serve(moving=moving, fixed=fixed).items():
        results[f"{name}_{index}"] = value.numpy()
    carried = signatures["register_points"](moving=moving, fixed=fixed, fixed_points=points)
    assert np.allclose(carried["moving_points"][:, 0], carried["displacement"][:, 0, 0], atol=1e-5)
files = {name: tf.constant([inputs[f"{name}_png"].tobytes()]) for name in ("moving", "fixed")}
results["png"] = tf.io.decode_png(signatures["register_png"](**files)["warped_bytes"][0]).numpy()
assert not any(sys.modules[name] for name in hidden)
np.savez(outputs, **results)
"""


def exported(workdir, records_root=None, **options):
    config = Config(
        deterministic=False,
        data=DataOptions(root=records_root and str(records_root)),
        model=ModelOptions(features=FEATURES),
        export=ExportOptions(**{"name": "tiny", **options}),
    )
    return export.run(config, workdir)


def write_preprocessing(stage, preprocessing: Preprocessing) -> None:
    """What a training stage leaves beside its weights."""
    content = {"image_shape": preprocessing.image_size, "preprocessing": preprocessing.describe()}
    (stage / "preprocessing.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def network():
    return displacing_network()


@pytest.fixture
def workdir(tmp_path, network):
    """A work directory with a finished stage."""
    save_weights(network, tmp_path / "finetune" / "model.h5")
    write_preprocessing(tmp_path / "finetune", Preprocessing((32, 32)))
    return tmp_path


def test_plain_tensorflow_serves_what_the_library_computes_at_any_size(workdir, network, capsys):
    arguments = ["--mode=export", f"--workdir={workdir}", "--export.name=tiny"]
    assert main(arguments) == 0
    folder = workdir / "export" / "tiny" / "1"
    assert str(folder) in capsys.readouterr().err
    rng = np.random.default_rng(0)
    inputs = {
        f"{name}_{index}": rng.random(shape, np.float32)
        for index, shape in enumerate(SHAPES)
        for name in ("moving", "fixed")
    }
    files = {"moving_png": encoded(scan((70, 50))), "fixed_png": encoded(scan((45, 60), 1))}
    files = {name: np.frombuffer(file, np.uint8) for name, file in files.items()}
    np.savez(workdir / "inputs.npz", **inputs, **files)
    (workdir / "client.py").write_text(CLIENT)
    command = [sys.executable, "-I", "client.py", folder, "inputs.npz", "outputs.npz"]
    subprocess.run(command, cwd=workdir, check=True, timeout=240)
    served = np.load(workdir / "outputs.npz")
    for index, shape in enumerate(SHAPES):
        warped, displacement = network([inputs[f"moving_{index}"], inputs[f"fixed_{index}"]])
        assert served[f"warped_{index}"].shape == shape
        assert served[f"displacement_{index}"].shape == (*shape[:3], 2)
        np.testing.assert_allclose(served[f"warped_{index}"], warped, atol=1e-5)
        np.testing.assert_allclose(served[f"displacement_{index}"], displacement, atol=1e-5)
        assert np.abs(displacement).max() > 0.05
    assert served["png"].shape == (45, 60, 1)


@pytest.fixture
def saved(monkeypatch):
    """What exports wanted to save: they write a file in place of a network, which takes seconds."""
    calls = []

    def save(model, preprocessing, folder, *, name, warmup_pair):
        folder.mkdir()
        (folder / "saved_model.pb").write_text("a network")
        calls.append((preprocessing, warmup_pair))

    monkeypatch.setattr(export, "save", save)
    return calls


def test_each_export_takes_the_next_version(workdir, saved):
    assert exported(workdir) == workdir / "export" / "tiny" / "1"
    assert exported(workdir).name == "2"
    (workdir / "export" / "tiny" / "10").mkdir()
    (workdir / "export" / "tiny" / "notes").mkdir()
    (workdir / "export" / "tiny" / "²").mkdir()
    assert exported(workdir).name == "11"


def test_an_export_takes_the_version_after_one_that_ends_before_it(workdir, monkeypatch):
    """Whichever number the other takes, while this one saves or between its looking and renaming."""

    def save(model, preprocessing, folder, **options):
        folder.mkdir()
        (folder / "saved_model.pb").write_text("this")
        other(1)

    def other(version):
        (workdir / "export" / "tiny" / str(version)).mkdir()
        (workdir / "export" / "tiny" / str(version) / "saved_model.pb").write_text("other")

    def rename(one, place):
        if Path(place).name == "2":
            other(2)
        os.replace(one, place)

    monkeypatch.setattr(export, "save", save)
    monkeypatch.setattr(export.os, "rename", rename)
    assert exported(workdir).name == "3"
    written = {
        path.name: path.joinpath("saved_model.pb").read_text() for path in workdir.glob("export/tiny/*")
    }
    assert written == {"1": "other", "2": "other", "3": "this"}


def test_the_warm_up_pair_is_from_the_records(workdir, saved, records, records_root):
    exported(workdir, records_root)
    expected = next(iter(examples(records, "target", "test")))
    _, example = saved[0]
    np.testing.assert_array_equal(example.moving, np.rint(255 * expected["moving"][..., 0]))
    np.testing.assert_array_equal(example.fixed, np.rint(255 * expected["fixed"][..., 0]))
    np.testing.assert_array_equal(example.points, expected["fixed_landmarks"])


def test_records_of_another_size_give_no_warm_up_pair(workdir, saved, records_root):
    """Padding to a smaller size would refuse it."""
    write_preprocessing(workdir / "finetune", Preprocessing((24, 24), fit="pad"))
    exported(workdir, records_root)
    _, example = saved[0]
    assert example.moving.shape == example.fixed.shape == (24, 24)


def test_without_records_the_warm_up_pair_is_synthetic(workdir, saved):
    write_preprocessing(workdir / "finetune", Preprocessing((40, 56), fit="crop", intensity="none"))
    exported(workdir)
    preprocessing, example = saved[0]
    assert preprocessing == Preprocessing((40, 56), fit="crop", intensity="none")
    assert example.moving.shape == example.fixed.shape == (40, 56)
    assert len(example.points) and example.moving.std() > 20


def test_what_the_graph_cannot_do_is_told(workdir, saved, capsys):
    for options, told in (
        ({"intensity": "clahe"}, "note: exported without the signature `register_png`: .*clahe"),
        ({"fit": "crop", "spacing": 0.5}, "note: exported without the signature `register_png`: .*spacing"),
        ({"align": "affine"}, "note: the records' `--align affine` is not part of the exported model"),
    ):
        write_preprocessing(workdir / "finetune", Preprocessing((32, 32), **options))
        exported(workdir)
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
        assert line.startswith(told.split(".*")[0]) and line.count(told.split(".*")[-1])
    assert [preprocessing is None for preprocessing, _ in saved] == [True, True, False]


def test_the_onnx_file_lies_where_the_server_does_not_look(workdir, saved, monkeypatch):
    monkeypatch.setattr(export.onnx, "save", lambda model, path: path.write_text("a network"))
    exported(workdir, onnx=True)
    found = {path.relative_to(workdir / "export") for path in (workdir / "export").rglob("*")}
    assert {str(path) for path in found} == {"tiny", "tiny/1", "tiny/1/saved_model.pb", "tiny-1.onnx"}


def test_an_export_that_fails_leaves_nothing(workdir, monkeypatch):
    def fail(module, folder, **options):
        tf.io.gfile.makedirs(f"{folder}/variables")
        raise OSError("disk full")

    monkeypatch.setattr(export.onnx, "save", lambda model, path: path.write_text("a network"))
    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(UserError, match="cannot be written .disk full."):
        exported(workdir, onnx=True)
    assert list((workdir / "export").rglob("*")) == [workdir / "export" / "tiny"]


def test_a_folder_that_cannot_be_written_is_one_line(workdir, saved, capsys):
    (workdir / "export").write_text("in the way")
    assert main(["--mode=export", f"--workdir={workdir}", "--export.name=tiny"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "cannot be written" in line and "--workdir" in line
