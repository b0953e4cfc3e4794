from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.tfrecords_builder.conftest import error_lines
from tfmetareg.data.schema import Manifest, decode_pair
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.types import ImagePair
from tfrecords_builder.build import build
from tfrecords_builder.sources.base import SourceTask

SIZE = ["--image-size", 32, 32]


def read(output, task, split):
    """Pairs of a split, in the order of its shards."""
    shards = Manifest.read(output).task(task).splits[split].shards
    files = [str(output / shard.file) for shard in shards]
    return [decode_pair(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]


def test_pairs_from_folder_to_records(pairs_folder, run, tmp_path):
    root, output = pairs_folder.table(), tmp_path / "records"
    status, out, err = run(
        "build", "--source", "pairs", "--input", root, "--output", output, "--modality", "OCTA", *SIZE
    )
    assert (status, error_lines(err)) == (0, [])
    assert "task `input` (source): 4 train, 2 test pairs" in out
    manifest = Manifest.read(output)
    assert manifest.image_shape == (32, 32)
    assert manifest.preprocessing["intensity"] == "equalize"
    task = manifest.task("input")
    assert (task.role, task.modality) == ("source", "OCTA")
    assert {name: (s.pairs, s.subjects) for name, s in task.splits.items()} == {
        "train": (4, 2),
        "test": (2, 1),
    }
    pairs = read(output, "input", "train") + read(output, "input", "test")
    assert sorted(pair.key for pair in pairs) == [f"m{n}.png:f{n}.png" for n in range(6)]
    assert all(pair.moving.shape == (32, 32) and pair.moving.max() == 255 for pair in pairs)


def test_same_input_and_seed_give_the_same_bytes(pairs_folder, run, tmp_path, listing):
    root = pairs_folder.table()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("build", "--source", "pairs", "--input", root, "--output", tmp_path / name, "--seed", seed, *SIZE)
    assert listing(tmp_path / "a") == listing(tmp_path / "b") != listing(tmp_path / "c")


def test_options_reach_the_records(pairs_folder, run, tmp_path):
    root, output = pairs_folder.table(), tmp_path / "records"
    status, _, _ = run(
        "build", "--source", "pairs", "--input", root, "--output", output, "--task", "eyes",
        "--role", "target", "--shards", 1, "--test-fraction", 0.6,
        "--intensity", "clahe", "--percentiles", 1, 99, "--fit", "crop", "--align", "rigid",
        "--colour", "luminance", *SIZE,
    )  # fmt: skip
    assert status == 0
    manifest = Manifest.read(output)
    assert Preprocessing.from_description(manifest.image_shape, manifest.preprocessing) == Preprocessing(
        (32, 32), "crop", "clahe", (1, 99), align="rigid", colour="luminance"
    )
    assert manifest.names("target") == ["eyes"]
    splits = manifest.task("eyes").splits
    assert {name: (s.pairs, len(s.shards)) for name, s in splits.items()} == {
        "finetune": (2, 1),
        "test": (4, 1),
    }


def test_a_subject_of_two_tasks_is_in_one_split(pairs_folder, run, tmp_path):
    """Tasks a and b of four eyes each, two of them in both."""
    pairs_folder.columns.append("task")
    pairs_folder.rows = [
        [f"m{eye}.png", f"f{eye}.png", f"eye{eye}", task]
        for task, eyes in (("a", range(4)), ("b", range(2, 6)))
        for eye in eyes
    ]
    root = pairs_folder.table()
    for seed in range(4):
        output = tmp_path / str(seed)
        options = ["--test-fraction", 0.4, "--seed", seed, *SIZE]
        assert run("build", "--source", "pairs", "--input", root, "--output", output, *options)[0] == 0
        test, train = (
            {pair.subject for task in "ab" for pair in read(output, task, name)} for name in ("test", "train")
        )
        assert test
        assert not test & train


def test_default_size_is_the_papers(pairs_folder, run, tmp_path):
    pairs_folder.rows = pairs_folder.rows[:1]
    status, out, _ = run(
        "build", "--source", "pairs", "--input", pairs_folder.table(), "--output", tmp_path / "r"
    )
    assert status == 0
    assert Manifest.read(tmp_path / "r").image_shape == (400, 400)
    assert "single subject, so nothing is held out" in out
    assert list(Manifest.read(tmp_path / "r").task("input").splits) == ["train"]


def test_a_second_build_adds_and_the_third_is_refused(pairs_folder, run, tmp_path, listing):
    root, output = pairs_folder.table(), tmp_path / "records"
    unpaired = [
        "build",
        "--source",
        "unpaired",
        "--input",
        root,
        "--output",
        output,
        "--task",
        "singles",
        *SIZE,
    ]
    assert run("build", "--source", "pairs", "--input", root, "--output", output, *SIZE)[0] == 0
    assert run(*unpaired)[0] == 0
    assert [task.name for task in Manifest.read(output).tasks] == ["input", "singles"]
    before = listing(output)
    status, _, err = run(*unpaired)
    assert (status, len(error_lines(err))) == (2, 1)
    assert "`singles` is there already" in err
    assert listing(output) == before
    assert run(*unpaired, "--overwrite", "--seed", 5)[0] == 0
    assert listing(output) != before
    assert run("inspect", output)[0] == 0
    assert run(*unpaired, "--overwrite")[0] == 0
    assert listing(output) == before


def breakages():
    """What a user can get wrong: how to break the folder or the command, and what the lines must say."""

    def rows(change):
        def apply(folder):
            change(folder)
            folder.table()

        return apply

    def set_split(folder):
        folder.columns.append("split")
        for row, split in zip(folder.rows, ["train", "test", "train", "train", "val", "val"]):
            row.append(split)

    return {
        "no folder": (lambda folder: None, ["--input", "nowhere"], ["nowhere: no such folder"]),
        "no table": (lambda folder: (folder.root / "pairs.csv").unlink(), [], ["pairs.csv: no such file"]),
        "no rows": (rows(lambda folder: folder.rows.clear()), [], ["pairs.csv: no pairs"]),
        "image missing": (lambda folder: (folder.root / "m3.png").unlink(), [], ["m3.png: no such file"]),
        "two broken": (
            lambda folder: [folder.text(name, "x") for name in ("m1.png", "f4.png")],
            [],
            ["m1.png: unreadable image", "f4.png: unreadable image"],
        ),
        "duplicate": (rows(lambda folder: folder.rows.append(folder.rows[0])), [], ["line 8: the same pair"]),
        "splits": (
            rows(set_split),
            [],
            [
                "subject eye0 is in two splits, test and train",
                "m4.png:f4.png and 1 more: split of a source task",
            ],
        ),
        "task name": (lambda folder: None, ["--task", "a/b"], ["task name `a/b`"]),
        "output is a file": (lambda folder: None, ["--output", "input/pairs.csv"], ["is a file"]),
    }


@pytest.mark.parametrize("name", breakages())
def test_mistakes_are_told_in_lines_and_leave_nothing(
    pairs_folder, run, tmp_path, listing, monkeypatch, name
):
    change, arguments, expected = breakages()[name]
    monkeypatch.chdir(tmp_path)
    pairs_folder.table()
    change(pairs_folder)
    before = listing(tmp_path)
    status, out, err = run(
        "build", "--source", "pairs", "--input", "input", "--output", "new/records", *SIZE, *arguments
    )
    assert status == 2
    lines = error_lines(err)
    assert len(lines) == len(expected)
    for text in expected:
        assert sum(line.startswith("error: ") and text in line for line in lines) == 1
    assert listing(tmp_path) == before
    if "output" not in name:
        status, _, told = run("validate", "--source", "pairs", "--input", "input", *SIZE, *arguments)
        assert (status, error_lines(told)) == (2, lines)


def test_a_broken_input_leaves_existing_records(pairs_folder, run, tmp_path, listing):
    root, output = pairs_folder.table(), tmp_path / "records"
    command = ["build", "--source", "pairs", "--input", root, "--output", output, *SIZE]
    assert run(*command)[0] == 0
    before = listing(output)
    pairs_folder.text("f5.png", "x")
    assert run(*command, "--overwrite")[0] == 2
    assert listing(output) == before


def test_validate_writes_nothing(pairs_folder, run, tmp_path, listing):
    root = pairs_folder.table()
    before = listing(tmp_path)
    status, out, err = run("validate", "--source", "pairs", "--input", root, *SIZE)
    assert (status, error_lines(err)) == (0, [])
    assert "4 train, 2 test pairs, no problems" in out
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required"),
        (["fetch"], "invalid choice"),
        (["build", "--source", "pears", "--output", "x"], "invalid choice: 'pears'"),
        (["build", "--source", "pairs", "--input", "x"], "--output"),
        (["build", "--source", "pairs", "--output", "x"], "`--input` is missing"),
        (
            ["build", "--source", "pairs", "--input", ".", "--output", "x", "--noise", "1"],
            "unrecognized arguments: --noise",
        ),
        (
            ["build", "--source", "pairs", "--input", ".", "--output", "x", "--shards", "0"],
            "must be a whole number of at least 1 and at most 99999, got `0`",
        ),
        (
            ["build", "--source", "pairs", "--input", ".", "--output", "x", "--image-size", "4"],
            "expected 2 arguments",
        ),
        (["build", "--source", "unpaired", "--input", ".", "--output", "x", "--noise", "nan"], "got `nan`"),
        (["build", "--source"], "expected one argument"),
    ],
)
def test_a_wrong_command_line_is_one_line(run, arguments, text):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert len(error_lines(err)) == 1
    assert err.startswith("error: ")
    assert text in err


def test_help_shows_the_options_of_the_source(run):
    assert "--noise" in run("build", "--source", "unpaired", "--help")[1]
    assert "--noise" not in run("build", "--source", "pairs", "--help")[1]


def test_a_real_process_shows_one_line_and_no_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tfrecords_builder",
        "validate",
        "--source",
        "pairs",
        "--input",
        str(tmp_path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path}/pairs.csv: no such file; put it there, or correct its name.\n"


def test_a_failure_of_ours_is_status_1_and_ctrl_c_130(run, monkeypatch, tmp_path):
    def fail(error):
        def tasks(request):
            raise error

        return tasks

    from tfrecords_builder import sources

    for error, expected in ((RuntimeError("ours"), 1), (KeyboardInterrupt(), 130)):
        monkeypatch.setitem(sources.SOURCES, "pairs", sources.Source(fail(error), "broken"))
        assert run("validate", "--source", "pairs", "--input", tmp_path)[0] == expected


def test_pairs_are_held_one_at_a_time(tmp_path):
    """A source that counts the pairs alive: the builder must drop each before it asks for the next few."""
    import weakref

    alive = []
    most = 0

    def pairs():
        nonlocal most
        for number in range(20):
            image = np.random.default_rng(number).random((16, 16))
            alive.append(weakref.ref(image))
            yield ImagePair(str(number), str(number), image, image.T.copy())
            del image
            most = max(most, sum(reference() is not None for reference in alive))

    build(
        [SourceTask("t", "source", "x", pairs())],
        tmp_path / "r",
        preprocessing=Preprocessing((16, 16)),
        say=str,
    )
    assert most <= 2


