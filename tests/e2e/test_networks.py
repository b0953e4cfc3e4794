"""Networks from outside: a user's own, and weights that voxelmorph wrote, through the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg import cli
from tfmetareg._compat import vxm
from tfmetareg.models.build import load_model
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import describe, save_weights

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
SMALL = [
    *(
        "--pretrain.steps=2",
        "--reptile.meta_steps=2",
        "--reptile.inner_steps=2",
        "--reptile.meta_batch_size=2",
    ),
    *("--finetune.epochs=1", "--finetune.evaluate_every=0", "--loss.window=5"),
]


def run(mode: str, records_root: Path, workdir: Path, *options: str) -> int:
    fixed = ["--mode", mode, "--data.root", str(records_root), "--workdir", str(workdir)]
    return cli.main([*fixed, *SMALL, *options])


def errors(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]


@pytest.fixture(scope="module")
def own_network(tmp_path_factory):
    """The file that the documentation shows."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path_factory.mktemp("own") / "dilated.py"
    file.write_text(code)
    return file


def test_the_documented_network_is_meta_trained_and_fine_tuned_from_its_file(
    own_network, records_root, tmp_path, capsys
):
    module = f"--model.module={own_network}"
    options = [module, "--model.name=dilated", "--model.options.width=4", "--model.options.depth=2"]
    assert run("reptile", records_root, tmp_path / "first", *options) == 0
    weights = tmp_path / "first" / "reptile" / "model.h5"
    assert describe(weights).options == {"width": 4, "depth": 2}
    capsys.readouterr()
    assert run("finetune", records_root, tmp_path / "second", module, f"--finetune.init={weights}") == 0
    assert f"Network as in {weights}: dilated, width 4, depth 2" in capsys.readouterr().err
    start, end = (load_model(path) for path in (weights, tmp_path / "second" / "finetune" / "model.h5"))
    assert [layer.name for layer in end.network.layers if layer.weights][-1] == "displacement"
    changed = [np.abs(one - other).max() for one, other in zip(start.get_weights(), end.get_weights())]
    assert 0 < max(changed) < 0.1


def test_a_mistake_about_networks_is_one_line_with_status_2(own_network, records_root, tmp_path, capsys):
    mistakes = {
        "cannot be imported": ["--model.module=nowhere.py"],
        "`width` is not an option of vxm_dense": ["--model.options.width=4"],
        "`width` ('wide') of dilated must be of type int": [
            *(f"--model.module={own_network}", "--model.name=dilated", "--model.options.width=wide")
        ],
        "`features` is not an option of dilated; it takes width, depth": [
            *(f"--model.module={own_network}", "--model.name=dilated", "--model.features=[[4],[4]]")
        ],
        "`model.options` must not hold features": ["--model.options.features=[[4],[4]]"],
    }
    for message, options in mistakes.items():
        assert run("pretrain", records_root, tmp_path, *options) == 2
        (line,) = errors(capsys)
        assert message in line
    assert not (tmp_path / "pretrain").exists()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A file that voxelmorph wrote: another image size, and features that are not the default."""
    network = vxm.networks.VxmDense((64, 48), [[4, 4], [4, 4, 4]], int_steps=3, name="theirs")
    for index, variable in enumerate(network.trainable_variables):
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, index], stddev=0.05))
    path = tmp_path_factory.mktemp("theirs") / "theirs.h5"
    network.save(path)
    return path


@pytest.mark.parametrize("mode", ["pretrain", "reptile", "finetune"])
def test_a_stage_starts_from_voxelmorphs_file_and_voxelmorph_reads_the_result(
    theirs, records_root, tmp_path, capsys, mode
):
    assert run(mode, records_root, tmp_path, f"--{mode}.init={theirs}") == 0
    assert (
        f"Network as in {theirs}: vxm_diffeomorphic, features [[4, 4], [4, 4, 4]]" in capsys.readouterr().err
    )
    start = load_model(theirs).get_weights()
    end = vxm.networks.VxmDense.load(tmp_path / mode / "model.h5")
    assert end.get_config()["int_steps"] == 3 and end.get_config()["inshape"] == [32, 32]
    changed = [np.abs(one - other).max() for one, other in zip(start, end.get_weights())]
    assert 0 < max(changed) < 0.1  # Trained from there, not from elsewhere.


def test_every_row_has_the_network_of_the_file_that_pretraining_starts_from(theirs, records_root, tmp_path):
    rows = ["--reproduce.rows=[model_unseen]", "--reproduce.shots=[]"]
    assert run("reproduce", records_root, tmp_path, *rows, f"--pretrain.init={theirs}") == 0
    assert describe(tmp_path / "model_unseen" / "model.h5") == describe(theirs)


def test_two_files_of_different_networks_are_refused_before_anything_is_written(
    theirs, records_root, tmp_path, capsys
):
    save_weights(build_model("cascade", (32, 32), features=[[4], [4]]), tmp_path / "other.h5")
    files = [f"--pretrain.init={theirs}", f"--reptile.init={tmp_path / 'other.h5'}"]
    assert run("reproduce", records_root, tmp_path / "run", *files) == 2
    (line,) = errors(capsys)
    assert "`pretrain.init`" in line and "`reptile.init`" in line and "hold different networks" in line
    assert not (tmp_path / "run").exists()


def test_features_that_the_user_gives_and_the_file_has_not_are_refused_with_the_table(
    theirs, records_root, tmp_path, capsys
):
    options = [f"--finetune.init={theirs}", "--model.features=[[4,8],[4,4,4]]"]
    assert run("finetune", records_root, tmp_path, *options) == 2
    shown = capsys.readouterr().err
    assert "not weights of this network" in shown
    assert re.search(r"vxm_dense_unet_enc_conv_1_0 +3x3x4x8 8 +3x3x4x4 4", shown)
    assert not (tmp_path / "finetune" / "model.h5").exists()
