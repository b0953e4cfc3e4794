from __future__ import annotations

import dataclasses
import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

from tfmetareg.data.schema import Manifest, Split, Task, decode_pair
from tfmetareg.files import sha256
from tfmetareg.types import ImagePair
from tfrecords_builder import contact_sheet
from tfrecords_builder.inspection import SplitSummary, landmark_distances, notes, table


@pytest.fixture
def records(tmp_path, pairs_folder, run):
    """Two tasks, `plain` without and `marked` with landmarks one pixel of 40 apart; 80x96 records."""
    output = tmp_path / "records"
    common = ["--output", output, "--image-size", 80, 96, "--shards", 2]
    assert (
        run("build", "--source", "pairs", "--input", pairs_folder.table(), "--task", "plain", *common)[0] == 0
    )
    pairs_folder.columns += ["moving_landmarks", "fixed_landmarks"]
    pairs_folder.text("m.csv", "x,y\n10,10\n20,20\n")
    pairs_folder.text("f.csv", "x,y\n10,11\n21,20\n")
    for row in pairs_folder.rows:
        row += ["m.csv", "f.csv"]
    arguments = ["--input", pairs_folder.table(), "--task", "marked", "--role", "target", *common]
    assert run("build", "--source", "pairs", *arguments)[0] == 0
    return output


def test_the_table_tells_what_is_there(records, run):
    status, out, err = run("inspect", records)
    assert (status, err) == (0, "")
    assert "images of 80 x 96, every shard verified" in out
    cells = [re.split(r"  +", line) for line in out.splitlines()[2:6]]
    assert cells[0][:7] == ["plain", "source", "unspecified", "train", "4", "2", "2"]
    assert cells[1][:7] == ["plain", "source", "unspecified", "test", "2", "1", "2"]
    assert cells[0][9:] == ["0.0", "-", "-", "-"]
    # Both images grow twofold, and the landmarks' distance of one pixel with them.
    assert cells[2][3:7] + cells[2][9:] == ["finetune", "4", "2", "2", "2.0", "2.00", "2.00", "2.00"]
    assert "note:" not in out


def test_intensities_are_those_of_all_pixels(records, run):
    """Against the records read by themselves."""
    row = run("inspect", records)[1].splitlines()[2]
    pixels = np.concatenate(
        [
            np.stack([pair.moving, pair.fixed]).ravel()
            for number in range(2)
            for pair in map(
                decode_pair,
                tf.data.TFRecordDataset(
                    str(records / f"plain-train.tfrecord-0000{number}-of-00002")
                ).as_numpy_iterator(),
            )
        ]
    )
    expected = f"{pixels.mean() / 255:.3f} ± {pixels.std() / 255:.3f}  {(pixels == 0).mean():.0%}"
    assert re.sub("  +", "  ", row).count(expected) == 1


def summary(*distances: float) -> SplitSummary:
    found = SplitSummary(Task("t", "target", "x", {"test": Split(len(distances), 1, ())}), "test")
    for distance in distances:
        found.add(summary_pair(distance), 0)
    return found


def manifest(width: int, align: str = "none") -> Manifest:
    return Manifest((width, width), {"align": align}, (summary().task,))


def summary_pair(distance: float) -> ImagePair:
    image, points = np.zeros((100, 100), np.uint8), np.float32([[10, 10], [20, 20]])
    return ImagePair("pair", "s", image, image, points + np.float32([0, distance]), points)


def test_displacements_against_the_networks_reach():
    """By hand: of 0, 1, ..., 10 px, those above 4 % of 100 px are six."""
    found = summary(*range(11))
    assert found.row()[-6:] == ["5.00", "9.00", "10.00"] * 2
    assert "aligned" not in table([found])
    (line,) = notes([found, summary(1, 4)], manifest(100))
    assert "task `t`, split test: 6 of 11 pairs start more than 4.0 px apart (4% of the width)" in line
    assert notes([found], manifest(300)) == []


def test_what_an_alignment_leaves_counts_against_the_reach():
    """Moving points lie 9 px further on than fixed ones; the alignment says 7 of them."""
    pair = dataclasses.replace(summary_pair(9), alignment=np.float32([[1, 0, 0], [0, 1, 7]]))
    assert landmark_distances(pair) == (9, 2)
    found = summary()
    found.add(pair, 0)
    assert notes([found], manifest(100, "affine")) == []
    header, row = table([found, summary(5)]).splitlines()[:2]
    assert header.count("max") == 2 and "aligned px: median" in header
    assert row.split()[-6:] == ["9.00"] * 3 + ["2.00"] * 3
    assert notes([found], manifest(40, "affine"))


