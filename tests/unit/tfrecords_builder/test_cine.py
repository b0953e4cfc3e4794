from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scipy import ndimage

from tests.unit.tfrecords_builder.dicom_files import write
from tests.unit.tfrecords_builder.test_dicom import only_problem, read, request
from tfmetareg.errors import UserError
from tfrecords_builder.sources.dicom import dicom_tasks

PHASES, PLACES = 6, 3
NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
# The heart is smallest at this phase.
SYSTOLE = 2
RADII = (8.0, 6.0, 4.0, 5.0, 6.5, 7.5)


def heart(phase: int, place: int = 0) -> np.ndarray:
    """uint16 (32, 32): a bright disc that beats, in a body that does not."""
    rows, columns = np.indices((32, 32)) - 16.0
    texture = ndimage.gaussian_filter(np.random.default_rng(place).normal(size=(32, 32)), 2)
    body = np.clip(600 + 3000 * texture, 100, 1200) + 50 * place
    return np.where(np.hypot(rows, columns) < RADII[phase], 1500, body).astype(np.uint16)


def write_cine(folder, order="TriggerTime", places=PLACES, phases=PHASES, **changes):
    """A series as a scanner writes it, names in no order; phase and place are in the names."""
    names = {
        "TriggerTime": lambda phase, place: {"TriggerTime": 40.5 * phase + place, "InstanceNumber": 1},
        "InstanceNumber": lambda phase, place: {"InstanceNumber": 100 * place + phase},
        "AcquisitionTime": lambda phase, place: {"AcquisitionTime": f"1015{10 + phase}.{place}"},
        "nothing": lambda phase, place: {"InstanceNumber": 1, "TriggerTime": 0},
    }
    for place in range(places):
        for phase in range(phases):
            path = folder / f"{(phase * 7 + place * 5) % 17:02d}_phase{phase}_place{place}.dcm"
            times = names[order](phase, place)
            position = [0, 0, 8 * place]
            write(
                path,
                image=heart(phase, place),
                Modality="MR",
                ImagePositionPatient=position,
                **times,
                **changes,
            )
    return folder


def phases_of(pairs) -> set[tuple[str, str]]:
    """(fixed, moving) phases, by the names of the files."""
    keys = [pair.key.split(":") for pair in pairs]
    return {(fixed.split("_")[1], moving.split("_")[1]) for moving, fixed in keys}


@pytest.mark.parametrize("order", ["TriggerTime", "InstanceNumber", "AcquisitionTime"])
def test_each_place_gives_its_first_phase_and_the_one_least_like_it(tmp_path, order):
    pairs = read(write_cine(tmp_path, order), cine=True)
    assert phases_of(pairs) == {("phase0", f"phase{SYSTOLE}")}
    assert [pair.key.split("place")[-1] for pair in pairs] == ["0.dcm", "1.dcm", "2.dcm"]
    for place, pair in enumerate(pairs):
        np.testing.assert_array_equal(pair.fixed, heart(0, place) - 1000.0)
        np.testing.assert_array_equal(pair.moving, heart(SYSTOLE, place) - 1000.0)
        assert pair.moving_spacing == pair.fixed_spacing == (0.8, 0.7)
    assert {pair.subject for pair in pairs} == {"P1"}
    (note,) = {note.text for pair in pairs for note in pair.notes}
    assert note.startswith(f"phase {SYSTOLE} of {PHASES}, counted from 0, is least like phase 0")


def test_phases_by_number(tmp_path):
    pairs = read(write_cine(tmp_path), phases=(4, 1))
    assert phases_of(pairs) == {("phase4", "phase1")}
    assert not any(pair.notes for pair in pairs)
    assert "has no phase 6; phases are 0 to 5" in only_problem(tmp_path, phases=(0, 6))
    assert "FIXED and MOVING must differ, got 3 3" in only_problem(tmp_path, phases=(3, 3))


def test_one_place_is_enough(tmp_path):
    assert len(read(write_cine(tmp_path, places=1), cine=True)) == 1


def test_stride_window_and_foreground(tmp_path):
    root = write_cine(tmp_path)
    pairs = read(root, cine=True, stride=2, window=(-500, 200))
    assert [pair.key.split("place")[-1] for pair in pairs] == ["0.dcm", "2.dcm"]
    assert pairs[0].fixed.max() == pairs[0].moving.max() == 200
    assert "all 3 places are empty" in only_problem(root, cine=True, foreground=1.0)
    with pytest.raises(UserError, match="`--gap` has no use with `--cine`"):
        dicom_tasks(request(root, cine=True, gap=2))


