"""Work directories and records of version 0.1.0 are still evaluated, registered with and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfmetareg.cli import main
from tfmetareg.command_line import parse_command
from tfmetareg.errors import UserError
from tfmetareg.imaging.field_files import read_field

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "revision_129a493"
OPTIONS = [
    "--model.features=[[4,4],[4,4,4]]",
    "--model.precision=float32",
    "--pretrain.steps=20",
    "--reptile.meta_steps=3",
    "--reptile.inner_steps=2",
    "--finetune.epochs=2",
]


@pytest.fixture
def workdir(tmp_path):
    shutil.copytree(OLD / "workdir", tmp_path / "workdir")
    return tmp_path / "workdir"


def run(mode: str, workdir: Path, *options: str) -> int:
    return main(
        [f"--mode={mode}", f"--workdir={workdir}", f"--data.root={OLD / 'records'}", *OPTIONS, *options]
    )


@pytest.mark.parametrize("stage", ["pretrain", "reptile", "finetune"])
def test_a_finished_stage_is_recognised(workdir, capsys, stage):
    before = (workdir / stage / "model.h5").read_bytes()
    assert run(stage, workdir) == 0
    assert f"{stage}: finished already" in capsys.readouterr().err
    assert (workdir / stage / "model.h5").read_bytes() == before


def test_a_stage_of_other_options_is_still_told_apart(workdir, capsys):
    assert run("finetune", workdir, "--finetune.learning_rate=0.001") == 2
    assert "finetune.learning_rate" in capsys.readouterr().err


def test_weights_are_evaluated_to_the_same_numbers(workdir):
    before = json.loads((workdir / "results" / "finetune.json").read_text())
    assert run("evaluate", workdir) == 0
    after = json.loads((workdir / "results" / "finetune.json").read_text())
    for result in (before, after):  # What is measured anew in every run.
        del result["seconds_per_pair"]
    new = {"labels", "assd_px", "assd_mm", "hd95_px", "hd95_mm", "unaligned"}
    assert after.keys() == before.keys() | new
    for name, value in before.items():
        assert after[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, dict) else value), name


def test_a_pair_is_registered_to_the_same_field(workdir):
    images = [f"--register.moving={OLD / 'moving.png'}", f"--register.fixed={OLD / 'fixed.png'}"]
    assert (
        run("register", workdir, *images, f"--register.output={workdir / 'new'}", "--register.figures=false")
        == 0
    )
    before = read_field(OLD / "workdir" / "register" / "displacement.npz")
    after = read_field(workdir / "new" / "moving-to-fixed" / "displacement.npz")
    np.testing.assert_allclose(after.displacement, before.displacement, atol=1e-4)
    assert (after.fixed, after.moving) == (before.fixed, before.moving)


def test_weights_are_exported(workdir):
    assert run("export", workdir) == 0
    assert (workdir / "export" / "tfmetareg" / "1" / "saved_model.pb").is_file()


def test_its_configuration_is_read_in_todays_keys(workdir):
    """`config.yaml` holds keys that are gone; what they said is in `data.embedded`."""
    command = parse_command(["--mode=pretrain", f"--config={workdir / 'config.yaml'}"])
    assert command.config.pretrain.steps == 20 and command.config.data.root == "records"
    assert command.config.data.embedded == ""
    text = (workdir / "config.yaml").read_text()
    changed = text.replace("embedded_size: 128", "embedded_size: 96").replace(
        "align: none", "align: affine", 1
    )
    (workdir / "config.yaml").write_text(changed)
    command = parse_command(["--mode=pretrain", "--config", str(workdir / "config.yaml"), "--seed=3"])
    assert command.config.data.embedded == "--image-size 96 96 --align affine" and command.config.seed == 3
    (workdir / "config.yaml").write_text(text.replace("embedded_share: 1.0", "embedded_share: 0.1"))
    with pytest.raises(UserError, match="`data.embedded_share` is now one of the options in `data.embedded`"):
        parse_command(["--mode=pretrain", f"--config={workdir / 'config.yaml'}"])