def test_duplicate_keys_of_any_source_are_refused(tmp_path):
    image = np.random.default_rng(0).random((16, 16))
    pairs = [ImagePair("same", "s", image, image)] * 2
    with pytest.raises(Exception, match="pair same is there twice"):
        build([SourceTask("t", "source", "x", pairs)], tmp_path / "r", preprocessing=Preprocessing((16, 16)))
    assert os.listdir(tmp_path) == []


def test_embedded_in_one_command(tmp_path, run):
    status, _, err = run(
        "build", "--source", "embedded", "--output", tmp_path / "r", "--image-size", 64, 64,
        "--source-pairs", 2, "--source-test-pairs", 1, "--target-finetune", 2, "--target-test", 1,
    )  # fmt: skip
    assert (status, error_lines(err)) == (0, [])
    manifest = Manifest.read(tmp_path / "r")
    assert manifest.image_shape == (64, 64)
    assert len(manifest.names("source")) == 5
    assert manifest.names("target") == ["octa_scp"]
    assert {name: split.pairs for name, split in manifest.task("octa_scp").splits.items()} == {
        "finetune": 2,
        "test": 1,
    }
    assert run("inspect", tmp_path / "r")[0] == 0


def test_the_real_target_domain(real_data, run, tmp_path):
    status, out, _ = run(
        "build", "--source", "pairs", "--input", real_data / "octa_scp", "--role", "target",
        "--output", tmp_path / "r", "--image-size", 160, 160,
    )  # fmt: skip
    assert status == 0
    assert "18 finetune, 12 test pairs" in out
    status, out, _ = run("inspect", tmp_path / "r")
    assert status == 0
    # README of the data: median 7.0 of 320 before registration over all pairs of the set.
    medians = [float(line.split()[-3]) for line in out.splitlines()[2:4]]
    assert all(2 < median < 6 for median in medians)
    assert "note: task `octa_scp`, split finetune: " in out


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path, listing, run):
    for workers in (1, 2):
        status, out, _ = run(
            "build", "--source", "embedded", "--output", tmp_path / str(workers), "--image-size", 32, 32,
            "--source-pairs", 10, "--source-test-pairs", 2, "--target-finetune", 10, "--target-test", 4,
            "--workers", workers,
        )  # fmt: skip
        assert status == 0
    assert len(Manifest.read(tmp_path / "1").tasks) == 6
    assert listing(tmp_path / "1") == listing(tmp_path / "2")
    assert re.search(r"2: 74 pairs in [\d.]+ s, [\d.]+ pairs/s\.", out)
