"""Task folders of the Medical Segmentation Decathlon, small ones and real ones."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfmetareg.data.schema import Manifest, decode_pair
from tfmetareg.errors import UserError
from tfrecords_builder.sources.base import Request
from tfrecords_builder.sources.decathlon import decathlon_tasks

SHAPE = (20, 24, 10)
AFFINE = np.diag([1.5, 1.0, 3.0, 1.0])


def brain(seed: int) -> np.ndarray:
    """float32 (x, y, z), RAS: an ellipsoid of smooth texture on nothing; slices 0 and 9 are empty."""
    x, y, z = (2 * index / (size - 1) - 1 for index, size in zip(np.indices(SHAPE), SHAPE))
    inside = (x**2 + 0.8 * y**2 + z**2 < 0.9) & (np.abs(z) < 0.9)
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    return np.where(inside, 500 + 2000 * texture, 0).astype(np.float32)


def turned(voxels: np.ndarray, axes: str) -> nibabel.Nifti1Image:
    """A RAS array stored in another orientation, with the affine that says so."""
    image = nibabel.Nifti1Image(voxels, AFFINE)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(AFFINE), nibabel.orientations.axcodes2ornt(axes)
    )
    return image.as_reoriented(turn)


class Folder:
    """A Decathlon task that a test writes and breaks: three patients, T1w and T2w, lesion labels."""

    def __init__(self, root, axes: str = "RAS"):
        self.root = root
        self.dataset = {
            "name": "Brain",
            "modality": {"0": "T1w", "1": "T2w"},
            "labels": {"0": "background", "1": "lesion"},
            "training": [],
        }
        for name in ("imagesTr", "labelsTr"):
            (root / name).mkdir(parents=True)
        for patient in range(3):
            t1 = brain(patient)
            self.save(f"imagesTr/P{patient}.nii.gz", turned(np.stack([t1, 1000 - t1], axis=-1), axes))
            lesion = np.uint8(3 * (t1 > np.percentile(t1, 95)))
            self.save(f"labelsTr/P{patient}.nii.gz", turned(lesion, axes))
            files = {"image": f"./imagesTr/P{patient}.nii.gz", "label": f"./labelsTr/P{patient}.nii.gz"}
            self.dataset["training"].append(files)
        self.write()

    def save(self, name: str, image: nibabel.Nifti1Image) -> None:
        nibabel.save(image, self.root / name)

    def write(self) -> None:
        (self.root / "dataset.json").write_text(json.dumps(self.dataset))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "Task99_Brain")


def request(root, task=None, **options):
    return Request(root, task, "source", (32, 32), 0, options)


def read(asked):
    """Pairs by task; problems raised."""
    found = {task.name: list(task.pairs) for task in decathlon_tasks(asked)}
    asked.problems.raise_any()
    return found


def mistakes(root, **options) -> list[str]:
    """Every line that reading a folder gives."""
    with pytest.raises(UserError) as caught:
        read(request(root, **options))
    return str(caught.value).splitlines()


def test_each_modality_is_a_task_of_neighbouring_slices(folder):
    tasks = read(request(folder.root))
    assert list(tasks) == ["T1w", "T2w"]
    pairs = tasks["T1w"]
    assert [pair.key for pair in pairs[:2]] == ["P0#2:P0#1", "P0#3:P0#2"]
    assert {pair.subject for pair in pairs} == {"P0", "P1", "P2"}
    assert len(pairs) == 3 * 7  # slices 1 to 8 show something
    first = pairs[0]
    np.testing.assert_array_equal(first.moving, brain(0)[::-1, ::-1, 2].T)
    np.testing.assert_array_equal(first.fixed, brain(0)[::-1, ::-1, 1].T)
    assert first.moving_spacing == first.fixed_spacing == pytest.approx((1.0, 1.5))
    np.testing.assert_array_equal(tasks["T2w"][0].fixed, 1000 - first.fixed)


def test_labels_come_with_their_slices(folder):
    pair = read(request(folder.root, modalities=["t1w"]))["t1w"][3]
    for image, labels in ((pair.moving, pair.moving_labels), (pair.fixed, pair.fixed_labels)):
        assert labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 3}
        np.testing.assert_array_equal(labels == 3, image > np.percentile(brain(0), 95))


def test_label_files_whose_numbers_are_scaled_are_read_within_rounding(folder):
    """As nibabel saves floats with an integer type: a slope of 4.6e-5, so that 3 comes back as 2.99998."""
    plain = read(request(folder.root, modalities=["T1w"]))["T1w"]
    for patient in range(3):
        path = folder.root / f"labelsTr/P{patient}.nii.gz"
        labels = nibabel.Nifti1Image(nibabel.load(path).get_fdata(), AFFINE)
        labels.set_data_dtype(np.int16)
        nibabel.save(labels, path)
        assert not np.array_equal(nibabel.load(path).get_fdata(), labels.get_fdata())
    for one, other in zip(read(request(folder.root, modalities=["T1w"]))["T1w"], plain):
        assert one.moving_labels.dtype == np.uint8
        np.testing.assert_array_equal(one.moving_labels, other.moving_labels)


def test_label_files_may_store_their_voxels_in_another_order(folder):
    plain = read(request(folder.root, modalities=["T1w"]))["T1w"]
    for patient in range(3):
        labels = np.asarray(nibabel.load(folder.root / f"labelsTr/P{patient}.nii.gz").dataobj)
        folder.save(f"labelsTr/P{patient}.nii.gz", turned(labels, "PSL"))
    for one, other in zip(read(request(folder.root, modalities=["T1w"]))["T1w"], plain):
        np.testing.assert_array_equal(one.moving_labels, other.moving_labels)


@pytest.mark.parametrize("numbers", [(-1, -7), (256, 65535), (2**24 + 1, 2**24 + 2)])
def test_labels_may_be_any_whole_numbers(folder, numbers):
    """The last two are one and the same as float32."""
    labels = np.resize(np.array(numbers, np.int32), SHAPE)
    folder.save(LABELS, turned(labels, "RAS"))
    pairs = read(request(folder.root, modalities=["T1w"]))["T1w"]
    (pair, *_) = [pair for pair in pairs if pair.subject == "P1"]
    np.testing.assert_array_equal(pair.fixed_labels, labels[::-1, ::-1, int(pair.key[-1])].T)


@pytest.mark.parametrize("missing", ["labelsTr", "label"])
def test_labels_may_be_missing(folder, missing):
    if missing == "labelsTr":
        shutil.rmtree(folder.root / "labelsTr")
    else:
        folder.dataset["training"] = [{"image": case["image"]} for case in folder.dataset["training"]]
        folder.write()
    pairs = read(request(folder.root))["T1w"]
    assert len(pairs) == 21 and pairs[0].moving_labels is pairs[0].fixed_labels is None


def test_labels_may_be_less_than_a_voxel_off(folder):
    """Headers are rounded, and some tools count from a voxel's corner."""
    folder.save(LABELS, nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), moved(0.5)))
    found = read(request(folder.root))
    assert all(pair.fixed_labels.all() for pair in found["T1w"] if pair.subject == "P1")


def test_modalities_are_chosen_in_any_case_and_named_as_the_user_does(folder):
    assert list(read(request(folder.root, modalities=["t2W"]))) == ["t2W"]
    assert list(read(request(folder.root, modalities=["t2W"], task="brain_t2"))) == ["brain_t2"]
    assert list(read(request(folder.root, task="brain"))) == ["brain_T1w", "brain_T2w"]
    folder.dataset["modality"]["1"] = "T2 (fat sat)"
    folder.write()
    (task,) = decathlon_tasks(request(folder.root, modalities=["T2 (Fat Sat)"]))
    assert (task.name, task.modality) == ("T2_Fat_Sat_", "T2 (fat sat)")


def test_gap_stride_and_foreground(folder):
    def slices(**options):
        keys = [pair.key for pair in read(request(folder.root, modalities=["T1w"], **options))["T1w"]]
        return [key.replace("P0#", "") for key in keys if key.startswith("P0")]

    assert slices(gap=3, stride=2) == ["4:1", "6:3", "8:5"]
    shares = (brain(0) > 0).mean(axis=(0, 1))
    assert slices(foreground=0.5) == [f"{i + 1}:{i}" for i in range(9) if min(shares[i], shares[i + 1]) > 0.5]


def test_one_modality_in_3d_with_a_window(folder):
    folder.dataset["modality"] = {"0": "CT"}
    folder.write()
    for patient in range(3):
        folder.save(f"imagesTr/P{patient}.nii.gz", turned(brain(patient) - 1000, "LPS"))
    shutil.rmtree(folder.root / "labelsTr")
    (task,) = decathlon_tasks(request(folder.root, window=[-900, -400]))
    assert (task.name, task.modality) == ("CT", "CT (-900 to -400)")
    pair = next(iter(task.pairs))
    np.testing.assert_array_equal(pair.fixed, np.clip(brain(0)[::-1, ::-1, 1].T - 1000, -900, -400))


def test_a_patient_is_never_in_two_splits_of_any_task(folder, run, tmp_path):
    output = tmp_path / "records"
    build = ("build", "--source", "decathlon", "--input", folder.root, "--output", output)
    status, out, err = run(
        *build, "--workers", 1, "--image-size", 32, 32, "--modalities", "T1w", "T2w", "--test-fraction", 0.4
    )
    assert status == 0, err
    subjects = {"train": set(), "test": set()}
    for task in Manifest.read(output).tasks:
        for split, content in task.splits.items():
            files = [str(output / shard.file) for shard in content.shards]
            records = tf.data.TFRecordDataset(files).as_numpy_iterator()
            subjects[split] |= {decode_pair(record).subject for record in records}
    assert (len(subjects["train"]), len(subjects["test"])) == (2, 1)
    assert subjects["train"] | subjects["test"] == {"P0", "P1", "P2"}


def test_the_same_brains_in_any_orientation_give_the_same_records(tmp_path, run, listing):
    records = {}
    for axes in ("RAS", "LAS", "PSR", "IPL"):
        root = Folder(tmp_path / axes / "Task99_Brain", axes).root
        output = tmp_path / axes / "records"
        status, _, err = run(
            "build",
            "--source",
            "decathlon",
            "--input",
            root,
            "--output",
            output,
            "--workers",
            1,
            "--image-size",
            32,
            32,
        )
        assert status == 0, err
        records[axes] = {name: content for name, content in listing(output).items() if "tfrecord" in name}
    assert records["RAS"]
    assert records["LAS"] == records["PSR"] == records["IPL"] == records["RAS"]


def test_files_of_macos_are_passed_over(folder):
    (folder.root / "imagesTr" / "._P0.nii.gz").write_bytes(b"\0\5\26\7")
    assert len(read(request(folder.root))["T1w"]) == 21


def damaged(change):
    """A test's change to `dataset`, then written."""

    def damage(folder):
        change(folder.dataset)
        folder.write()

    return damage


