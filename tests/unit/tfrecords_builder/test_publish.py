from __future__ import annotations

import os

import pytest

from tfmetareg.errors import UserError
from tfmetareg.files import sha256
from tfmetareg.schema import MANIFEST, Manifest, Shard, Split, Task, shard_name
from tfrecords_builder import publish as module
from tfrecords_builder.publish import publish, staging_folder


def stage(folder, contents, *, shape=(16, 16), name="octa"):
    """Writes shards of these contents; gives their manifest."""
    shards = []
    for index, content in enumerate(contents):
        path = folder / shard_name(name, "train", index, len(contents))
        path.write_text(content)
        shards.append(Shard(path.name, 1, len(content), sha256(path)))
    return Manifest(
        shape, {"version": 1}, (Task(name, "source", "OCTA", {"train": Split(1, 1, tuple(shards))}),)
    )


def put(output, contents, **options):
    overwrite = options.pop("overwrite", False)
    with staging_folder(output) as staging:
        return publish(staging, output, stage(staging, contents, **options), overwrite=overwrite)


def readable(output):
    """Whether every file that the manifest names is there with that content; names of its tasks."""
    manifest = Manifest.read(output)
    for task in manifest.tasks:
        for split in task.splits.values():
            for shard in split.shards:
                assert sha256(output / shard.file) == shard.sha256
    return [task.name for task in manifest.tasks]


def test_tasks_are_added_in_order(tmp_path):
    put(tmp_path / "r", ["a"], name="one")
    merged = put(tmp_path / "r", ["b"], name="two")
    assert readable(tmp_path / "r") == ["one", "two"]
    assert Manifest.read(tmp_path / "r").to_json() == merged.to_json()


def test_a_task_is_replaced_in_its_place_and_its_old_shards_go(tmp_path):
    put(tmp_path / "r", ["a", "b", "c"], name="one")
    put(tmp_path / "r", ["d"], name="two")
    put(tmp_path / "r", ["x"], name="one", overwrite=True)
    assert readable(tmp_path / "r") == ["one", "two"]
    assert sorted(os.listdir(tmp_path / "r")) == sorted(
        [MANIFEST, *(shard_name(n, "train", 0, 1) for n in ("one", "two"))]
    )


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, "task `octa` is there already; add `--overwrite`"),
        ({"name": "new", "shape": (32, 16)}, r"image_shape \[16, 16\] there, \[32, 16\] here"),
        ({"name": "new", "shape": (32, 16), "overwrite": True}, "image_shape"),
    ],
)
def test_refusals_change_nothing(tmp_path, listing, options, rule):
    put(tmp_path / "r", ["a"])
    before = listing(tmp_path)
    with pytest.raises(UserError, match=rule):
        put(tmp_path / "r", ["b"], **options)
    assert listing(tmp_path) == before


def test_other_preprocessing_is_named(tmp_path):
    put(tmp_path / "r", ["a"])
    new = Manifest((16, 16), {"version": 2, "colour": "green"}, (Task("b", "source", "x", {}),))
    with pytest.raises(UserError, match="colour None there, green here; version 1 there, 2 here"):
        module.manifest_with(tmp_path / "r", new, overwrite=False)


def test_the_only_task_may_change_its_shape(tmp_path):
    put(tmp_path / "r", ["a"])
    put(tmp_path / "r", ["b"], shape=(32, 32), overwrite=True)
    assert Manifest.read(tmp_path / "r").image_shape == (32, 32)


@pytest.mark.parametrize("contents", [["x", "y"], ["x"], ["a", "b"], ["a", "y", "z"]])
def test_killed_at_any_step_the_records_are_whole(tmp_path, monkeypatch, contents):
    """Stops a replacement before each of its file operations in turn."""
    for step in range(20):
        output = tmp_path / f"{len(contents)}-{step}"
        put(output, ["keep"], name="kept")
        put(output, ["a", "b"])
        done = 0

        class Killed(BaseException):
            pass

        def counted(function, step=step, killed=Killed):
            def call(*arguments, **options):
                nonlocal done
                if done == step:
                    raise killed
                done += 1
                return function(*arguments, **options)

            return call

        with monkeypatch.context() as patch, staging_folder(output) as staging:
            manifest = stage(staging, contents)
            patch.setattr(os, "replace", counted(os.replace))
            patch.setattr(module.Path, "unlink", counted(module.Path.unlink))
            try:
                publish(staging, output, manifest, overwrite=True)
                finished = True
            except Killed:
                finished = False
        assert readable(output) in (["kept", "octa"], ["kept"])
        if finished:
            assert step > 2
            return
    pytest.fail("never finished")


def test_an_output_that_cannot_be_written(tmp_path, listing):
    (tmp_path / "file").write_text("x")
    before = listing(tmp_path)
    for output in (tmp_path / "file", tmp_path / "file" / "records"):
        with pytest.raises(UserError, match="file"):
            put(output, ["a"])
    assert listing(tmp_path) == before


def test_a_failure_leaves_no_new_folders(tmp_path):
    with pytest.raises(RuntimeError), staging_folder(tmp_path / "a" / "b" / "records"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []
