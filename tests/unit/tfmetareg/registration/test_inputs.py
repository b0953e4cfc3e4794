"""What the results of a pair are called."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.unit.tfrecords_builder.dicom_files import write
from tfmetareg.registration.inputs import find_pairs


def names(folder: Path, *pairs: tuple[str, str]) -> list[str]:
    rows = "".join(f"{moving},{fixed}\n" for moving, fixed in pairs)
    (folder / "pairs.csv").write_text(f"moving,fixed\n{rows}")
    return [pair.name for pair in find_pairs(pairs=str(folder))]


def test_no_two_pairs_have_the_same_name(tmp_path):
    pairs = ("a/x.png", "f.png"), ("b/x.png", "f.png"), ("x.png", "f_2.png"), ("c/x.png", "f.png")
    assert names(tmp_path, *pairs) == ["x-to-f", "x-to-f_3", "x-to-f_2", "x-to-f_4"]


def test_long_names_are_shortened_and_told_apart(tmp_path):
    found = names(tmp_path, ("ä" * 120 + ".png", "b.png"), ("ä" * 121 + ".png", "b.png"))
    assert len({*found}) == 2
    assert max(len(f".{name}.12345678.tmp".encode()) for name in found) < 255


def touched(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(("one", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_images_of_two_folders_pair_up_whatever_unicode_form_their_names_have(tmp_path, one, other):
    """A folder from a Mac and one from Linux; the results are called alike in both cases."""
    below = unicodedata.normalize(one, "Säule")
    moving = tmp_path / below / unicodedata.normalize(one, "Müller.png")
    fixed = tmp_path / "b" / unicodedata.normalize(other, "Müller.tif")
    points = tmp_path / "points" / unicodedata.normalize(one, "Müller.csv")
    labels = tmp_path / "labels" / unicodedata.normalize(other, "Müller.nii.gz")
    touched(moving, fixed, points, labels)
    written = str(tmp_path / unicodedata.normalize(other, below))
    folders = {"points": str(points.parent), "labels": str(labels.parent)}
    (pair,) = find_pairs(moving=written, fixed=str(tmp_path / "b"), **folders)
    assert pair.row["moving_labels"] == str(labels)
    assert (pair.name, pair.moving, pair.fixed, pair.points) == ("Müller", moving, fixed, points)
    (pair,) = find_pairs(moving=f"{written}/{unicodedata.normalize(other, moving.name)}", fixed=str(fixed))
    assert (pair.name, pair.moving) == ("Müller-to-Müller", moving)


def test_a_table_may_name_files_anywhere(tmp_path):
    """Unlike the builder's: nothing is kept of the folder that the table lies in."""
    (tmp_path / "tables").mkdir()
    touched(tmp_path / "m.png", tmp_path / "f.png")
    pairs = ("../m.png", f"{tmp_path}/f.png"), ("..\\f.png", f"{tmp_path}/m.png")
    assert names(tmp_path / "tables", *pairs) == ["m-to-f", "f-to-m"]


def test_a_table_from_windows(tmp_path):
    touched(tmp_path / "images" / "m.png", tmp_path / "images" / "f.png")
    (tmp_path / "pairs.csv").write_text("sep=;\nmoving;fixed\nimages\\m.png;images\\f.png\n")
    (pair,) = find_pairs(pairs=str(tmp_path))
    assert (pair.moving, pair.fixed) == (tmp_path / "images/m.png", tmp_path / "images/f.png")
    assert pair.where == f"{tmp_path / 'pairs.csv'}, line 3"


def test_dicom_files_of_two_folders_pair_up(tmp_path):
    for folder in ("m", "f"):
        write(tmp_path / folder / "IM0001")
        write(tmp_path / folder / "b.dcm")
    found = find_pairs(moving=str(tmp_path / "m"), fixed=str(tmp_path / "f"))
    assert [pair.name for pair in found] == ["IM0001", "b"]


def test_a_frame_of_a_file(tmp_path):
    write(tmp_path / "a.dcm")
    (pair,) = find_pairs(moving=f"{tmp_path}/a.dcm#0", fixed=f"{tmp_path}/a.dcm")
    assert pair.read("green").images.moving.shape == (20, 24)
    assert len(pair.digests()["moving"]["sha256"]) == 64