def test_the_contact_sheet_shows_what_the_alignment_does():
    pair = dataclasses.replace(summary_pair(9), alignment=np.float32([[1, 0, 0], [0, 1, 7]]))
    bright = np.zeros((100, 100), np.uint8)
    bright[:, 57:] = 200
    axes = Figure().subplots(1, 4)
    contact_sheet._draw_pair(axes, dataclasses.replace(pair, moving=bright, key=f"{'m' * 40}.png:f.png"))
    # Names stand there whole, in lines.
    assert [axis.get_xlabel() for axis in axes[:2]] == [f"{'m' * 28}\n{'m' * 12}.png", "f.png"]
    for axis, column, told in ((axes[2], 57, "9.0 px"), (axes[3], 50, "2.0 px")):
        assert axis.get_xlabel() == told
        assert np.argmax(axis.images[0].get_array()[0, :, 0]) == column
        crosses = axis.lines[0].get_xydata()
        np.testing.assert_allclose(crosses, [[column - 38, 10], [column - 28, 20]])


def test_names_on_the_contact_sheet_are_no_formulas(tmp_path):
    pair = dataclasses.replace(summary_pair(9), key=r"$\frac{$.png:$x^{$.png")
    found = SplitSummary(Task(r"task_$\alpha{", "target", "OCTA", {}), "test", examples=[pair])
    contact_sheet.draw_contact_sheet([found], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_the_contact_sheet_has_a_panel_for_the_alignment_only_where_there_is_one(tmp_path):
    """Panels are squares beside each other: more of them, and the sheet is lower."""
    heights = []
    for shift in (0, 7):
        found = summary()
        found.add(dataclasses.replace(summary_pair(9), alignment=np.float32([[1, 0, 0], [0, 1, shift]])), 1)
        contact_sheet.draw_contact_sheet([found], tmp_path / f"{shift}.png")
        with Image.open(tmp_path / f"{shift}.png") as sheet:
            heights.append(sheet.height)
    assert heights == [255, 205]


def test_of_many_splits_the_contact_sheet_shows_an_even_choice(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(contact_sheet, "MOST_SPLITS", 3)
    monkeypatch.setattr(contact_sheet, "_draw_sheet", lambda chosen: drawn.append(chosen) or Figure())
    splits = [SplitSummary(Task(f"task{number}", "source", "OCTA", {}), "test") for number in range(7)]
    for count in (3, 4, 7):
        contact_sheet.draw_contact_sheet(splits[:count], tmp_path / "sheet.png")
    names = [[summary.task.name[-1] for summary in chosen] for chosen in drawn]
    assert names == [["0", "1", "2"], ["0", "2"], ["0", "3", "6"]]


def test_the_contact_sheet_outlines_every_label():
    labels = np.zeros((2, 100, 100), np.uint8)
    labels[:, 20:30, 40:60] = 1
    labels[1, 60:70, 10:20] = 7
    axes = Figure().subplots(1, 3)
    marked = dataclasses.replace(summary_pair(9), moving_labels=labels[0], fixed_labels=labels[1])
    contact_sheet._draw_pair(axes, marked)
    assert [len(axis.collections) for axis in axes] == [1, 2, 0]
    (outline,) = axes[0].collections
    box = outline.get_paths()[0].get_extents()
    np.testing.assert_allclose([*box.min, *box.max], [39.5, 19.5, 59.5, 29.5])


def test_records_that_are_aligned_are_not_to_be_aligned():
    """The remedy for pairs beyond reach is what has not been done yet."""
    for align in ("none", "rigid"):
        line, *_ = notes([summary(9)], manifest(100, align))
        assert line.endswith("; build with `--align affine`.")
    line, *_ = notes([summary(9)], manifest(100, "affine"))
    assert "though built with `--align affine`; leave them out" in line


def test_pairs_that_the_alignment_found_nothing_for_are_counted_and_named():
    shift = np.float32([[1, 0, 0], [0, 1, 1]])
    found = summary()
    for key in ("a", "b", "c"):
        alignment = shift if key == "b" else np.eye(2, 3, dtype=np.float32)
        found.add(dataclasses.replace(summary_pair(1), key=key, alignment=alignment), 0)
    assert notes([found], manifest(100, "affine")) == [
        "note: task `t`, split test: alignment found nothing better than leaving the images as they are in "
        "2 of 3 pairs: a, c."
    ]
    assert notes([found], manifest(100)) == []


def test_tasks_that_are_aligned_differently_are_told():
    other = Task("u", "source", "x", {}, {"align": "affine"})
    both = dataclasses.replace(manifest(100), tasks=(summary().task, other))
    assert notes([summary(1)], both) == [
        "note: the tasks were built with different `--align` (none: `t`; affine: `u`)."
    ]
    far = dataclasses.replace(summary(9), task=other)
    assert "though built with `--align affine`" in notes([far], both)[1]


def test_inspect_knows_how_the_records_were_built(records, run, monkeypatch):
    monkeypatch.setattr("tfrecords_builder.inspection.NETWORK_REACH", 0.01)  # the points are 2 of 96 px apart
    manifest = json.loads((records / "manifest.json").read_text())
    for align, told in (("none", "; build with `--align affine`"), ("affine", " though built with `--align")):
        manifest["preprocessing"]["align"] = align
        (records / "manifest.json").write_text(json.dumps(manifest))
        out = run("inspect", records)[1]
        # Their alignment is the identity, which is told only where there should be another.
        unaligned = out.count("alignment found nothing")
        assert (out.count("note:") - unaligned, out.count(told)) == (2, 2)
        assert (unaligned > 0) == (align != "none")


def damage(records, kind):
    """Damages the second training shard of `plain`; gives what the message must say."""
    path = records / "plain-train.tfrecord-00001-of-00002"
    content = path.read_bytes()
    manifest = json.loads((records / "manifest.json").read_text())
    entry = manifest["tasks"][0]["splits"]["train"]["shards"][1]
    if kind == "missing":
        path.unlink()
        return "missing"
    if kind == "empty":
        path.write_bytes(b"")
        return "0 bytes, the manifest says"
    if kind == "cut at a record":
        path.write_bytes(content[: len(content) // 2])
        return "bytes, the manifest says"
    if kind == "flipped bit":
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        return "SHA-256 differs"
    if kind == "wrong from the start":
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        entry["sha256"] = sha256(path)
        expected = "record 0 is unreadable"
    elif kind == "wrong count":
        entry["records"] += 1
        expected = "2 records, the manifest says 3"
    elif kind == "not an example":
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(b"x")
        entry.update(sha256=sha256(path), bytes=path.stat().st_size)
        expected = "record 0 is unreadable"
    (records / "manifest.json").write_text(json.dumps(manifest))
    return expected


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "empty",
        "cut at a record",
        "flipped bit",
        "wrong from the start",
        "wrong count",
        "not an example",
    ],
)
def test_a_damaged_shard_is_named(records, run, kind):
    expected = damage(records, kind)
    status, out, err = run("inspect", records)
    assert status == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "plain-train.tfrecord-00001-of-00002" in err
    assert expected in err
    assert out == ""


def test_all_damaged_shards_are_named(records, run):
    for name in ("plain-test.tfrecord-00000-of-00002", "marked-finetune.tfrecord-00001-of-00002"):
        os.remove(records / name)
    status, _, err = run("inspect", records)
    assert status == 2
    assert len(err.splitlines()) == 2
    assert "plain-test" in err
    assert "marked-finetune" in err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda manifest: manifest.update(image_shape=[8, 8]), "the manifest says (8, 8)"),
        (
            lambda manifest: manifest["tasks"][0]["splits"]["train"].update(pairs=9),
            "4 pairs in its shards, 9 in the",
        ),
        (
            lambda manifest: manifest["tasks"][0]["splits"].update(
                test=manifest["tasks"][0]["splits"]["train"]
            ),
            "is in train and in test",
        ),
    ],
)
def test_a_manifest_that_does_not_fit(records, run, change, expected):
    manifest = json.loads((records / "manifest.json").read_text())
    change(manifest)
    (records / "manifest.json").write_text(json.dumps(manifest))
    status, _, err = run("inspect", records)
    assert status == 2
    assert expected in err


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": 9}', '{"schema": 1}'])
def test_no_readable_manifest(tmp_path, run, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    status, _, err = run("inspect", tmp_path)
    assert status == 2
    assert "manifest.json" in err
    assert len(err.splitlines()) == 1


def test_no_folder(tmp_path, run):
    status, _, err = run("inspect", tmp_path / "nowhere")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "no such folder" in err


def test_contact_sheet(records, run, tmp_path):
    status, out, _ = run("inspect", records, "--figure", tmp_path / "figures" / "sheet.png")
    assert status == 0
    assert "contact sheet" in out
    with Image.open(tmp_path / "figures" / "sheet.png") as sheet:
        assert sheet.width == 1200  # Two pairs of three panels a row.
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert (0, 255, 255) in colours
    assert os.listdir(tmp_path / "figures") == ["sheet.png"]


def test_a_figure_of_unknown_format(records, run, tmp_path):
    status, _, err = run("inspect", records, "--figure", tmp_path / "sheet.doc")
    assert status == 2
    assert "must end in .png" in err
