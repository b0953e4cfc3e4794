"""`validate` of a set with one fault of each kind names them all in one run, a line each, and nothing sound.

To add a kind, add a function under `@fault`: it breaks a sound item of its own, which is called like the
function, and the decorator has what the line on it says.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Callable

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from tests.unit.tfrecords_builder.conftest import blobs, error_lines
from tests.unit.tfrecords_builder.dicom_files import write, write_series
from tests.unit.tfrecords_builder.test_decathlon import AFFINE, SHAPE, brain, turned

Break = Callable[[Any], None]
FAULTS: dict[str, dict[str, tuple[Break, str]]] = {"pairs": {}, "decathlon": {}, "dicom": {}}
VOLUME = np.random.default_rng(0).random((24, 26, 12)).astype(np.float32)


def fault(source: str, told: str) -> Callable[[Break], Break]:
    """Registers a kind of fault, and what the line on it says."""

    def register(change: Break) -> Break:
        assert change.__name__ not in FAULTS[source]
        FAULTS[source][change.__name__] = change, told
        return change

    return register


def cut(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


# `pairs`: a fault gets a sound pair with landmarks and changes its files or its cells.


class Pair:
    """A row of pairs.csv and its files: <name>-m.png, <name>-f.png and the landmarks of both."""

    def __init__(self, root: Path, name: str, seed: int):
        self.root = root
        self.moving, self.fixed = root / f"{name}-m.png", root / f"{name}-f.png"
        self.cells = {"moving": self.moving.name, "fixed": self.fixed.name, "subject": name}
        for part, path in (("moving", self.moving), ("fixed", self.fixed)):
            Image.fromarray(blobs(2 * seed + (part == "fixed"))).save(path)
            self.landmarks(part, "x,y\n10,11\n30,20\n")

    def landmarks(self, part: str, text: str) -> None:
        path = getattr(self, part).with_suffix(".csv")
        path.write_text(text)
        self.cells[f"{part}_landmarks"] = path.name

    def replace(self, array: np.ndarray, ending: str = ".npy") -> None:
        """Another moving image."""
        path = self.moving.with_suffix(ending)
        self.moving.unlink()
        if ending == ".npy":
            np.save(path, array)
        else:
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        self.cells["moving"] = path.name


@fault("pairs", "unreadable image")
def cut_short(pair):
    cut(pair.moving)


@fault("pairs", "unreadable image")
def empty_file(pair):
    pair.moving.write_bytes(b"")


@fault("pairs", "no such file; put it there")
def missing_image(pair):
    pair.moving.unlink()


@fault("pairs", "no such file, but there is `name_of_another_case-m.PNG`: case and spaces count")
def name_of_another_case(pair):
    pair.moving.rename(pair.moving.with_suffix(".PNG"))


@fault("pairs", "is a folder")
def folder_as_image(pair):
    pair.moving.unlink()
    pair.moving.mkdir()


@fault("pairs", "a link that leads nowhere")
def broken_link(pair):
    pair.moving.unlink()
    pair.moving.symlink_to("nowhere.png")


@fault("pairs", "unknown image format")
def unknown_format(pair):
    pair.cells["moving"] = pair.moving.rename(pair.moving.with_suffix(".doc")).name


@fault("pairs", "constant image")
def constant_image(pair):
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(pair.moving)


@fault("pairs", "at least 8 pixels")
def tiny_image(pair):
    Image.fromarray(blobs()[:4]).save(pair.moving)


@fault("pairs", "holds NaN or infinity")
def not_a_number(pair):
    pair.replace(np.where(np.eye(40, 48) > 0, np.nan, blobs()))


@fault("pairs", "must be real numbers")
def complex_numbers(pair):
    pair.replace(blobs() * 1j)


@fault("pairs", "must be one 2D image")
def volume_as_image(pair):
    pair.replace(VOLUME, ".nii")


@fault("pairs", "has no slice 99")
def slice_beyond_the_volume(pair):
    pair.replace(VOLUME, ".nii")
    pair.cells["moving"] += "#99"


@fault("pairs", "has 2 channels; name one")
def slice_without_its_channel(pair):
    pair.replace(np.stack([VOLUME] * 2, axis=-1), ".nii")
    pair.cells["moving"] += "#3"


@fault("pairs", "`fixed` is empty")
def empty_cell(pair):
    pair.cells["fixed"] = ""


@fault("pairs", "is both the moving and the fixed image")
def one_image_twice(pair):
    pair.cells["fixed"] = pair.cells["moving"]


@fault("pairs", "leads out of the folder")
def leads_out(pair):
    pair.cells["moving"] = os.path.join("..", pair.cells["moving"])


@fault("pairs", "leads out of the folder")
def absolute_path(pair):
    pair.cells["moving"] = str(pair.moving)


@fault("pairs", "cells where the header has")
def too_many_cells(pair):
    pair.cells["more"] = "cells,than,columns"


@fault("pairs", "landmarks for one image only")
def landmarks_of_one_image(pair):
    pair.cells["fixed_landmarks"] = ""


@fault("pairs", "a coordinate must be a finite number")
def landmark_that_is_no_number(pair):
    pair.landmarks("moving", "x,y\n10,eleven\n30,20\n")


@fault("pairs", "lies outside the image")
def landmark_outside(pair):
    pair.landmarks("moving", "x,y\n10,11\n300,20\n")


@fault("pairs", "1 landmarks, ")
def landmarks_of_another_number(pair):
    pair.landmarks("fixed", "x,y\n10,11\n")


@fault("pairs", "must be a header with")
def landmarks_without_a_header(pair):
    pair.landmarks("moving", "10,11\n30,20\n")


@fault("pairs", "no such file; put it there")
def landmarks_missing(pair):
    (pair.root / pair.cells["moving_landmarks"]).unlink()


@fault("pairs", "spacing must be a number above 0")
def spacing_of_nothing(pair):
    pair.cells["moving_spacing"] = "0"


# `decathlon`: a fault gets a sound patient, listed in dataset.json.


class Patient:
    """The files of a patient, and its entry in dataset.json."""

    def __init__(self, root: Path, name: str, seed: int):
        self.image, self.label = root / "imagesTr" / f"{name}.nii.gz", root / "labelsTr" / f"{name}.nii.gz"
        t1 = brain(seed)
        nibabel.save(turned(np.stack([t1, 1000 - t1], axis=-1), "RAS"), self.image)
        nibabel.save(turned(np.uint8(t1 > np.percentile(t1, 95)), "RAS"), self.label)
        self.entry = {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


@fault("decathlon", "unreadable NIfTI file")
def image_cut_short(patient):
    cut(patient.image)


@fault("decathlon", "not there; fetch")
def image_missing(patient):
    patient.image.unlink()


@fault("decathlon", "has 3 channels, dataset.json names 2")
def too_many_channels(patient):
    nibabel.save(turned(np.stack([brain(1)] * 3, axis=-1), "RAS"), patient.image)


@fault("decathlon", "channel 0 holds NaN or infinity")
def nan_in_the_image(patient):
    t1 = brain(1)
    holed = np.where(np.arange(SHAPE[0])[:, None, None] == 3, np.nan, t1).astype(np.float32)
    nibabel.save(turned(np.stack([holed, t1], axis=-1), "RAS"), patient.image)


@fault("decathlon", "does not tell its orientation")
def no_orientation(patient):
    nibabel.save(nibabel.Nifti1Image(np.stack([brain(1)] * 2, axis=-1), None), patient.image)
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), patient.label)


@fault("decathlon", "no pair of slices is left")
def empty_volume(patient):
    nibabel.save(turned(np.stack([np.zeros_like(brain(1)), brain(1)], axis=-1), "RAS"), patient.image)


@fault("decathlon", "unreadable NIfTI file")
def labels_cut_short(patient):
    cut(patient.label)


@fault("decathlon", "voxel size, orientation or origin differs")
def labels_on_another_grid(patient):
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), 2 * AFFINE), patient.label)


@fault("decathlon", "labels must be whole numbers")
def labels_with_fractions(patient):
    nibabel.save(turned(np.full(SHAPE, 0.5, np.float32), "RAS"), patient.label)


@fault("decathlon", "does not list")
def image_not_listed(patient):
    patient.entry = None


@fault("decathlon", "leads out of the folder")
def image_out_of_the_folder(patient):
    patient.image.unlink()
    patient.entry = {"image": "../image_out_of_the_folder.nii.gz"}


@fault("decathlon", "must name its `image`")
def entry_without_an_image(patient):
    patient.image.unlink()
    patient.entry = {"entry_without_an_image": "x"}


# `dicom`: a fault gets a folder with a sound series of a patient of its own.


@fault("dicom", "not a DICOM file, though its name ends in .dcm")
def text_named_dicom(folder):
    (folder / "text_named_dicom.dcm").write_text("hello\n" * 100)


@fault("dicom", "DICOM file cut short or damaged")
def slice_cut_short(folder):
    path = write(folder / "slice_cut_short.dcm", 9)
    path.write_bytes(path.read_bytes()[:-40])


@fault("dicom", "DICOM without pixel data")
def no_pixels(folder):
    write(folder / "no_pixels.dcm", 9, PixelData=None)


@fault("dicom", "has no SeriesInstanceUID")
def no_series(folder):
    write(folder / "no_series.dcm", 9, SeriesInstanceUID=None)


@fault("dicom", "its image cannot be decoded")
def pixels_that_cannot_be_decoded(folder):
    path = folder / "000.dcm"
    compressed = pydicom.dcmread(path)
    compressed.compress(RLELossless)
    compressed.save_as(path)
    content = bytearray(path.read_bytes())
    begin = content.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")  # RLE header: two segments, the first at 64
    content[begin : begin + 64] = b"\xff" * 64
    path.write_bytes(content)


def add_slice(folder: Path, index: int = 5, **changes: object) -> None:
    """One more slice of the folder's series."""
    first = pydicom.dcmread(folder / "000.dcm")
    own = {"SeriesInstanceUID": first.SeriesInstanceUID, "PatientID": first.PatientID}
    write(folder / "odd.dcm", index, **{**own, **changes})