def cut(name):
    def damage(folder):
        content = (folder.root / name).read_bytes()
        (folder.root / name).write_bytes(content[: len(content) // 3])

    return damage


def replace(name, image):
    return lambda folder: folder.save(name, image())


def moved(voxels):
    """The affine of an image that lies that many voxels further along each axis."""
    return AFFINE @ nibabel.affines.from_matvec(np.eye(3), [voxels] * 3)


IMAGE, LABELS = "imagesTr/P1.nii.gz", "labelsTr/P1.nii.gz"
BROKEN = {
    "no dataset.json": (lambda f: (f.root / "dataset.json").unlink(), ["dataset.json: no such file"]),
    "no JSON": (lambda f: (f.root / "dataset.json").write_text('{"a": '), ["not readable as JSON"]),
    "no text": (lambda f: (f.root / "dataset.json").write_bytes(b"\xff\xfe\xff"), ["not readable as JSON"]),
    "no object": (lambda f: (f.root / "dataset.json").write_text("[1]"), ["must hold a JSON object"]),
    "no modality": (damaged(lambda d: d.pop("modality")), ["`modality` must name the channels"]),
    "modality numbers": (damaged(lambda d: d.update(modality={"1": "a"})), ["must name the channels"]),
    "modality twice": (damaged(lambda d: d["modality"].update({"1": "t1W"})), ["have the same name"]),
    "no training": (damaged(lambda d: d.update(training=[])), ["`training` must list the images"]),
    "entry without image": (
        damaged(lambda d: d["training"][0].pop("image")),
        ["training[0]: must name its `image`", "does not list"],
    ),
    "listed twice": (damaged(lambda d: d["training"].append(d["training"][0])), ["P0 is listed twice"]),
    "leads out": (
        damaged(lambda d: d["training"].append({"image": "../P9.nii.gz"})),
        ["training[3]: `../P9.nii.gz` leads out of the folder"],
    ),
    "image missing": (lambda f: (f.root / IMAGE).unlink(), ["P1.nii.gz not there"]),
    "image unlisted": (damaged(lambda d: d["training"].pop()), ["does not list"]),
    "label file missing": (lambda f: (f.root / LABELS).unlink(), ["labelsTr/P1.nii.gz not there"]),
    "channel count": (
        replace(IMAGE, lambda: turned(np.stack([brain(1)] * 3, axis=-1), "RAS")),
        ["P1.nii.gz: shape (20, 24, 10, 3) has 3 channels, dataset.json names 2 (T1w, T2w)"],
    ),
    "3D where 4D is due": (replace(IMAGE, lambda: turned(brain(1), "RAS")), ["has 1 channels"]),
    "4D where 3D is due": (
        damaged(lambda d: d.update(modality={"0": "CT"})),
        [f"P{n}.nii.gz: shape (20, 24, 10, 2) has 2 channels, dataset.json names 1 (CT)" for n in range(3)],
    ),
    "NaN": (
        replace(IMAGE, lambda: turned(np.full((*SHAPE, 2), np.nan, np.float32), "RAS")),
        ["P1.nii.gz: channel 0 holds NaN", "P1.nii.gz: channel 1 holds NaN"],
    ),
    "cut short": (cut(IMAGE), ["P1.nii.gz: unreadable NIfTI file"]),
    "no affine": (
        replace(IMAGE, lambda: nibabel.Nifti1Image(np.stack([brain(1)] * 2, axis=-1), None)),
        ["P1.nii.gz: does not tell its orientation"],
    ),
    "constant": (
        replace(IMAGE, lambda: turned(np.zeros((*SHAPE, 2), np.float32), "RAS")),
        ["P1.nii.gz: no pair of slices is left; 0 of 10 are not empty"],
    ),
    "labels of another shape": (
        replace(LABELS, lambda: turned(np.zeros((20, 24, 9), np.uint8), "RAS")),
        ["labelsTr/P1.nii.gz: shape (20, 24, 9), voxel size, orientation or origin differs"],
    ),
    "labels mirrored": (
        replace(LABELS, lambda: nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE * [-1, 1, 1, 1])),
        ["labelsTr/P1.nii.gz: shape (20, 24, 10), voxel size, orientation or origin differs"],
    ),
    "labels of another voxel size": (
        replace(LABELS, lambda: nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE * [2, 1, 1, 1])),
        ["labelsTr/P1.nii.gz: shape (20, 24, 10), voxel size, orientation or origin differs"],
    ),
    "labels of another origin": (
        replace(LABELS, lambda: nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), moved(1.2))),
        ["labelsTr/P1.nii.gz: shape (20, 24, 10), voxel size, orientation or origin differs"],
    ),
    "labels in 4D": (
        replace(LABELS, lambda: turned(np.zeros((*SHAPE, 2), np.uint8), "RAS")),
        ["labels must be 3D"],
    ),
    "fractions as labels": (
        replace(LABELS, lambda: turned(np.full(SHAPE, 0.5, np.float32), "RAS")),
        ["labelsTr/P1.nii.gz: labels must be whole numbers, got 0.5"],
    ),
    "labels cut short": (cut(LABELS), ["labelsTr/P1.nii.gz: unreadable NIfTI file"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_input_is_a_line_for_each_mistake(folder, kind):
    damage, said = BROKEN[kind]
    damage(folder)
    lines = mistakes(folder.root)
    assert len(lines) == len(said), lines
    for line, part in zip(lines, said):
        assert part in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modalities": ["T1"]}, "no modality `T1`; did you mean `T1w`?"),
        ({"modalities": ["PET"]}, "`--modalities` must be of: T1w, T2w."),
        ({"modalities": ["T1w", "t1w"]}, "`t1w` is named twice"),
        ({"window": [240, -160]}, "LOW must be below HIGH, got 240 -160"),
    ],
)
def test_wrong_options_are_one_line(folder, options, said):
    (line,) = mistakes(folder.root, **options)
    assert said in line


