"""Inputs whose tables were written on another system than the one that the images came from."""

from __future__ import annotations

import json
import unicodedata

import nibabel
import numpy as np
import pytest

from tests.unit.tfrecords_builder.dicom_files import write_series
from tests.unit.tfrecords_builder.test_decathlon import Folder
from tfmetareg.data.schema import Manifest

BUILD = ["--image-size", 32, 32, "--workers", 1, "--test-fraction", 0.4, "--output"]
NAMES = ["Müller", "Çelik", "Ågren"]
FORMS = [("NFC", "NFD"), ("NFD", "NFC")]


def spelled(text: str, form: str) -> str:
    return unicodedata.normalize(form, text)


def shards(listing, records) -> dict[str, bytes]:
    return {name: content for name, content in listing(records).items() if "tfrecord" in name}


def write_pairs(folder, there: str, written: str, separator: str = "/") -> None:
    """Pairs of images and of slices, with landmarks, in a subfolder; the table has another form."""
    below = folder.root / spelled("Säule", there)
    below.mkdir()
    folder.columns = ["moving", "fixed", "moving_landmarks", "fixed_landmarks"]
    folder.rows = []
    for number, name in enumerate(NAMES):
        stored = spelled(name, there)
        for part in "mf":
            folder.image(f"{below.name}/{stored}-{part}.png", 2 * number + (part == "f"))
        (below / f"{stored}.csv").write_text("sep=;\nx;y\n10;11\n30;20\n")
        volume = np.random.default_rng(number).random((24, 26, 4)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), below / f"{stored}.nii.gz")
        cell = separator.join([spelled("Säule", written), spelled(name, written)])
        folder.rows.append([f"{cell}-m.png", f"{cell}-f.png", f"{cell}.csv", f"{cell}.csv"])
        folder.rows.append([f"{cell}.nii.gz#1", f"{cell}.nii.gz#2", "", ""])
    folder.table()


@pytest.mark.parametrize("separator", ["/", "\\"])
@pytest.mark.parametrize(("there", "written"), FORMS)
def test_pairs_with_names_in_another_form(pairs_folder, run, tmp_path, listing, there, written, separator):
    """The records are those of a table that spells the names as the disk does."""
    write_pairs(pairs_folder, there, written, separator)
    command = ["build", "--source", "pairs", "--input", pairs_folder.root, *BUILD]
    status, out, err = run(*command, tmp_path / "other")
    assert status == 0, err
    rows = [[spelled(cell, there).replace("\\", "/") for cell in row] for row in pairs_folder.rows]
    pairs_folder.rows = rows
    pairs_folder.table()
    assert run(*command, tmp_path / "same")[0] == 0
    assert shards(listing, tmp_path / "other") == shards(listing, tmp_path / "same") != {}
    assert sum(split.pairs for split in Manifest.read(tmp_path / "other").tasks[0].splits.values()) == 6


