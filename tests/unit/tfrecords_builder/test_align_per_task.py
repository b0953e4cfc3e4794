"""Tasks of one folder of records, each with an alignment of its own."""

from __future__ import annotations

import json

import pytest

from tests.unit.tfmetareg.conftest import SIDE, turned_pair
from tfmetareg.data.records import Records, examples, pair_stream
from tfmetareg.data.schema import Manifest
from tfmetareg.data.tasks import mixed_pairs
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfrecords_builder.build import build
from tfrecords_builder.sources.base import SourceTask

PAIRS = [turned_pair(seed, "train") for seed in range(3)]


def add(root, name: str, align: str, **options) -> Manifest:
    preprocessing = Preprocessing((SIDE, SIDE), intensity=options.pop("intensity", "none"), align=align)
    task = SourceTask(name, "source", "vessels", PAIRS)
    return build([task], root, preprocessing=preprocessing, shards=1, say=lambda line: None, **options)


def content(root) -> dict:
    return json.loads((root / "manifest.json").read_text())


def test_each_task_has_the_alignment_that_it_was_built_with(tmp_path, listing):
    """The records are those of folders of their own, byte for byte."""
    for name, align in (("plain", "none"), ("turned", "affine")):
        add(tmp_path / "both", name, align)
        add(tmp_path / name, name, align)
    both = listing(tmp_path / "both")
    for name in ("plain", "turned"):
        shards = {file: data for file, data in listing(tmp_path / name).items() if file != "manifest.json"}
        assert shards.items() <= both.items()
    manifest = Manifest.read(tmp_path / "both")
    assert [manifest.align_of(name) for name in ("plain", "turned")] == ["none", "affine"]
    assert manifest.preprocessing_of("turned") == Manifest.read(tmp_path / "turned").preprocessing
    assert manifest.preprocessing == Manifest.read(tmp_path / "plain").preprocessing


def test_only_a_task_that_differs_says_so_in_the_manifest(tmp_path):
    for name, align in (("a", "affine"), ("b", "none"), ("c", "affine")):
        add(tmp_path, name, align)
    assert content(tmp_path)["preprocessing"]["align"] == "affine"
    own = {task["name"]: task.get("preprocessing") for task in content(tmp_path)["tasks"]}
    assert own == {"a": None, "b": {"align": "none"}, "c": None}
    assert Manifest.read(tmp_path).to_json() == (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize("align", ["none", "rigid", "affine"])
def test_a_task_is_replaced_by_one_with_another_alignment(tmp_path, align):
    add(tmp_path, "a", "none")
    add(tmp_path, "b", "affine")
    manifest = add(tmp_path, "b", align, overwrite=True)
    assert [manifest.align_of(name) for name in "ab"] == ["none", align]
    assert Manifest.read(tmp_path) == manifest


def test_reading_applies_the_alignment_of_the_task(tmp_path):
    for name, align in (("plain", "none"), ("turned", "affine")):
        add(tmp_path, name, align)
    records = Records(tmp_path)
    assert "aligned" not in examples(records, "plain", "train").element_spec
    for example in examples(records, "turned", "train"):
        assert not (example["aligned"].numpy() == example["moving"].numpy()).all()
    raw, aligned = (
        {pair.moving.numpy().tobytes() for pair in pair_stream(records, name, "train", seed=0).take(3)}
        for name in ("plain", "turned")
    )
    assert len(raw) == len(aligned) == 3 and not raw & aligned
    mixed = mixed_pairs(records, ["plain", "turned"], batch_size=1, seed=0).take(24)
    assert {pair.moving.numpy()[0].tobytes() for pair in mixed} == raw | aligned


def test_whatever_else_differs_is_refused(tmp_path):
    add(tmp_path, "a", "none")
    with pytest.raises(UserError, match="built otherwise .*; intensity none there, eq") as caught:
        add(tmp_path, "b", "affine", intensity="equalize")
    assert "align" not in str(caught.value).partition("manifest.json")[2]
    assert [task["name"] for task in content(tmp_path)["tasks"]] == ["a"]


def test_what_new_images_need_for_weights_of_several_tasks(tmp_path):
    """The strongest alignment of those that they were trained on: what is aligned lies within their reach."""
    for name, align in (("a", "none"), ("b", "affine"), ("c", "rigid")):
        add(tmp_path, name, align)
    manifest = Manifest.read(tmp_path)
    needed = {names: manifest.preprocessing_of(*names)["align"] for names in ("a", "c", "ac", "cb", "abc")}
    assert needed == {"a": "none", "c": "rigid", "ac": "rigid", "cb": "affine", "abc": "affine"}
