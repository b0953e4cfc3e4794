from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from tests.unit.tfrecords_builder.dicom_files import dataset, stored, write, write_series
from tfmetareg.errors import InputErrors, UserError
from tfmetareg.imaging.volumes import canonical, open_nifti
from tfrecords_builder.series import dicom_files, read_header
from tfrecords_builder.sources.base import Request
from tfrecords_builder.sources.dicom import dicom_tasks


def request(root, **options):
    return Request(root, None, "source", (32, 32), 0, options)


def read(root, **options):
    """Pairs of the only task; problems raised."""
    asked = request(root, **options)
    (task,) = dicom_tasks(asked)
    pairs = list(task.pairs)
    asked.problems.raise_any()
    return pairs


def problems(root, **options) -> list[str]:
    with pytest.raises(InputErrors) as error:
        read(root, **options)
    return error.value.lines


def only_problem(root, **options) -> str:
    (line,) = problems(root, **options)
    return line


def test_neighbouring_slices_become_pairs_in_the_order_of_their_positions(tmp_path):
    pairs = read(write_series(tmp_path / "scan"))
    assert [pair.key for pair in pairs] == [f"00{4 - n - 1}.dcm:00{4 - n}.dcm" for n in range(4)]
    for index, pair in enumerate(pairs):
        np.testing.assert_array_equal(pair.fixed, stored(index) - 1000.0)
        np.testing.assert_array_equal(pair.moving, stored(index + 1) - 1000.0)
    assert {pair.subject for pair in pairs} == {"P1"}
    assert pairs[0].moving_spacing == pairs[0].fixed_spacing == (0.8, 0.7)


def test_without_pixel_spacing_no_millimetres_are_claimed(tmp_path, run):
    root = write_series(tmp_path / "scan", PixelSpacing=None)
    assert {(pair.moving_spacing, pair.fixed_spacing) for pair in read(root)} == {(None, None)}
    status, _, error = run(
        *("build", "--source", "dicom", "--input", root, "--output", tmp_path / "records"),
        *("--image-size", 32, 32, "--fit", "crop", "--spacing", 1),
    )
    assert status == 2
    assert "pixel size unknown, which the records' spacing needs" in error


def test_any_series_is_ordered_along_its_own_normal(tmp_path):
    """Sagittal slices: the normal runs to the right, whatever the height of the first pixel."""
    for index in range(4):
        write(tmp_path / f"{index}", index, ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
              ImagePositionPatient=[-3 * index, 0, (0, 9, -4, 2)[index]])  # fmt: skip
    pairs = read(tmp_path)
    assert [pair.key for pair in pairs] == ["1:0", "2:1", "3:2"]
    np.testing.assert_array_equal(pairs[0].moving, stored(1) - 1000.0)


def test_slope_and_intercept_of_each_file_are_applied(tmp_path):
    for index in range(3):
        write(tmp_path / f"{index}.dcm", index, RescaleSlope=0.5 + index, RescaleIntercept=-100.25)
    first, second = read(tmp_path)
    np.testing.assert_allclose(first.fixed, 0.5 * stored(0) - 100.25, rtol=1e-6)
    np.testing.assert_allclose(second.moving, 2.5 * stored(2) - 100.25, rtol=1e-6)


@pytest.mark.parametrize(("modality", "sign", "said"), [("CT", 1, "keep their unit"), ("MR", -1, "inverted")])
def test_what_is_done_with_monochrome1_is_noted(tmp_path, modality, sign, said):
    pairs = read(write_series(tmp_path, 3, PhotometricInterpretation="MONOCHROME1", Modality=modality,
                              RescaleSlope=1, RescaleIntercept=0))  # fmt: skip
    np.testing.assert_array_equal(pairs[0].fixed, stored(0) if sign > 0 else 65535 - stored(0))
    assert {(note.image, said in note.text) for pair in pairs for note in pair.notes} == {
        (f"{tmp_path}: series 1.2.3 `Abdomen 2.5`", True)
    }


def test_gap_stride_and_window(tmp_path):
    root = write_series(tmp_path / "scan", 7)
    pairs = read(root, gap=2, stride=3, window=(0, 50))
    assert [pair.key for pair in pairs] == ["004.dcm:006.dcm", "001.dcm:003.dcm"]
    np.testing.assert_array_equal(pairs[0].moving, np.clip(stored(2) - 1000.0, 0, 50))
    (task,) = dicom_tasks(request(root, window=(0, 50)))
    assert task.modality == "CT (0 to 50)"
    with pytest.raises(UserError, match="`--window`: LOW must be below HIGH"):
        read(root, window=(50, 0))
    with pytest.raises(UserError, match="no pair of slices is left"):
        read(root, gap=7)


