"""Cutting volumes into adjacent slices."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "slice_volumes.py"


def save(path: Path, voxels: np.ndarray, affine=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(
        nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), path
    )


def run(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, options)], capture_output=True, text=True)


def table(folder: Path) -> list[dict]:
    with open(folder / "pairs.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def volume():
    """(x, y, z): bright in front (large y) on the right (large x); slice 2 is empty."""
    voxels = np.zeros((6, 8, 5))
    voxels[3:, 5:, :] = 100 + np.arange(5)
    voxels[:, :, 2] = 0
    return voxels


def test_slices_show_the_front_above_and_the_right_side_on_the_left(tmp_path, volume):
    save(tmp_path / "in" / "p1.nii.gz", volume)
    flipped = np.diag([-1.0, 1, 1, 1])  # The same head, stored from right to left.
    save(tmp_path / "in" / "p2.nii.gz", volume[::-1], flipped)
    done = run("--volumes", tmp_path / "in" / "*.nii.gz", "--task", "t", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for subject in ("p1", "p2"):
        image = np.load(tmp_path / "out" / f"{subject}-001.npy")
        assert image.shape == (8, 6)
        assert (image[:3, :3] == 101).all()
        assert (image[3:] == 0).all() and (image[:, 3:] == 0).all()


def test_neighbours_make_pairs_and_empty_slices_do_not(tmp_path, volume):
    save(tmp_path / "p1.nii.gz", volume, np.diag([0.5, 0.25, 2, 1]))
    run("--volumes", tmp_path / "*.nii.gz", "--task", "t", "--output", tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [(row["moving"], row["fixed"]) for row in rows] == [
        ("p1-001.npy", "p1-000.npy"),
        ("p1-004.npy", "p1-003.npy"),
    ]
    assert {row["subject"] for row in rows} == {"p1"}
    assert {row["fixed_spacing"] for row in rows} == {"0.25 0.5"}


def test_a_channel_of_a_4d_volume_and_files_named_alike(tmp_path, volume):
    for subject in "ab":
        save(tmp_path / subject / "mri.nii.gz", np.stack([np.zeros_like(volume), volume], axis=-1))
    options = ("--volumes", tmp_path / "*" / "mri.nii.gz", "--task", "t", "--channel", 1)
    run(*options, "--output", tmp_path / "out")
    assert {row["subject"] for row in table(tmp_path / "out")} == {"a", "b"}
    refused = run(*options[:-1], 2, "--output", tmp_path / "other")
    assert refused.returncode == 2
    assert "must be 3D, or 4D with a channel 2" in refused.stderr


@pytest.mark.parametrize("break_it", ["junk", "none", "exists", "gap"])
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, volume, break_it):
    save(tmp_path / "in" / "p1.nii.gz", volume)
    out, options = tmp_path / "out", []
    if break_it == "junk":
        (tmp_path / "in" / "p2.nii.gz").write_bytes(b"no image")
    elif break_it == "none":
        (tmp_path / "in" / "p1.nii.gz").unlink()
    elif break_it == "exists":
        out.mkdir()
    else:
        options = ["--gap", "0"]
    done = run("--volumes", tmp_path / "in" / "*.nii.gz", "--task", "t", "--output", out, *options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error:" in line]) == 1
    assert not out.exists() or not list(out.iterdir())
    assert not list(tmp_path.glob(".*"))