@fault("dicom", "mixed sizes")
def mixed_sizes(folder):
    add_slice(folder, image=np.full((20, 30), 7, np.uint16))


@fault("dicom", "mixed pixel spacings")
def mixed_spacings(folder):
    add_slice(folder, PixelSpacing=[0.8, 0.8])


@fault("dicom", "mixed orientations")
def mixed_orientations(folder):
    add_slice(folder, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])


@fault("dicom", "mixed patients")
def mixed_patients(folder):
    add_slice(folder, PatientID="another")


@fault("dicom", "are localizers")
def localizer_among_slices(folder):
    add_slice(folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


@fault("dicom", "have no ImagePositionPatient")
def no_position(folder):
    add_slice(folder, ImagePositionPatient=None)


@fault("dicom", "slices at")
def two_slices_at_one_place(folder):
    add_slice(folder, index=2)


@fault("dicom", "slices are missing or unevenly spaced")
def slice_missing(folder):
    (folder / "002.dcm").unlink()


def pairs_set(root: Path) -> None:
    """Sound pairs, and one broken in each way."""
    columns = ["moving", "fixed", "subject", "moving_landmarks", "fixed_landmarks", "moving_spacing"]
    columns += ["fixed_spacing"]
    lines = [",".join(columns)]
    for seed, name in enumerate(["sound1", *FAULTS["pairs"], "sound2"]):
        pair = Pair(root, name, seed)
        if name in FAULTS["pairs"]:
            FAULTS["pairs"][name][0](pair)
        cells = [pair.cells.pop(column, "") for column in columns]
        lines.append(",".join([*cells, *pair.cells.values()]))
    (root / "pairs.csv").write_text("\n".join(lines) + "\n")


def decathlon_set(root: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir()
    entries = []
    for seed, name in enumerate(["sound1", *FAULTS["decathlon"], "sound2"]):
        patient = Patient(root, name, seed)
        if name in FAULTS["decathlon"]:
            FAULTS["decathlon"][name][0](patient)
        entries += [patient.entry] if patient.entry else []
    modality = {"0": "T1w", "1": "T2w"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "training": entries}))