def test_empty_slices_are_left_out(tmp_path):
    root = write_series(tmp_path / "scan", 4)
    faint = np.zeros((20, 24), np.uint16)
    faint[3, 4] = 1
    write(root / "above.dcm", 4, image=faint)
    assert len(read(root)) == 3


@pytest.fixture
def study(tmp_path):
    """Two patients, each with a T1 and a T2 series, and one localizer."""
    root = tmp_path / "study"
    for patient in ("A", "B"):
        for number, name in enumerate(("T1 axial", "T2 axial")):
            write_series(root / patient / f"s{number}", 3, SeriesInstanceUID=f"1.{ord(patient)}.{number}",
                         SeriesDescription=name, PatientID=patient, Modality="MR")  # fmt: skip
    write(root / "A/scout/1.dcm", SeriesInstanceUID="1.9", SeriesDescription="scout", Modality="MR",
          ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], PatientID="A")  # fmt: skip
    return root


def test_several_series_are_listed_until_one_is_chosen(study):
    first, *listed = problems(study)
    assert "holds 5 series; choose with `--series" in first
    assert listed[0] == "  1.65.0 `T1 axial`: MR, 3 slices, patient A"
    assert listed[2] == "  1.9 `scout`: MR, localizer, 1 slices, patient A"
    assert len(listed) == 5


@pytest.mark.parametrize(
    ("choice", "folders"),
    [
        (["1.66.1"], ["B/s1"]),
        (["t1 AXIAL "], ["A/s0", "B/s0"]),
        (["1.66.1", "1.65.0"], ["A/s0", "B/s1"]),
        (["T2 axial", "1.66.1"], ["A/s1", "B/s1"]),
    ],
)
def test_series_are_chosen_by_uid_or_description(study, choice, folders):
    pairs = read(study, series=choice)
    assert sorted({pair.key[:4] for pair in pairs}) == folders
    assert all(pair.subject == pair.key[0] for pair in pairs)


def test_a_series_that_is_not_there(study):
    assert "has no series `T1 axiel`; did you mean `T1 axial`?" in only_problem(study, series=["T1 axiel"])
    first, *listed = problems(study, series=["flair"])
    assert "has no series `flair`; there are:" in first
    assert len(listed) == 5


def test_all_series_and_their_modality(study):
    assert "is a localizer" in only_problem(study, series=["all"])
    (study / "A/scout/1.dcm").unlink()
    assert len(read(study, series=["all"])) == 8
    write_series(study / "C", 3, SeriesInstanceUID="1.67", Modality="CT")
    assert "different modalities, CT and MR" in only_problem(study, series=["all"])
    (task,) = dicom_tasks(request(study, series=["all"], modality="any"))
    assert task.modality == "any"


def test_without_a_patients_id_the_first_folder_is_the_subject(tmp_path):
    root = tmp_path / "set"
    for name in "ab":
        write_series(root / name / "study", 3, SeriesInstanceUID=f"1.{ord(name)}", PatientID="")
    assert {pair.subject for pair in read(root, series=["all"])} == {"a", "b"}
    assert {pair.subject for pair in read(root / "a" / "study")} == {"study"}


def test_task_name_role_and_modality(tmp_path):
    (task,) = dicom_tasks(request(write_series(tmp_path / "scan", 2)))
    assert (task.name, task.role, task.modality) == ("scan", "source", "CT")


def test_descriptions_in_latin_letters(tmp_path):
    write_series(tmp_path, 3, SeriesDescription="Schädel", SpecificCharacterSet="ISO_IR 100")
    assert len(read(tmp_path, series=["schädel"])) == 2