def test_the_folder_above_is_told_apart(folder):
    (line,) = mistakes(folder.root.parent)
    assert f"did you mean {folder.root}?" in line


def test_all_problems_come_together_and_nothing_is_written(folder, run, tmp_path):
    for kind in ("cut short", "fractions as labels"):
        BROKEN[kind][0](folder)
    replace("imagesTr/P0.nii.gz", lambda: turned(brain(0), "RAS"))(folder)
    status, _, err = run(
        "build", "--source", "decathlon", "--input", folder.root, "--output", tmp_path / "records",
        "--workers", 1,
    )  # fmt: skip
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(lines) == 3, err
    for line, file in zip(lines, ("imagesTr/P0.nii.gz", IMAGE, LABELS)):
        assert file in line
    assert not (tmp_path / "records").exists() or not list((tmp_path / "records").iterdir())


@pytest.mark.parametrize(
    ("task", "options", "names", "largest"),
    [
        ("Task01_BrainMS", {"modalities": ["T1Gd", "T2w"], "stride": 40}, ["T1Gd", "T2w"], 218),
        ("Task03_AbdomenCT", {"window": [-160, 240], "stride": 20}, ["CT"], 512),
    ],
)
def test_real_tasks(real_data, task, options, names, largest):
    if not (real_data / task).is_dir():
        pytest.skip(f"no {task} in {real_data}")
    tasks = read(request(real_data / task, **options))
    assert list(tasks) == names
    for pairs in tasks.values():
        assert len(pairs) >= 4
        for pair in pairs:
            assert max(pair.fixed.shape) == largest
            assert np.corrcoef(pair.moving.ravel(), pair.fixed.ravel())[0, 1] > 0.8
    if task == "Task03_AbdomenCT":
        image = next(pair.fixed for pair in pairs if pair.key.endswith("#40"))
        assert (image.min(), image.max()) == (-160, 240)
        bone, soft = image == 240, (image > 90) & (image < 160)
        assert bone[256:].sum() > 5 * bone[:256].sum()  # the spine is below
        assert soft[:, :256].sum() > 1.5 * soft[:, 256:].sum()  # the liver is on the left of the picture
        assert pairs[0].fixed_spacing == pytest.approx((0.727, 0.727), abs=1e-3)
        assert pairs[0].fixed_labels is None
    else:
        assert len({pair.subject for pair in pairs}) == 3
        assert any(pair.fixed_labels.any() for pair in pairs)
        assert pairs[0].fixed_spacing == (1.0, 1.0)