def dicom_set(root: Path) -> None:
    for number, name in enumerate(["sound1", *FAULTS["dicom"], "sound2"]):
        write_series(root / name, SeriesInstanceUID=f"1.2.{number}", PatientID=name, SeriesDescription="scan")
        if name in FAULTS["dicom"]:
            FAULTS["dicom"][name][0](root / name)


SETS = {"pairs": pairs_set, "decathlon": decathlon_set, "dicom": dicom_set}
OPTIONS = {"pairs": [], "decathlon": ["--modalities", "T1w"], "dicom": ["--series", "all"]}


def row_of(root: Path, line: str) -> str:
    """The row of pairs.csv that a line on it is about; empty for other lines."""
    number = re.search(r"pairs.csv, line (\d+)", line)
    return (root / "pairs.csv").read_text().splitlines()[int(number[1]) - 1] if number else ""


@pytest.mark.parametrize("source", SETS)
def test_validate_names_one_fault_of_each_kind_in_one_run(tmp_path, run, listing, source):
    root = tmp_path / "set"
    root.mkdir()
    SETS[source](root)
    before = {} if source == "pairs" else listing(root)  # A broken link cannot be listed.
    command = ["validate", "--source", source, "--input", root, "--image-size", 32, 32, "--workers", 1]
    status, out, err = run(*command, *OPTIONS[source])
    assert (status, out) == (2, "")
    lines = {line: f"{line} {row_of(root, line)}" for line in error_lines(err)}
    for name, (_, told) in FAULTS[source].items():
        (line,) = [line for line, where in lines.items() if name in where] or [None]
        assert line and told in line, (name, line, lines)
        del lines[line]
    assert not lines
    assert "sound" not in err
    assert before == ({} if source == "pairs" else listing(root))
