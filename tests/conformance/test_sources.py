"""The contract that every source of the builder keeps; a new one needs a small input in `INPUTS`."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from tests.unit.tfrecords_builder.conftest import PairsFolder, blobs, call, error_lines
from tests.unit.tfrecords_builder.dicom_files import write_series
from tests.unit.tfrecords_builder.fire_files import write_fire
from tfmetareg.data.schema import Manifest
from tfmetareg.imaging.preprocessing import check_pair
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.base import LazyPairs, Request
from tfrecords_builder.splits import HELD_OUT_SPLIT, LEARNING_SPLIT

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class SourceInput:
    """A small good input.

    Attributes:
        path: for `--input`, None for a source that needs none.
        flags: further ones for the command line.
        options: the same for a `Request`.
        last: a file that only the last pairs need.
    """

    path: Optional[Path]
    flags: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    last: Optional[Path] = None


def embedded(root: Path) -> SourceInput:
    counts = {"source_pairs": 1, "source_test_pairs": 1, "target_finetune": 1, "target_test": 1}
    flags = [text for name, count in counts.items() for text in (f"--{name.replace('_', '-')}", str(count))]
    return SourceInput(None, tuple(flags), counts)


def synthetic(root: Path) -> SourceInput:
    counts = {"tasks": 2, "pairs": 1, "test_pairs": 1}
    flags = [text for name, count in counts.items() for text in (f"--{name.replace('_', '-')}", str(count))]
    return SourceInput(None, tuple(flags), counts)


def pairs(root: Path) -> SourceInput:
    folder = PairsFolder(root)
    folder.columns += ["moving_landmarks", "fixed_landmarks", "moving_spacing", "fixed_spacing"]
    folder.text("points.csv", "x,y\n3,5\n30,20\n")
    for number in range(3):
        images = (folder.image(f"{name}{number}.png", 2 * number + (name == "f")) for name in "mf")
        folder.rows.append([*images, f"eye{number}", "points.csv", "points.csv", "0.5", "0.5x0.4"])
    return SourceInput(folder.table(), last=root / "f2.png")


def unpaired(root: Path) -> SourceInput:
    for name in "abc":
        Image.fromarray(blobs(ord(name))).save(root / f"{name}.png")
    return SourceInput(root, last=root / "c.png")


def decathlon(root: Path) -> SourceInput:
    entries = []
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for name in ("P_01", "P_02"):
        voxels = ndimage.gaussian_filter(np.random.default_rng(len(entries)).normal(size=(20, 24, 4, 2)), 1)
        labels = np.uint8(voxels[..., 0] > 0)
        for folder, data in (("imagesTr", np.float32(voxels)), ("labelsTr", labels)):
            nibabel.save(nibabel.Nifti1Image(data, np.diag([-1, 1, 2, 1])), root / folder / f"{name}.nii.gz")
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    content = {
        "modality": {"0": "T1w", "1": "T2w"},
        "labels": {"0": "none", "1": "lesion"},
        "training": entries,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return SourceInput(root, last=root / "imagesTr" / "P_02.nii.gz")


def dicom(root: Path) -> SourceInput:
    for name in "ab":
        write_series(root / name, 4, SeriesInstanceUID=f"1.{ord(name)}", PatientID=name)
    return SourceInput(root, ("--series", "all"), {"series": ["all"]})


def fire(root: Path) -> SourceInput:
    return SourceInput(write_fire(root), last=root / "Images" / "S02_2.jpg")


INPUTS: dict[str, Callable[[Path], SourceInput]] = {
    make.__name__: make for make in (embedded, synthetic, pairs, unpaired, decathlon, dicom, fire)
}
READING = [name for name, source in SOURCES.items() if source.needs_input]


@pytest.fixture
def given(request: pytest.FixtureRequest, tmp_path: Path) -> SourceInput:
    """The input of the source that the test's `name` asks for."""
    root = tmp_path / "input"
    root.mkdir()
    return INPUTS[request.getfixturevalue("name")](root)


def request_for(given: SourceInput, role: str = "source") -> Request:
    return Request(given.path, None, role, (32, 32), 0, dict(given.options))


def contents(tasks) -> list[Any]:
    """Everything that the tasks deliver, comparable."""
    return [(task.name, task.role, task.modality, [arrays(pair) for pair in task.pairs]) for task in tasks]


def arrays(pair) -> list[Any]:
    values = (getattr(pair, field.name) for field in dataclasses.fields(pair))
    return [value.tobytes() if isinstance(value, np.ndarray) else value for value in values]


def input_flags(given: SourceInput) -> list[object]:
    return ["--image-size", 32, 32, *given.flags, *(["--input", given.path] if given.path else [])]


def test_every_source_is_held_to_the_contract():
    assert {*INPUTS} == {*SOURCES}


@pytest.mark.parametrize("name", SOURCES)
def test_help_tells_the_source_and_each_of_its_options(name, capsys):
    source = SOURCES[name]
    assert re.fullmatch(r"\S[^\n]*[^\s.]", source.summary)
    status, out, _ = call(capsys, "build", "--source", name, "--help")
    text = " ".join(out.split())
    assert status == 0
    assert f"{name}: {source.summary}" in text
    for option in source.options:
        assert re.fullmatch(r"--[a-z][a-z-]*", option.flag)
        assert option.flag in text
        assert "(default: " in option.settings["help"]
        assert "default" in option.settings


@pytest.mark.parametrize("name", SOURCES)
def test_pairs_are_sound(name, given):
    request = request_for(given)
    tasks = SOURCES[name].tasks(request)
    assert tasks
    assert len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        pairs = list(task.pairs)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", task.name)
        assert task.role in ("source", "target")
        assert task.modality.strip()
        assert len(pairs) >= 2
        assert len({pair.key for pair in pairs}) == len(pairs)
        assert operator.length_hint(task.pairs) in (0, len(pairs))  # 0: only reading tells
        for pair in pairs:
            check_sound(pair, task.role)
    assert not request.problems.lines


