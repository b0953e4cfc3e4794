"""The identity of a build: what changes it, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tfmetareg
import tfrecords_builder
from tfrecords_builder.identity import build_identity
from tfrecords_builder.sources.base import LazyPairs, SourceTask

REPOSITORY = Path(__file__).resolve().parents[3]


def no_pairs():
    yield from ()


def some_task(name: str = "octa", count: int = 1) -> SourceTask:
    return SourceTask(name, "source", "OCTA", LazyPairs([no_pairs] * count))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A copy of both packages that stands for the installed ones."""
    for package in (tfmetareg, tfrecords_builder):
        name = package.__name__
        ignored = shutil.ignore_patterns("__pycache__", "*.h5", "*.npz")
        shutil.copytree(REPOSITORY / name, tmp_path / "code" / name, ignore=ignored)
        monkeypatch.setattr(package, "__file__", str(tmp_path / "code" / name / "__init__.py"))
    return tmp_path / "code"


@pytest.mark.parametrize(
    "file",
    [
        "tfmetareg/training/loop.py",
        "tfmetareg/modes/reptile.py",
        "tfmetareg/data/records.py",
        "tfmetareg/files.py",
    ],
)
def test_code_that_makes_no_records_leaves_the_identity(packages, tmp_path, file):
    before = build_identity([some_task()], [], tmp_path / "records")
    path = packages / file
    path.write_text(path.read_text() + "\n# Changed.\n")
    assert build_identity([some_task()], [], tmp_path / "records") == before


@pytest.mark.parametrize(
    "file",
    [
        "tfmetareg/imaging/intensity.py",
        "tfmetareg/geometry/align.py",
        "tfmetareg/geometry/refinement.py",
        "tfmetareg/data/schema.py",
        "tfmetareg/types.py",
        "tfrecords_builder/writer.py",
        "tfrecords_builder/phantoms/brain.py",
    ],
)
def test_code_that_makes_records_changes_the_identity(packages, tmp_path, file):
    before = build_identity([some_task()], [], tmp_path / "records")
    path = packages / file
    path.write_text(path.read_text() + "\n# Changed.\n")
    assert build_identity([some_task()], [], tmp_path / "records") != before


def test_tasks_inputs_and_settings_change_the_identity(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.png").write_bytes(b"a")

    def identity(task=None, inputs=(tmp_path / "input",), settings=("x",)):
        return build_identity([task or some_task()], inputs, tmp_path / "input" / "records", *settings)

    first = identity()
    assert identity() == first
    others = [
        identity(some_task("fundus")),
        identity(some_task(count=2)),
        identity(inputs=()),
        identity(settings=()),
    ]
    (tmp_path / "input" / "records").mkdir()
    (tmp_path / "input" / "records" / "shard").write_bytes(b"output")
    assert identity() == first
    (tmp_path / "input" / "a.png").write_bytes(b"ab")
    others.append(identity())
    assert len({first, *others}) == 6