def test_without_the_option_a_cine_series_is_no_volume_and_the_option_is_named(tmp_path):
    assert "pair the phases of a cine series with `--cine`" in only_problem(write_cine(tmp_path))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda root: write_cine(root, "nothing"), "nor AcquisitionTime tells apart"),
        (lambda root: write_cine(root, phases=1), "one image at each of 3 places; `--cine` needs several"),
        (
            lambda root: next(iter(write_cine(root).glob("*phase3_place1*"))).unlink(),
            "5 images at one place, 6 at another",
        ),
        (
            lambda root: write(
                write_cine(root) / "odd.dcm", image=np.zeros((20, 20), np.uint16), TriggerTime=900
            ),
            "mixed sizes",
        ),
        (lambda root: write_cine(root, ImageType=["LOCALIZER"]), "is a localizer"),
    ],
)
def test_a_series_that_is_no_cine_series(tmp_path, change, rule):
    change(tmp_path)
    assert rule in only_problem(tmp_path, cine=True)


def test_copies_of_a_file_are_no_phases(tmp_path):
    root = write_cine(tmp_path)
    file = next(root.glob("*phase0_place0*"))
    (root / "copy.dcm").write_bytes(file.read_bytes())
    assert only_problem(root, cine=True)


def frames(count: int = PHASES) -> np.ndarray:
    return np.stack([heart(phase) for phase in range(count)])


def test_frames_of_one_file_are_phases(tmp_path):
    """An ultrasound or angiography clip: no position, frames in their order."""
    write(tmp_path / "clip.dcm", image=frames(), Rows=32, Columns=32, NumberOfFrames=PHASES, Modality="XA",
          **NO_PLACE)  # fmt: skip
    (pair,) = read(tmp_path, cine=True)
    assert pair.key == f"clip.dcm#{SYSTOLE}:clip.dcm#0"
    np.testing.assert_array_equal(pair.moving, heart(SYSTOLE) - 1000.0)


def test_a_colour_clip_gives_its_luminance(tmp_path):
    grey = (frames() // 8).astype(np.uint8)
    write(tmp_path / "clip.dcm", image=np.stack([grey] * 3, -1), Rows=32, Columns=32, NumberOfFrames=PHASES,
          Modality="US", **NO_PLACE, BitsAllocated=8, BitsStored=8,
          HighBit=7, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)  # fmt: skip
    (pair,) = read(tmp_path, cine=True)
    np.testing.assert_allclose(pair.fixed, grey[0], atol=1e-3)


def test_an_enhanced_file_holds_places_and_phases(tmp_path):
    images, groups = [], []
    for phase in (3, 0, 2, 1):
        for place in range(2):
            plane, heartbeat, group = Dataset(), Dataset(), Dataset()
            plane.ImagePositionPatient = [0.0, 0.0, 8.0 * place]
            heartbeat.NominalCardiacTriggerDelayTime = 40.0 * phase
            group.PlanePositionSequence = Sequence([plane])
            group.CardiacSynchronizationSequence = Sequence([heartbeat])
            images.append(heart(phase, place))
            groups.append(group)
    direction, shared = Dataset(), Dataset()
    direction.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([direction])
    write(tmp_path / "cine.dcm", image=np.stack(images), Rows=32, Columns=32, NumberOfFrames=8, Modality="MR",
          **NO_PLACE, SharedFunctionalGroupsSequence=Sequence([shared]),
          PerFrameFunctionalGroupsSequence=Sequence(groups))  # fmt: skip
    pairs = read(tmp_path, cine=True)
    assert len(pairs) == 2
    for place, pair in enumerate(pairs):
        np.testing.assert_array_equal(pair.fixed, heart(0, place) - 1000.0)
        np.testing.assert_array_equal(pair.moving, heart(2, place) - 1000.0)


def test_command_line(tmp_path, run):
    root = write_cine(tmp_path / "scan")
    status, out, error = run(
        *("build", "--source", "dicom", "--input", root, "--cine", "--output", tmp_path / "records"),
        *("--image-size", 32, 32),
    )
    assert status == 0
    assert "is least like phase 0" in out + error
    status, _, _ = run("validate", "--source", "dicom", "--input", root, "--phases", 0, 3)
    assert status == 0
