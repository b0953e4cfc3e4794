"""An exported network, loaded by plain TensorFlow where this project is not installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg.config import Config, Data, Export, Model
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import load_weights, save_weights
from tfmetareg.runs import export

FEATURES = [[4, 4], [4, 4, 4]]
SHAPES = [(1, 64, 64, 1), (1, 100, 90, 1), (1, 7, 5, 1), (3, 32, 40, 1)]

CLIENT = """
import sys
project = ("tfmetareg", "tfrecords_builder", "voxelmorph", "neurite", "tensorflow_addons")
sys.modules.update(dict.fromkeys(project))  # Whoever imports one of them fails.
import numpy as np
import tensorflow as tf
folder, pairs, outputs = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
inputs = {name: spec.shape.as_list() for name, spec in serve.structured_input_signature[1].items()}
assert inputs == {"moving": [None, None, None, 1], "fixed": [None, None, None, 1]}, inputs
pairs, results = np.load(pairs), {}
for index in range(len(pairs) // 2):
    moving, fixed = (tf.constant(pairs[f"{name}_{index}"]) for name in ("moving", "fixed"))
    for name, value in serve(moving=moving, fixed=fixed).items():
        results[f"{name}_{index}"] = value.numpy()
assert not any(sys.modules[name] for name in project)
np.savez(outputs, **results)
"""


def exported(workdir, records_root, weights: str = "finetune"):
    config = Config(
        deterministic=False,
        data=Data(root=str(records_root)),
        model=Model(features=FEATURES),
        export=Export(weights=weights, name="tiny"),
    )
    return export.run(config, workdir)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A work directory with a finished stage, whose network displaces by some pixels."""
    folder = tmp_path_factory.mktemp("work")
    model = build_model("vxm_dense", (32, 32), features=FEATURES)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [7, index], stddev=0.15))
    save_weights(model, folder / "finetune" / "model.h5")
    return folder


def test_plain_tensorflow_serves_what_the_library_computes_at_any_size(workdir, records_root, tmp_path):
    folder = exported(workdir, records_root)
    rng = np.random.default_rng(0)
    pairs = {
        f"{name}_{index}": rng.random(shape, np.float32)
        for index, shape in enumerate(SHAPES)
        for name in ("moving", "fixed")
    }
    np.savez(tmp_path / "pairs.npz", **pairs)
    (tmp_path / "client.py").write_text(CLIENT)
    command = [sys.executable, "-I", "client.py", folder, "pairs.npz", "outputs.npz"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    served = np.load(tmp_path / "outputs.npz")
    model = build_model("vxm_dense", (32, 32), features=FEATURES)
    load_weights(model, workdir / "finetune" / "model.h5")
    for index, shape in enumerate(SHAPES):
        warped, displacement = model([pairs[f"moving_{index}"], pairs[f"fixed_{index}"]])
        assert served[f"warped_{index}"].shape == shape
        assert served[f"displacement_{index}"].shape == (*shape[:3], 2)
        np.testing.assert_allclose(served[f"warped_{index}"], warped, atol=1e-5)
        np.testing.assert_allclose(served[f"displacement_{index}"], displacement, atol=1e-5)
        assert np.abs(displacement).max() > 0.05


@pytest.fixture
def unsaved(monkeypatch):
    """Exports that write a file in place of a network, which takes seconds."""

    def save(model, folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_text("a network")

    monkeypatch.setattr(export, "_save", save)


def test_each_export_takes_the_next_version(records_root, workdir, tmp_path, unsaved):
    weights = str(workdir / "finetune" / "model.h5")
    assert exported(tmp_path, records_root, weights) == tmp_path / "export" / "tiny" / "1"
    assert exported(tmp_path, records_root, weights).name == "2"
    (tmp_path / "export" / "tiny" / "10").mkdir()
    (tmp_path / "export" / "tiny" / "notes").mkdir()
    assert exported(tmp_path, records_root, weights).name == "11"


def test_an_export_that_fails_leaves_nothing(records_root, workdir, tmp_path, monkeypatch):
    def fail(module, folder, **options):
        tf.io.gfile.makedirs(f"{folder}/variables")
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        exported(tmp_path, records_root, str(workdir / "finetune" / "model.h5"))
    assert list((tmp_path / "export").rglob("*")) == [tmp_path / "export" / "tiny"]