def check_sound(pair, role: str) -> None:
    check_pair(pair)
    assert pair.key.strip()
    assert pair.subject.strip()
    assert pair.split in (None, LEARNING_SPLIT[role], HELD_OUT_SPLIT)
    assert pair.moving.dtype == pair.fixed.dtype
    for points in (pair.moving_landmarks, pair.fixed_landmarks):
        assert points.dtype == np.float32
        assert points.shape == (len(pair.fixed_landmarks), 2)
    for spacing in (pair.moving_spacing, pair.fixed_spacing):
        assert spacing is None or (len(spacing) == 2 and min(spacing) > 0)
    assert (pair.moving_labels is None) == (pair.fixed_labels is None)
    for labels in (pair.moving_labels, pair.fixed_labels):
        assert labels is None or labels.dtype == np.uint8


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_input_gives_the_same_pairs(name, given):
    first, second = (contents(SOURCES[name].tasks(request_for(given))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", SOURCES)
def test_parts_travel_to_other_processes(name, given):
    for task in SOURCES[name].tasks(request_for(given)):
        assert isinstance(task.pairs, LazyPairs)
        assert len(task.pairs.partitions) > 1
        sent = [pair for part in task.pairs.partitions for pair in pickle.loads(pickle.dumps(part))()]
        assert [arrays(pair) for pair in sent] == [arrays(pair) for pair in task.pairs]


@pytest.mark.parametrize("name", READING)
def test_pairs_are_read_when_they_are_asked_for_and_past_a_broken_one(name, given):
    request = request_for(given)
    tasks = SOURCES[name].tasks(request)
    last = given.last or sorted(path for path in given.path.rglob("*") if path.is_file())[-1]
    whole = [len(list(task.pairs)) for task in tasks]
    last.write_bytes(b"broken")
    found = [len(list(task.pairs)) for task in tasks]
    assert all(0 < count < before for count, before in zip(found, whole))
    assert request.problems.lines
    assert all(str(last) in line for line in request.problems.lines)


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_wrong_input_is_named_in_one_line(name, kind, tmp_path, capsys):
    path = tmp_path / "there"
    {"missing": lambda: None, "file": lambda: path.write_text("x"), "empty": path.mkdir}[kind]()
    status, out, error = call(capsys, "validate", "--source", name, "--input", path)
    (line,) = error_lines(error)
    assert (status, out) == (2, "")
    assert line.startswith(f"error: {path}")
    assert ";" in line or line.count(": ") > 1  # what, and what to do


@pytest.mark.parametrize("name", READING)
def test_no_input_is_named_in_one_line(name, capsys):
    status, _, error = call(capsys, "validate", "--source", name)
    assert status == 2
    assert re.fullmatch(r"error: `--input` is missing; .*\n", error)


@pytest.mark.parametrize("name", SOURCES)
def test_validate_writes_nothing(name, given, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status, out, _ = call(capsys, "validate", "--source", name, *input_flags(given))
    assert status == 0
    assert out.count("no problems.") == len(SOURCES[name].tasks(request_for(given)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_built_can_be_inspected(name, given, tmp_path, capsys):
    records = tmp_path / "records"
    status, _, _ = call(capsys, "build", "--source", name, "--output", records, *input_flags(given))
    assert status == 0
    status, out, error = call(capsys, "inspect", records)
    assert (status, error_lines(error)) == (0, [])
    assert "every shard verified" in out
    tasks = SOURCES[name].tasks(request_for(given))
    built = {
        task.name: sum(split.pairs for split in task.splits.values()) for task in Manifest.read(records).tasks
    }
    assert built == {task.name: len(list(task.pairs)) for task in tasks}


@pytest.mark.parametrize("order", [["fire", "decathlon"], ["decathlon", "fire"]])
def test_a_source_without_colour_images_goes_with_any_colour(order, tmp_path, capsys):
    """And one that may read some only with its own."""
    commands = {}
    for name in ("fire", "decathlon", "unpaired"):
        (tmp_path / name).mkdir()
        given = INPUTS[name](tmp_path / name)
        commands[name] = ["--source", name, "--output", tmp_path / "records", *input_flags(given)]
    commands["fire"] += ["--colour", "luminance"]
    for name in order:
        status, _, error = call(capsys, "build", *commands[name])
        assert (status, error_lines(error)) == (0, [])
    assert Manifest.read(tmp_path / "records").preprocessing["colour"] == "luminance"
    status, _, error = call(capsys, "build", *commands["unpaired"])
    assert status == 2
    assert "its tasks were built otherwise (colour luminance there, green here)" in error
    assert call(capsys, "build", *commands["unpaired"], "--colour", "luminance")[0] == 0


def test_the_example_of_the_guide_is_a_source(tmp_path):
    """One new file beside the others, and the command line knows it."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (example,) = (block for block in blocks if "@source(" in block)
    shutil.copytree(REPOSITORY / "tfrecords_builder", tmp_path / "tfrecords_builder")
    (tmp_path / "tfrecords_builder" / "sources" / "stack.py").write_text(example)
    (tmp_path / "scans").mkdir()
    tifffile.imwrite(tmp_path / "scans" / "a.tif", np.stack([blobs(seed) for seed in range(3)]))
    done = subprocess.run(
        [sys.executable, "-m", "tfrecords_builder", "validate", "--source", "stack", "--input", "scans"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert "task `scans` (source): 2 train pairs, no problems." in done.stdout