def test_other_files_are_passed_over(tmp_path):
    root = write_series(tmp_path / "scan", 3)
    (root / "notes.txt").write_text("x" * 200)
    (root / "thumbnail.jpg").write_bytes(b"\xff\xd8" + bytes(200))
    (root / "._000.dcm").write_bytes(b"x")
    (root / "empty").write_bytes(b"")
    (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    write(root / "IM0001", 3)  # DICOM by its content
    (root / "loop").symlink_to(root)
    assert len(dicom_files(root)) == 4
    assert len(read(root)) == 3


def test_no_dicom_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert "no DICOM images in this folder or below" in only_problem(tmp_path)
    assert "no such folder" in only_problem(tmp_path / "nowhere")


def broken(path, kind):
    """A file that is no readable slice, and the name of what is wrong with it."""
    whole = write(path, 5).read_bytes()
    if kind == "text":
        path.write_text("hello\n" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pixels cut":
        path.write_bytes(whole[:-40])
    elif kind == "header cut":
        path.write_bytes(whole[:400])
    elif kind == "no pixels":
        write(path, 5, PixelData=None)
    elif kind == "report":
        image = (
            "Rows",
            "Columns",
            "BitsAllocated",
            "BitsStored",
            "HighBit",
            "PixelRepresentation",
            "PixelData",
        )
        write(path, 5, **dict.fromkeys(image), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22")
    elif kind == "no series":
        write(path, 5, SeriesInstanceUID=None)
    elif kind == "compressed cut":
        compressed = pydicom.dcmread(path)
        compressed.compress(RLELossless)
        compressed.save_as(path)
        path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("text", "not a DICOM file, though its name ends in .dcm"),
        ("empty", "not a DICOM file, though its name ends in .dcm"),
        ("pixels cut", "DICOM file cut short or damaged"),
        ("compressed cut", "DICOM file cut short or damaged"),
        ("header cut", "DICOM without pixel data"),
        ("no pixels", "DICOM without pixel data"),
        ("report", "DICOM without pixel data"),
        ("no series", "has no SeriesInstanceUID"),
    ],
)
def test_a_file_without_a_readable_image(tmp_path, kind, rule):
    root = write_series(tmp_path / "scan", 4)
    broken(root / "odd.dcm", kind)
    line = only_problem(root)
    assert line.startswith(f"{root / 'odd.dcm'}: {rule}")


def test_pixels_that_cannot_be_decoded(tmp_path):
    root = write_series(tmp_path / "scan", 4)
    path = root / "000.dcm"
    compressed = pydicom.dcmread(path)
    compressed.compress(RLELossless)
    compressed.save_as(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")  # RLE header: two segments, the first at 64
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    assert f"{path}: its image cannot be decoded" in only_problem(root)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"image": np.full((20, 30), 7, np.uint16)}, "mixed sizes, 20 24 in 000.dcm, 20 30 in odd.dcm (1"),
        ({"PixelSpacing": [0.8, 0.8]}, "mixed pixel spacings, 0.8 0.7 in 000.dcm, 0.8 0.8 in odd.dcm"),
        ({"PixelSpacing": None}, "mixed pixel spacings, 0.8 0.7 in 000.dcm, none in odd.dcm"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "mixed orientations, 1 0 0 0 1 0 in 000.dcm"),
        ({"PatientID": "P2"}, "mixed patients, `P1` in 000.dcm, `P2` in odd.dcm"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "1 of its 5 files are localizers, odd.dcm for"),
        ({"NumberOfFrames": 2, "PixelData": bytes(2 * 960)}, "several frames each, odd.dcm for one; convert"),
        ({"ImagePositionPatient": None}, "1 of its files have no ImagePositionPatient"),
        ({"ImagePositionPatient": "1\\2"}, "1 of its files have no ImagePositionPatient"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
             "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": bytes(3 * 480)},
            "1 of its files are colour images, odd.dcm",
        ),
        ({"ImagePositionPatient": [-10, -20, 105]}, "5 slices at 4 places, 001.dcm and odd.dcm at the same"),
        ({"ImagePositionPatient": [-10, -20, 112.5]}, "000.dcm and odd.dcm are 5 mm apart, 2.5 mm is usual"),
        ({"ImagePositionPatient": [-10, -20, 106.2]}, "missing or unevenly spaced"),
    ],
)  # fmt: skip
def test_a_series_that_is_no_volume(tmp_path, changes, rule):
    root = write_series(tmp_path / "scan", 4)
    write(root / "odd.dcm", 4, **changes)
    lines = problems(root)
    assert any(rule in line for line in lines)
    assert all(line.startswith(f"{root}: series 1.2.3 `Abdomen 2.5`") for line in lines)
    assert len(lines) == 1