def test_one_person_in_two_forms_is_one_subject(pairs_folder, run, tmp_path):
    """Told apart, the two halves could be in two splits."""
    for number, row in enumerate(pairs_folder.rows):
        row[2] = spelled(NAMES[number // 2], FORMS[number % 2][0])
    command = ["build", "--source", "pairs", "--input", pairs_folder.table(), *BUILD, tmp_path / "r"]
    status, _, err = run(*command)
    assert status == 0, err
    splits = Manifest.read(tmp_path / "r").tasks[0].splits
    assert sum(split.subjects for split in splits.values()) == 3


@pytest.mark.parametrize("column", ["subject", "key"])
@pytest.mark.parametrize(("there", "written"), FORMS)
def test_a_splits_file_in_another_form(pairs_folder, run, tmp_path, column, there, written):
    (pairs_folder.root / "bilder").mkdir()
    lines = [f"{column},split"]
    for number, row in enumerate(pairs_folder.rows):
        row[:2] = [f"bilder/{spelled(f'Ü{name}', there)}" for name in row[:2]]
        for name in row[:2]:
            pairs_folder.image(name, number)
        row[2] = spelled(NAMES[number // 2], there)
        key = ":".join(row[:2]).replace("/", "\\")
        lines.append(
            f"{spelled(row[2] if column == 'subject' else key, written)},{'test' if number < 2 else 'train'}"
        )
    pairs_folder.text("splits.csv", "\n".join(dict.fromkeys(lines)))
    root = pairs_folder.table()
    options = ["--splits", root / "splits.csv", *BUILD, tmp_path / "r"]
    status, _, err = run("build", "--source", "pairs", "--input", root, *options)
    assert status == 0, err
    splits = Manifest.read(tmp_path / "r").tasks[0].splits
    assert {name: split.pairs for name, split in splits.items()} == {"train": 4, "test": 2}


def test_what_leads_out_of_the_folder_does_so_with_backslashes_too(pairs_folder, run):
    (pairs_folder.root.parent / "out.png").write_bytes((pairs_folder.root / "m0.png").read_bytes())
    pairs_folder.rows[0][0], pairs_folder.rows[1][0] = "..\\out.png", "C:\\data\\a.png"
    status, _, err = run("validate", "--source", "pairs", "--input", pairs_folder.table())
    assert status == 2
    assert "line 2: `../out.png` leads out of the folder" in err
    assert "line 3: `C:\\data\\a.png` leads out of the folder" in err


@pytest.mark.parametrize("separator", ["/", "\\"])
@pytest.mark.parametrize(("there", "written"), FORMS)
def test_decathlon_with_names_in_another_form(tmp_path, run, listing, there, written, separator):
    folder = Folder(tmp_path / "Task99_Brain")
    for number, entry in enumerate(folder.dataset["training"]):
        for kind, path in list(entry.items()):
            stored = path.replace(f"P{number}", spelled(NAMES[number], there))
            (folder.root / path).rename(folder.root / stored)
            entry[kind] = spelled(stored, written).replace("/", separator)
    text = json.dumps(folder.dataset, ensure_ascii=False)
    (folder.root / "dataset.json").write_text(text, encoding="utf-8")
    command = ["build", "--source", "decathlon", "--input", folder.root, *BUILD]
    status, _, err = run(*command, tmp_path / "other")
    assert (status, err.count("error")) == (0, 0), err
    (folder.root / "dataset.json").write_text(spelled(text, there).replace("\\\\", "/"), encoding="utf-8")
    assert run(*command, tmp_path / "same")[0] == 0
    assert shards(listing, tmp_path / "other") == shards(listing, tmp_path / "same") != {}


@pytest.mark.parametrize(("there", "written"), FORMS)
def test_the_input_folder_and_the_description_of_a_series(tmp_path, run, there, written):
    folder = tmp_path / spelled("Schädel", there)
    utf8 = {"SpecificCharacterSet": "ISO_IR 192"}
    write_series(folder / "a", 3, SeriesDescription=spelled("Schädel T1", there), **utf8)
    write_series(folder / "b", 3, SeriesDescription="T2", SeriesInstanceUID="1.2.4")
    options = ["--series", spelled("schädel T1", written), "--task", "head"]
    named = folder.with_name(spelled(folder.name, written))
    status, out, err = run("validate", "--source", "dicom", "--input", named, *options)
    assert (status, "2 train pairs" in out) == (0, True), err


@pytest.mark.parametrize(("there", "written"), FORMS)
def test_label_maps_that_are_named_like_their_images(pairs_folder, run, there, written):
    root, folder = pairs_folder.root, pairs_folder.root / spelled("Maße", there)
    for file in root.glob("*.png"):
        file.unlink()
    folder.mkdir()
    for number, name in enumerate(NAMES):
        pairs_folder.image(f"{spelled(name, there)}.png", number)
        np.save(folder / f"{spelled(name, written)}.npy", np.eye(40, 48, dtype=np.uint8))
    options = ["--labels", spelled(folder.name, written), "--workers", 1]
    status, out, err = run("validate", "--source", "unpaired", "--input", root, *options)
    assert (status, "pairs, no problems" in out) == (0, True), err


@pytest.mark.parametrize(("there", "written"), FORMS)
def test_labels_of_a_table(pairs_folder, run, there, written):
    pairs_folder.columns += ["moving_labels", "fixed_labels"]
    np.save(pairs_folder.root / spelled("Lücke.npy", there), np.eye(40, 48, dtype=np.uint8))
    for row in pairs_folder.rows:
        row += [spelled("Lücke.npy", written)] * 2
    options = ["--input", pairs_folder.table(), "--workers", 1]
    status, out, err = run("validate", "--source", "pairs", *options)
    assert (status, "pairs, no problems" in out) == (0, True), err
