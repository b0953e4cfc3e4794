"""From label maps on disk to the table of an evaluation."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from tests.conftest import texture
from tfmetareg.cli import main
from tfmetareg.evaluation.overlap import label_scores
from tfrecords_builder.__main__ import main as build

SHAPE = (48, 64)
SPACING = (0.5, 0.25)
# From (column, row) to RAS: as seen on a screen, and mirrored from left to right.
UPRIGHT = np.diag([-SPACING[1], -SPACING[0], 1, 1])
MIRRORED = UPRIGHT @ [[-1, 0, 0, SHAPE[1] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def label_map(top: int, left: int, *numbers: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    labels[top : top + 12, left : left + 15] = numbers[0]
    labels[top + 14 : top + 24, left + 8 : left + 28] = numbers[1]
    return labels


def save(path, pixels: np.ndarray, mirrored: bool = False) -> str:
    stored = pixels[:, ::-1] if mirrored else pixels
    nibabel.save(nibabel.Nifti1Image(stored.T.copy(), MIRRORED if mirrored else UPRIGHT), path)
    return path.name


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two pairs with labels, the moving image of the second stored mirrored, and one pair without."""
    root = tmp_path_factory.mktemp("labels")
    folder = root / "pairs"
    folder.mkdir()
    rows = ["moving,fixed,split,moving_labels,fixed_labels"]
    for number in range(3):
        image = texture(np.random.default_rng(number), 3.0, 64)[:48].astype(np.float32)
        mirrored = number == 1
        names = [
            save(folder / f"m{number}.nii.gz", np.roll(image, 2, 0), mirrored),
            save(folder / f"f{number}.nii.gz", image),
            "test",
        ]
        if number < 2:
            names.append(save(folder / f"ml{number}.nii.gz", label_map(10, 20, -7, 70000), mirrored))
            names.append(save(folder / f"fl{number}.nii.gz", label_map(8, 22, -7, 70000)))
        rows.append(",".join([*names, "", ""][:5]))
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    records, workdir = root / "records", root / "run"
    arguments = ["build", "--source", "pairs", "--input", folder, "--output", records, "--role", "target"]
    options = ["--task", "mine", "--image-size", *SHAPE, "--workers", 1]
    assert build([*map(str, [*arguments, *options])]) == 0
    options = [f"--data.root={records}", f"--workdir={workdir}", "--evaluate.weights=none"]
    assert main(["--mode=evaluate", *options]) == 0
    return workdir


def test_labels_on_disk_are_measured_in_mm_under_their_own_numbers(results):
    result = json.loads((results / "results" / "not_deformed.json").read_text())
    moving, fixed = label_map(10, 20, -7, 70000), label_map(8, 22, -7, 70000)
    expected = {label: label_scores(moving == label, fixed == label, SPACING) for label in (-7, 70000)}
    assert set(result["labels"]) == {"-7", "70000"}
    for label, scores in expected.items():
        found = result["labels"][str(label)]
        assert (found["pairs"], found["lost"]) == (2, 0)
        for name, value in scores._asdict().items():
            assert found[name]["mean"] == pytest.approx(value, rel=1e-5), (label, name)
            assert found[name]["std"] == pytest.approx(0, abs=1e-9)  # Mirrored or not.
    assert result["dice"]["mean"] == pytest.approx(np.mean([one.dice for one in expected.values()]))
    with open(results / "results" / "not_deformed.csv", newline="") as stream:
        rows = {row["key"]: row for row in csv.DictReader(stream)}
    bare = rows["m2.nii.gz:f2.nii.gz"]
    assert bare["dice"] == bare["hd95_mm"] == bare["labels_lost"] == bare["label_-7_dice"] == ""
    assert float(rows["m1.nii.gz:f1.nii.gz"]["label_70000_hd95_mm"]) == pytest.approx(
        expected[70000].hd95_mm, rel=1e-5
    )


def test_the_report_shows_them(results):
    page = (results / "report.html").read_text()
    for text in ("HD95 (mm)", "ASSD (mm)", "70000", "Outlines are labels"):
        assert text in page
    assert (results / "figures" / "dice.png").is_file()
    with np.load(results / "results" / "not_deformed.examples.npz") as arrays:
        maps = {name: arrays[name] for name in arrays if name.endswith("_labels_0")}
        assert {name.split("_")[0] for name in maps} == {"moving", "fixed", "warped"}
        assert all(set(np.unique(each)) == {-7, 0, 70000} for each in maps.values())