def test_rounded_positions_and_directions_are_no_mixture(tmp_path):
    for index in range(5):
        wobble = 0.04 * (-1) ** index
        write(tmp_path / f"{index}.dcm", index, ImagePositionPatient=[-10, -20, 100 + 2.5 * index + wobble],
              ImageOrientationPatient=[1, 1e-5 * index, 0, 0, 1, 0])  # fmt: skip
    assert len(read(tmp_path)) == 4


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    root = write_series(tmp_path / "scan", 6)
    (root / "003.dcm").unlink()
    assert "004.dcm and 002.dcm are 5 mm apart, 2.5 mm is usual" in only_problem(root)


def test_two_time_points_under_one_uid(tmp_path):
    root = write_series(tmp_path / "scan", 4)
    write_series(root / "again", 4)
    assert "8 slices at 4 places" in only_problem(root)


def test_a_series_that_is_not_chosen_may_be_broken(study):
    (study / "B/s1/001.dcm").unlink()
    assert len(read(study, series=["T1 axial"])) == 4


def test_every_problem_is_named_in_one_run(study):
    (study / "A/s0/001.dcm").unlink()
    (study / "A/s0/b.dcm").write_bytes(b"x")
    write(study / "B/s0/odd.dcm", 3, SeriesInstanceUID="1.66.0", PixelSpacing=[1, 1], PatientID="B")
    (study / "A/s0/003.dcm").write_bytes(bytes(128) + b"DICM")
    write(study / "A/s0/004.dcm", 3, SeriesInstanceUID="1.65.0", PatientID="A")
    lines = problems(study, series=["T1 axial"])
    for rule in (
        "b.dcm: not a DICOM",
        "003.dcm: DICOM without",
        "B/s0: .* mixed pixel",
        "A/s0: .*5 mm apart",
    ):
        with pytest.raises(UserError, match=rule):
            raise InputErrors(lines)
    assert len(lines) == 4
    lines = problems(study)
    assert "b.dcm: not a DICOM" in lines[1]
    assert "choose with `--series" in lines[2]


def test_command_line(tmp_path, run, listing):
    root = write_series(tmp_path / "scan")
    before = listing(tmp_path)
    status, out, _ = run("validate", "--source", "dicom", "--input", root, "--image-size", 32, 32)
    assert (status, "4 train pairs, no problems" in out) == (0, True)
    (root / "000.dcm").write_bytes(b"")
    status, _, error = run("validate", "--source", "dicom", "--input", root)
    assert status == 2
    assert error.splitlines()[-1].startswith(f"error: {root / '000.dcm'}: not a DICOM file")
    (root / "000.dcm").write_bytes(before["scan/000.dcm"])
    assert listing(tmp_path) == before


def test_real_ct_is_the_volume_that_it_was_made_from(real_data):
    """The same scan is there as NIfTI: HU, order and orientation of every slice agree."""
    pairs = read(real_data / "dicom_ct", gap=1)
    (path,) = (real_data / "Task03_AbdomenCT" / "imagesTr").glob("*.nii.gz")
    volume = canonical(open_nifti(path))
    found = [k for k in range(78) if np.array_equal(volume.axial(k), pairs[0].fixed)]
    assert len(found) == 1
    for offset, pair in enumerate(pairs):
        np.testing.assert_array_equal(pair.fixed, volume.axial(found[0] + offset))
        np.testing.assert_array_equal(pair.moving, volume.axial(found[0] + offset + 1))
    assert len(pairs) == 29
    np.testing.assert_allclose(pairs[0].fixed_spacing, volume.pixel_size, rtol=1e-4)


def test_real_mr_is_read_whole_and_in_order(real_data):
    pairs = read(real_data / "dicom_t1")
    assert [pair.key for pair in pairs] == [f"N2D_0{n + 1}.dcm:N2D_0{n}.dcm" for n in range(151, 182)]
    raw = pydicom.dcmread(real_data / "dicom_t1" / "N2D_0151.dcm")
    np.testing.assert_array_equal(pairs[0].fixed, raw.pixel_array)
    np.testing.assert_allclose(pairs[0].fixed_spacing, (0.6667, 0.7), rtol=1e-3)
    assert {pair.subject for pair in pairs} == {"02"}


def test_headers_alone_tell_the_order(tmp_path):
    assert read_header(write(tmp_path / "a.dcm", 2)).location == dataset(2).ImagePositionPatient[2]
