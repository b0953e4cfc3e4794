"""What is remembered beside weights of the preprocessing they were trained on."""

from __future__ import annotations

import json

import pytest

from tfmetareg.cli import main
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.preprocessing_file import (
    find_preprocessing,
    preprocessing_differences,
    write_preprocessing,
)


def test_a_stage_leaves_the_preprocessing_of_its_records_beside_its_weights(records, records_root, tmp_path):
    stage = ["--mode", "pretrain", "--data.root", str(records_root), "--workdir", str(tmp_path)]
    assert main([*stage, "--pretrain.steps=1", "--model.features=[[4],[4]]"]) == 0
    found = find_preprocessing(tmp_path / "pretrain" / "model.h5")
    assert found == Preprocessing.from_description(
        records.manifest.image_shape, records.manifest.preprocessing
    )
    assert found.image_size == records.manifest.image_shape


@pytest.mark.parametrize("change", [{}, {"intensity": "clahe", "fit": "pad", "align": "affine"}])
def test_what_is_written_is_read_back(tmp_path, change):
    preprocessing = Preprocessing((48, 32), **change)
    write_preprocessing(tmp_path / "model.h5", (48, 32), preprocessing.describe())
    assert find_preprocessing(tmp_path / "model.h5") == preprocessing


def test_weights_alone_get_the_defaults_and_a_line_says_so(tmp_path, capsys):
    assert find_preprocessing(tmp_path / "model.h5") == Preprocessing()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path) in said and "400x400" in said


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"image_shape": [8, 8]}', '{"image_shape": 8, "x'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "preprocessing.json").write_text(content)
    with pytest.raises(UserError, match=r"preprocessing\.json: damaged \("):
        find_preprocessing(tmp_path / "model.h5")


def test_a_file_of_another_version_is_named(tmp_path):
    told = {**Preprocessing().describe(), "version": -1}
    (tmp_path / "preprocessing.json").write_text(json.dumps({"image_shape": [8, 8], "preprocessing": told}))
    with pytest.raises(UserError, match=r"preprocessing\.json: preprocessing is of version -1"):
        find_preprocessing(tmp_path / "model.h5")


MADE = Preprocessing((48, 32)).describe()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, []),
        ({"intensity": "clahe"}, ["intensity"]),
        ({"intensity": "none"}, ["intensity"]),
        ({"percentiles": (1, 99)}, ["percentiles"]),
        ({"align": "affine"}, ["align"]),
        ({"fit": "crop", "spacing": 0.5}, ["fit", "spacing_mm"]),
        ({"image_size": (32, 48)}, ["image size"]),
        ({"colour": None}, []),
        ({"colour": "luminance"}, ["colour"]),
    ],
)
def test_what_was_prepared_otherwise_is_named(tmp_path, change, names):
    """Both ways round; what follows from another intensity is not named again."""
    other = Preprocessing(**{"image_size": (48, 32), **change})
    write_preprocessing(tmp_path / "model.h5", (48, 32), MADE)
    found = preprocessing_differences(tmp_path / "model.h5", other.image_size, other.describe())
    assert sorted(found) == sorted(names)
    write_preprocessing(tmp_path / "model.h5", other.image_size, other.describe())
    turned = preprocessing_differences(tmp_path / "model.h5", (48, 32), MADE)
    assert {name: [pair["records"], pair["weights"]] for name, pair in turned.items()} == {
        name: [pair["weights"], pair["records"]] for name, pair in found.items()
    }


def test_without_a_description_nothing_is_compared(tmp_path):
    assert preprocessing_differences(tmp_path / "model.h5", (48, 32), MADE) is None
    (tmp_path / "preprocessing.json").write_text("{}")
    with pytest.raises(UserError, match=r"preprocessing\.json: damaged \("):
        preprocessing_differences(tmp_path / "model.h5", (48, 32), MADE)
