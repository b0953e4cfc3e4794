from __future__ import annotations

import concurrent.futures
import os
from dataclasses import replace

import pytest

from tfmetareg.data.schema import MANIFEST, Manifest, Shard, Split, Task, origin, shard_name
from tfmetareg.errors import UserError
from tfmetareg.files import sha256
from tfrecords_builder import publish as module
from tfrecords_builder.publish import finish_published, publish, staging_folder
from tfrecords_builder.workers import WorkerKilledError


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
    with staging_folder(output, (options.get("name", "octa"),)) as staging:
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
    new = Manifest((16, 16), {"version": 2, "fit": "pad"}, (Task("b", "source", "x", {}),))
    with pytest.raises(UserError, match="fit None there, pad here; version 1 there, 2 here"):
        module.manifest_with(tmp_path / "r", new, overwrite=False)


def test_the_only_task_may_change_its_shape(tmp_path):
    put(tmp_path / "r", ["a"])
    put(tmp_path / "r", ["b"], shape=(32, 32), overwrite=True)
    assert Manifest.read(tmp_path / "r").image_shape == (32, 32)


class Killed(BaseException):
    """Stands for SIGKILL at a known step; real ones are in test_restart."""


def killed_at(step, monkeypatch, staging, output, manifest):
    """Publishes, and stops before the given file operation; whether it got to the end."""
    done = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal done
            if done == step:
                raise Killed
            done += 1
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(module.Path, "unlink", counted(module.Path.unlink))
        try:
            publish(staging, output, manifest, overwrite=True)
        except Killed:
            return False
    return True


@pytest.mark.parametrize("contents", [["x", "y"], ["x"], ["a", "b"], ["a", "y", "z"]])
def test_killed_at_any_step_the_records_are_whole_and_can_be_made_again(
    tmp_path, monkeypatch, listing, contents
):
    """Stops a replacement before each of its file operations in turn."""
    expected = tmp_path / "expected"
    put(expected, ["keep"], name="kept")
    put(expected, contents)
    for step in range(20):
        output = tmp_path / f"{len(contents)}-{step}"
        put(output, ["keep"], name="kept")
        put(output, ["a", "b"])
        with staging_folder(output) as staging:
            finished = killed_at(step, monkeypatch, staging, output, stage(staging, contents))
        assert readable(output) in (["kept", "octa"], ["kept"])
        put(output, contents, overwrite=True)
        assert readable(output) == ["kept", "octa"]
        assert listing(output) == listing(expected)
        if finished:
            assert step > 2
            return
    pytest.fail("never finished")


TASKS = ("octa",)


def interrupt(output, identity, error=KeyboardInterrupt, tasks=TASKS):
    """A build that is stopped after it has left a file; its staging folder."""
    with pytest.raises(error), staging_folder(output, tasks, identity) as staging:
        (staging / "work").write_text(identity or "")
        raise error
    return staging


@pytest.mark.parametrize("error", [KeyboardInterrupt, WorkerKilledError])
def test_the_same_build_finds_what_a_stopped_one_left(tmp_path, error):
    staging = interrupt(tmp_path / "r", "one", error)
    with staging_folder(tmp_path / "r", TASKS, "one") as again:
        assert again == staging
        assert (again / "work").read_text() == "one"
    assert os.listdir(tmp_path / "r") == []


def test_another_build_never_finds_it(tmp_path):
    old, other = interrupt(tmp_path / "r", "one"), interrupt(tmp_path / "r", "x", tasks=("other",))
    with staging_folder(tmp_path / "r", TASKS, "two") as staging:
        assert os.listdir(staging) == []
        assert not old.exists()
    assert os.listdir(tmp_path / "r") == [other.name]


def test_an_error_and_a_build_without_identity_leave_nothing(tmp_path):
    interrupt(tmp_path / "r", "one", UserError)
    interrupt(tmp_path / "r", None)
    assert os.listdir(tmp_path) == []


def test_the_same_tasks_are_not_built_twice_at_a_time(tmp_path):
    with staging_folder(tmp_path / "r", TASKS, "one") as staging:
        (staging / "work").write_text("mine")
        for identity in ("one", "two", None):
            with (
                pytest.raises(UserError, match=rf"process {os.getpid()} on .* builds `octa` in it since .*;"),
                staging_folder(tmp_path / "r", TASKS, identity),
            ):
                pass
        with staging_folder(tmp_path / "r", ("other",), "one"):
            assert (staging / "work").read_text() == "mine"
    assert os.listdir(tmp_path) == []


def test_builds_of_different_tasks_publish_one_after_the_other(tmp_path):
    """Each takes a moment over reading the manifest, in which the others must not write theirs."""

    def build(name: str) -> None:
        put(tmp_path / "r", [name], name=name)

    names = [f"task{number}" for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(build, names))
    assert sorted(readable(tmp_path / "r")) == names


def test_a_build_killed_after_it_had_published_is_finished_by_the_next(tmp_path, listing, monkeypatch):
    output = tmp_path / "r"
    put(output, ["a", "b"])
    monkeypatch.setattr(module, "_sweep", interrupted)
    with pytest.raises(KeyboardInterrupt), staging_folder(output, TASKS, "one") as staging:
        publish(staging, output, stage(staging, ["x"]), overwrite=True)
    monkeypatch.undo()
    assert len(os.listdir(output)) == 5  # the manifest, three shards, the staging folder
    assert not finish_published(output, TASKS, "two")
    assert finish_published(output, TASKS, "one")
    assert not finish_published(output, TASKS, "one")
    assert sorted(os.listdir(output)) == sorted([MANIFEST, shard_name("octa", "train", 0, 1)])


def test_a_build_killed_before_it_had_noted_the_origin_notes_it_when_it_is_finished(tmp_path, monkeypatch):
    output = tmp_path / "r"
    monkeypatch.setattr(module, "note_origin", interrupted)
    with pytest.raises(KeyboardInterrupt), staging_folder(output, TASKS, "one") as staging:
        publish(staging, output, stage(staging, ["x"]), overwrite=True, origin=tmp_path)
    monkeypatch.undo()
    assert finish_published(output, TASKS, "one", tmp_path)
    assert origin(output, "octa") == output / ".."
    assert len(os.listdir(output)) == 3  # the manifest, a shard, and where the images came from


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_build_killed_before_it_had_published_is_not_taken_for_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_replace_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path / "r", TASKS, "one") as staging:
        publish(staging, tmp_path / "r", stage(staging, ["x"]), overwrite=False)
    assert not finish_published(tmp_path / "r", TASKS, "one")
    assert staging.exists()


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


def test_a_killed_build_with_another_alignment_is_finished_by_the_next(tmp_path, monkeypatch):
    def aligned(name: str, align: str) -> None:
        with staging_folder(tmp_path / "r", (name,), "one") as staging:
            new = replace(stage(staging, [name], name=name), preprocessing={"version": 1, "align": align})
            publish(staging, tmp_path / "r", new, overwrite=False)

    aligned("one", "none")
    monkeypatch.setattr(module, "_sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        aligned("octa", "rigid")
    monkeypatch.undo()
    assert finish_published(tmp_path / "r", TASKS, "one")
    manifest = Manifest.read(tmp_path / "r")
    assert [manifest.align_of(name) for name in ("one", "octa")] == ["none", "rigid"]
