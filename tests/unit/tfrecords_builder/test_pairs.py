from __future__ import annotations

import re

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.unit.tfmetareg.imaging import landmark_texts
from tests.unit.tfrecords_builder.dicom_files import stored, write
from tfmetareg.data.schema import Manifest
from tfmetareg.errors import InputErrors, UserError
from tfmetareg.imaging.labels import labels_of_codes
from tfrecords_builder.inspection import read_shard
from tfrecords_builder.sources.base import Request
from tfrecords_builder.sources.pairs import pairs_tasks
from tfrecords_builder.splits import PairInfo, assign_splits, held_out_subjects


def request(root, **changes):
    return Request(
        **{"input": root, "task": None, "role": "source", "image_size": (32, 32), "seed": 0, **changes}
    )


def read(asked):
    """Tasks with their pairs read; problems raised."""
    tasks = {task.name: list(task.pairs) for task in pairs_tasks(asked)}
    asked.problems.raise_any()
    return tasks


def test_rows_become_pairs(pairs_folder):
    pairs_folder.columns += [
        "split",
        "moving_landmarks",
        "fixed_landmarks",
        "moving_spacing",
        "fixed_spacing",
    ]
    pairs_folder.text("m.csv", "x,y\n3,5\n")
    pairs_folder.text("f.csv", "row,col\n6,4\n")
    pairs_folder.rows = [
        ["m0.png", "f0.png", "eye0", " Train", "m.csv", "f.csv", "0.5", "0.5x0.25"],
        ["m1.png", "f1.png", "", "test", "", "", "", "1 2"],
    ]
    tasks = read(request(pairs_folder.table()))
    assert list(tasks) == ["input"]
    first, second = tasks["input"]
    np.testing.assert_array_equal(first.moving, np.asarray(Image.open(pairs_folder.root / "m0.png")))
    np.testing.assert_array_equal(first.fixed, np.asarray(Image.open(pairs_folder.root / "f0.png")))
    np.testing.assert_array_equal(first.moving_landmarks, [[5, 3]])
    np.testing.assert_array_equal(first.fixed_landmarks, [[6, 4]])
    assert (first.subject, first.split) == ("eye0", "train")
    assert (first.moving_spacing, first.fixed_spacing) == ((0.5, 0.5), (0.5, 0.25))
    assert second.subject == "f1.png"
    assert (second.moving_spacing, second.fixed_spacing) == (None, (1.0, 2.0))
    assert second.fixed_landmarks.shape == (0, 2)


def test_pairs_are_read_lazily_and_again(pairs_folder):
    (task,) = pairs_tasks(request(pairs_folder.table()))
    assert len(task.pairs) == 6
    assert [pair.key for pair in task.pairs] == [pair.key for pair in task.pairs]
    (pairs_folder.root / "m5.png").unlink()
    assert next(iter(task.pairs)).key == "m0.png:f0.png"


def test_pairs_that_share_an_image_are_one_subject_where_none_is_named(pairs_folder):
    pairs_folder.rows = [[f"m{n}.png", f"m{n + 1}.png", ""] for n in (0, 1, 4)] + [["f0.png", "f1.png", ""]]
    (pairs,) = read(request(pairs_folder.table())).values()
    first, second, third, fourth = [pair.subject for pair in pairs]
    assert first == second
    assert len({first, third, fourth}) == 3


def test_a_pair_without_subject_takes_that_of_the_pairs_it_shares_images_with(pairs_folder):
    """m0 and m1 are named, m2 hangs on m1 by way of f1, f4 stands alone."""
    pairs_folder.rows = [
        ["m0.png", "f0.png", "eye0"],
        ["m1.png", "f1.png", "eye1"],
        ["m2.png", "f1.png", ""],
        ["m2.png", "f2.png", ""],
        ["m4.png", "f4.png", ""],
    ]
    (pairs,) = read(request(pairs_folder.table())).values()
    assert [pair.subject for pair in pairs] == ["eye0", "eye1", "eye1", "eye1", "f4.png"]


@pytest.mark.parametrize("link", [False, True])
def test_two_subjects_that_share_an_image_are_refused(pairs_folder, link):
    """eye1's pair and eye0's hang together by a pair that names neither, and by a link under another name."""
    shared = "m0.png"
    if link:
        shared = "other.png"
        (pairs_folder.root / shared).symlink_to("m0.png")
    pairs_folder.rows = [
        ["m0.png", "f0.png", "eye0"],
        [shared, "f1.png", ""],
        ["m2.png", "f1.png", "eye1"],
    ]
    with pytest.raises(InputErrors) as error:
        read(request(pairs_folder.table()))
    (line,) = error.value.lines
    assert "line 4: subjects `eye0` and `eye1` share an image" in line


@pytest.mark.parametrize("named", [0.0, 0.5, 1.0])
def test_no_image_is_in_two_splits(pairs_folder, named):
    """Random pairs over few images, some with a subject: either refused, or never divided."""
    rng = np.random.default_rng(int(10 * named))
    divided = refused = 0
    for _ in range(30):
        pairs_folder.rows = [
            [f"m{m}.png", f"f{f}.png", f"eye{m}" if rng.random() < named else ""]
            for m, f in sorted({tuple(rng.integers(0, 6, 2)) for _ in range(5)})
        ]
        try:
            (pairs,) = read(request(pairs_folder.table())).values()
        except InputErrors:
            refused += 1
            continue
        members = [PairInfo(p.key, p.subject, p.split) for p in pairs]
        splits = assign_splits(members, "source", held_out_subjects([members]))
        homes = {}
        for key, split in splits.items():
            for image in key.split(":"):
                assert homes.setdefault(image, split) == split
        divided += len({*splits.values()}) == 2
    assert divided > 0
    assert (refused > 0) == (named > 0)


def test_task_column(pairs_folder):
    pairs_folder.columns.append("task")
    for row, name in zip(pairs_folder.rows, "aabbbc"):
        row.append(name)
    root = pairs_folder.table()
    assert {name: len(pairs) for name, pairs in read(request(root)).items()} == {"a": 2, "b": 3, "c": 1}
    assert {name: len(pairs) for name, pairs in read(request(root, task="b")).items()} == {"b": 3}
    with pytest.raises(UserError, match="has no task `d`.*a, b, c"):
        read(request(root, task="d"))


def test_subjects_are_those_of_all_tasks(pairs_folder):
    """m0 hangs on f1, in another task, and this on m1, which is named there; m2 is in two, named in none."""
    pairs_folder.columns.append("task")
    pairs_folder.rows = [
        ["m0.png", "f0.png", "", "a"],
        ["m0.png", "f1.png", "", "b"],
        ["m1.png", "f1.png", "eye1", "c"],
        ["m2.png", "f2.png", "", "a"],
        ["m2.png", "f3.png", "", "b"],
    ]
    tasks = read(request(pairs_folder.table()))
    subjects = {name: [pair.subject for pair in pairs] for name, pairs in tasks.items()}
    assert subjects == {"a": ["eye1", "f2.png"], "b": ["eye1", "f2.png"], "c": ["eye1"]}


def test_the_only_task_is_renamed(pairs_folder):
    pairs_folder.columns.append("task")
    for row in pairs_folder.rows:
        row.append("a")
    assert list(read(request(pairs_folder.table(), task="new"))) == ["new"]


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ("moving,subject\na.png,b\n", "column `fixed` is missing"),
        ("m0.png,f0.png\n", "column `moving` is missing"),
        (
            "moving,fixed,moving_landmark\na,b,c\n",
            "unknown column `moving_landmark`; did you mean `moving_landmarks`",
        ),
        ("moving,fixed,moving_landmarks\na,b,c\n", "`moving_landmarks` and `fixed_landmarks` go together"),
        ("moving,fixed\n", "no pairs"),
        ("", "empty file"),
    ],
)
def test_wrong_tables(pairs_folder, table, rule):
    pairs_folder.text("pairs.csv", table)
    with pytest.raises(UserError, match=rule) as error:
        pairs_tasks(request(pairs_folder.root))
    assert "pairs.csv" in str(error.value)


def test_missing_folder_and_table(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        pairs_tasks(request(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="pairs.csv: no such file"):
        pairs_tasks(request(tmp_path))


def test_every_problem_is_named_in_one_run(pairs_folder):
    pairs_folder.columns += ["moving_landmarks", "fixed_landmarks", "moving_spacing", "fixed_spacing"]
    points = {
        "one": "x,y\n1,2\n",
        "two": "x,y\n1,2\n3,4\n",
        "far": "x,y\n1,2\n48,4\n",
        "bare": "1,2\n",
        "odd": "x,y\n1,b\n",
    }
    for name, text in points.items():
        pairs_folder.text(f"{name}.csv", text)
    (pairs_folder.root / "m1.png").unlink()
    pairs_folder.text("f1.png", "not an image")
    rest = [
        ["one.csv", "two.csv", "", ""],
        ["", "", "-1", "a"],
        ["far.csv", "two.csv", "", ""],
        ["bare.csv", "odd.csv", "", ""],
        ["one.csv", "", "", ""],
        ["one.csv", "../one.csv", "", ""],
    ]
    for row, cells in zip(pairs_folder.rows, rest):
        row += cells
    pairs_folder.rows += [["./m0.png", "f0.png", "x", "", "", "", ""], ["/etc/a.png", "", "", "", "", "", ""]]
    with pytest.raises(InputErrors) as error:
        read(request(pairs_folder.table()))
    expected = [
        "two.csv: 2 landmarks, .*one.csv has 1",
        "m1.png: no such file",
        "f1.png: unreadable image",
        "line 3: spacing must be .* got `-1`",
        "line 3: spacing must be .* got `a`",
        r"far.csv: point 2 \(x 48, y 4\) lies outside the image of width 48 and height 40",
        "bare.csv: the first line must be a header",
        "odd.csv, line 2: a coordinate must be a finite number, got `b`",
        "line 6: landmarks for one image only",
        "line 7: `../one.csv` leads out of the folder",
        "line 8: the same pair as in line 2",
        "line 9: `fixed` is empty",
        "line 9: `/etc/a.png` leads out of the folder",
    ]
    assert len(error.value.lines) == len(expected)
    for rule in expected:
        with pytest.raises(UserError, match=rule):
            raise error.value


def test_absolute_paths_lead_out_of_the_folder(pairs_folder):
    pairs_folder.rows[0][1] = str(pairs_folder.root / "f0.png")
    with pytest.raises(UserError, match="leads out of the folder"):
        read(request(pairs_folder.table()))


def test_real_landmarks_match_real_vessels(real_data):
    """Landmarks are vessel junctions: far brighter there than on average, in both scans."""
    (task,) = pairs_tasks(request(real_data / "octa_scp"))
    for _, pair in zip(range(3), task.pairs):
        for image, points in ((pair.moving, pair.moving_landmarks), (pair.fixed, pair.fixed_landmarks)):
            rows, columns = np.rint(points).astype(int).T
            assert image[rows, columns].mean() > 1.5 * image.mean()
            assert image[rows, columns].mean() > 1.5 * image[columns, rows].mean()


@pytest.fixture
def labelled_folder(pairs_folder):
    """Three pairs with label maps: a palette and a grey PNG, npy and TIFF, and none."""
    labels = np.zeros((40, 48), np.int64)
    labels[10:20, 12:30] = 1
    labels[22:30, 5:15] = 2
    root = pairs_folder.root
    colours = Image.fromarray(np.uint8(labels), "P")
    colours.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    colours.save(root / "m0_seg.png")
    Image.fromarray(np.uint8(labels)).save(root / "f0_seg.png")
    np.save(root / "m1_seg.npy", np.where(labels == 2, -7, 70000 * labels))
    tifffile.imwrite(root / "f1_seg.tif", np.int32(np.where(labels == 2, -7, 70000 * labels)))
    pairs_folder.columns = ["moving", "fixed", "split", "moving_labels", "fixed_labels"]
    pairs_folder.rows = [
        ["m0.png", "f0.png", "train", "m0_seg.png", "f0_seg.png"],
        ["m1.png", "f1.png", "train", "m1_seg.npy", "f1_seg.tif"],
        ["m2.png", "f2.png", "train", "", ""],
    ]
    pairs_folder.labels = labels
    return pairs_folder


def test_label_maps_come_with_their_pairs(labelled_folder):
    (pairs,) = read(request(labelled_folder.table())).values()
    for name in ("moving_labels", "fixed_labels"):
        first, second, third = (getattr(pair, name) for pair in pairs)
        np.testing.assert_array_equal(first, labelled_folder.labels)
        assert set(np.unique(second)) == {-7, 0, 70000}
        assert third is None


def test_records_of_labels_hold_their_numbers(labelled_folder, run, tmp_path):
    arguments = ("build", "--source", "pairs", "--input", labelled_folder.table(), "--workers", 1)
    status, _, err = run(*arguments, "--output", tmp_path / "rec", "--image-size", 40, 48, "--shards", 1)
    assert status == 0, err
    (shard,) = Manifest.read(tmp_path / "rec").tasks[0].splits["train"].shards
    found = {pair.key: pair for pair in read_shard(tmp_path / "rec", shard)}
    first, second, third = (found[f"m{number}.png:f{number}.png"] for number in range(3))
    np.testing.assert_array_equal(first.moving_labels, labelled_folder.labels)
    assert first.label_values is None and third.moving_labels is third.label_values is None
    for codes in (second.moving_labels, second.fixed_labels):
        expected = np.where(labelled_folder.labels == 2, -7, 70000 * labelled_folder.labels)
        np.testing.assert_array_equal(labels_of_codes(codes, second.label_values), expected)


def test_every_problem_with_labels_is_named_in_one_run(labelled_folder):
    root = labelled_folder.root
    np.save(root / "small.npy", np.zeros((39, 48), np.uint8))
    np.save(root / "half.npy", np.full((40, 48), 0.5))
    Image.fromarray(np.zeros((40, 48, 3), np.uint8) + np.uint8([0, 9, 0])).save(root / "colour.png")
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(root / "lossy.jpg")
    labelled_folder.rows = [
        ["m0.png", "f0.png", "", "small.npy", "half.npy"],
        ["m1.png", "f1.png", "", "colour.png", "lossy.jpg"],
        ["m2.png", "f2.png", "", "m0_seg.png", ""],
        ["m3.png", "f3.png", "", "", "m0_seg.png"],
        ["m4.png", "f4.png", "", "none.png", "/etc/f0_seg.png"],
        ["m5.png", "f5.png", "", "none.png", "f0_seg.png"],
    ]
    with pytest.raises(InputErrors) as error:
        read(request(labelled_folder.table()))
    expected = [
        r"small.npy: label map of 39 x 48 pixels for an image of 40 x 48 \(.*m0.png\)",
        "half.npy: labels must be whole numbers, got 0.5",
        "colour.png: a colour image; a label map holds one number for each pixel",
        "lossy.jpg: JPEG changes label numbers",
        "line 4: labels for one image only",
        "line 5: `fixed_labels` without `moving_labels`",
        "line 6: `/etc/f0_seg.png` leads out of the folder",
        "none.png: no such file",
    ]
    assert len(error.value.lines) == len(expected), error.value.lines
    for rule in expected:
        with pytest.raises(UserError, match=rule):
            raise error.value


def test_label_maps_that_number_otherwise_get_a_note(labelled_folder, run):
    Image.fromarray(np.uint8(255 * (labelled_folder.labels > 0))).save(labelled_folder.root / "mask.png")
    labelled_folder.rows[0][3] = "mask.png"
    status, _, err = run("validate", "--source", "pairs", "--input", labelled_folder.table(), "--workers", 1)
    assert status == 0
    assert "line 2: the label maps have no label in common (moving: 255; fixed: 1, 2): check how" in err


@pytest.fixture
def volumes_folder(pairs_folder):
    """Two volumes of 9 slices, one of them with two channels; rows that name their slices."""
    voxels = np.random.default_rng(0).normal(size=(12, 14, 9, 2)).astype(np.float32)
    affine = np.diag([-2.0, 0.5, 3.0, 1.0])  # from right to left
    nibabel.save(nibabel.Nifti1Image(voxels[..., 0], affine), pairs_folder.root / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels, affine), pairs_folder.root / "b.nii")
    pairs_folder.columns = ["moving", "fixed"]
    pairs_folder.rows = [["a.nii.gz#4", "a.nii.gz#3"], ["./a.nii.gz#7", "a.nii.gz#6"]]
    pairs_folder.rows += [['"b.nii#4,1"', '"b.nii#3,1"']]
    return pairs_folder


def test_slices_of_volumes_are_turned_and_bring_their_spacing(volumes_folder):
    (pairs,) = read(request(volumes_folder.table())).values()
    # x runs from right to left in the file already, as in the picture; y is turned to run downwards.
    voxels = nibabel.load(volumes_folder.root / "b.nii").get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(pairs[0].moving, voxels[:, ::-1, 4, 0].T)
    np.testing.assert_array_equal(pairs[2].fixed, voxels[:, ::-1, 3, 1].T)
    assert pairs[0].moving_spacing == pairs[2].fixed_spacing == pytest.approx((0.5, 2.0))
    assert pairs[2].key == "b.nii#4,1:b.nii#3,1"


def test_the_slices_of_a_volume_are_one_subject(volumes_folder):
    (pairs,) = read(request(volumes_folder.table())).values()
    assert [pair.subject for pair in pairs] == ["a.nii.gz", "a.nii.gz", "b.nii"]
    volumes_folder.rows.append(["a.nii.gz#1", '"b.nii#1,0"'])
    (pairs,) = read(request(volumes_folder.table())).values()
    assert len({pair.subject for pair in pairs}) == 1


def test_a_spacing_in_the_table_goes_before_that_of_the_volume(volumes_folder):
    volumes_folder.columns += ["moving_spacing", "fixed_spacing"]
    volumes_folder.rows = [["a.nii.gz#4", "a.nii.gz#3", "9", ""]]
    ((pair,),) = read(request(volumes_folder.table())).values()
    assert pair.moving_spacing == (9, 9)
    assert pair.fixed_spacing == pytest.approx((0.5, 2.0))


def test_slices_of_label_volumes_are_those_of_the_images(volumes_folder):
    """Numbers that float32 does not tell apart, stored in another orientation than the image."""
    labels = np.resize(np.arange(2**24, 2**24 + 12 * 14 * 9, dtype=np.int32) // 9 * 9, (12, 14, 9))
    affine = nibabel.load(volumes_folder.root / "a.nii.gz").affine
    axes = nibabel.orientations.axcodes2ornt(("S", "A", "R"))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), axes)
    stored = nibabel.Nifti1Image(labels, affine).as_reoriented(turn)
    nibabel.save(stored, volumes_folder.root / "seg.nii.gz")
    volumes_folder.columns += ["moving_labels", "fixed_labels"]
    volumes_folder.rows = [["a.nii.gz#4", "a.nii.gz#3", "seg.nii.gz#4", "seg.nii.gz#3"]]
    ((pair,),) = read(request(volumes_folder.table())).values()
    np.testing.assert_array_equal(pair.moving_labels, labels[:, ::-1, 4].T)
    np.testing.assert_array_equal(pair.fixed_labels, labels[:, ::-1, 3].T)
    volumes_folder.rows[0][3] = "seg.nii.gz#5"
    with pytest.raises(
        InputErrors, match="seg.nii.gz#5: its pixel size, orientation, origin or slice differs"
    ):
        read(request(volumes_folder.table()))


def test_slices_that_are_not_there_are_a_line_each(volumes_folder):
    volumes_folder.rows = [["a.nii.gz#9", "a.nii.gz#8"], ["a.nii.gz#x", "b.nii#0"], ["c.nii#1", "a.nii.gz#1"]]
    with pytest.raises(InputErrors) as caught:
        read(request(volumes_folder.table()))
    said = [
        "has no slice 9; slices are 0 to 8",
        "a.nii.gz#x: name a slice as `#INDEX`",
        "b.nii: has 2 channels; name one",
        "c.nii: no such file",
    ]
    assert len(caught.value.lines) == len(said), caught.value.lines
    for line, part in zip(caught.value.lines, said):
        assert part in line


LAS_AND_RAS = {"m": np.diag([-2.0, 0.5, 3.0, 1.0]), "f": np.diag([2.0, 0.5, 3.0, 1.0])}


def nifti_pair(folder, affines, columns=(20, 30)):
    """Two volumes of one slice that show the same, each by its own affine; landmarks on the same tissue."""
    pixels = np.random.default_rng(0).random((48, 40)).astype(np.float32)
    mirrored = {name: affine[0, 0] < 0 for name, affine in affines.items()}
    for name, affine in affines.items():
        shown = pixels[:, ::-1] if mirrored[name] else pixels
        nibabel.save(nibabel.Nifti1Image(shown.T[..., None], affine), folder.root / f"{name}.nii")
        at = [39 - x if mirrored[name] else x for x in columns]
        folder.text(f"{name}.csv", "x,y\n" + "".join(f"{x},{y}\n" for x, y in zip(at, (5, 41))))
    folder.columns = ["moving", "fixed", "moving_landmarks", "fixed_landmarks"]
    folder.rows = [["m.nii", "f.nii", "m.csv", "f.csv"]]
    return folder.table()


def test_the_moving_image_gets_the_fixed_images_direction_with_its_landmarks(pairs_folder):
    ((pair,),) = read(request(nifti_pair(pairs_folder, LAS_AND_RAS))).values()
    np.testing.assert_array_equal(pair.moving, pair.fixed)
    np.testing.assert_array_equal(pair.moving_landmarks, pair.fixed_landmarks)
    np.testing.assert_array_equal(pair.fixed_landmarks, [[5, 20], [41, 30]])
    (note,) = pair.notes
    assert note.image.endswith("m.nii") and "turned or mirrored" in note.text
    assert pair.moving_spacing == pair.fixed_spacing == (0.5, 2.0)


def test_images_of_one_direction_stay_as_they_are(pairs_folder):
    ((pair,),) = read(request(nifti_pair(pairs_folder, {**LAS_AND_RAS, "f": LAS_AND_RAS["m"]}))).values()
    stored = np.asarray(nibabel.load(pairs_folder.root / "m.nii").dataobj)[..., 0].T
    np.testing.assert_array_equal(pair.moving, stored)
    assert pair.notes == ()


def test_a_pair_of_two_planes_is_refused(pairs_folder):
    sagittal = np.diag([3.0, 2.0, 0.5, 1.0])[:, [1, 2, 0, 3]]
    root = nifti_pair(pairs_folder, {**LAS_AND_RAS, "f": sagittal})
    with pytest.raises(UserError, match="planes 90 degrees apart"):
        read(request(root))


def test_what_was_done_to_read_images_is_said_once_for_each_kind(pairs_folder, run):
    nifti_pair(pairs_folder, LAS_AND_RAS)
    pairs_folder.rows[0] += ["test"]
    pairs_folder.columns += ["split"]
    for number in range(3):
        pairs_folder.image(f"p{number}.png", number)
        pairs_folder.rows.append([f"p{number}.png", "f.nii", "", "", "test"])
    pairs_folder.rows.append([pairs_folder.image("a.png"), pairs_folder.image("b.png", 1), "", "", "train"])
    options = ("--source", "pairs", "--input", pairs_folder.table(), "--image-size", 32, 32)
    for command in (("validate", *options), ("build", *options, "--output", pairs_folder.root / "out")):
        status, _, err = run(*command)
        assert status == 0, err
        notes = [line for line in err.splitlines() if line.startswith("note: ")]
        assert len(notes) == 2, err
        assert notes[0].startswith(f"note: {pairs_folder.root / 'm.nii'}: its header has it turned")
        assert notes[1].startswith(f"note: {pairs_folder.root / 'p0.png'} and 2 more images: tells no dir")


def test_2d_nifti_images_bring_their_pixel_size(pairs_folder):
    for name in "mf":
        pixels = np.random.default_rng(0).random((40, 48)).astype(np.float32)
        nibabel.save(
            nibabel.Nifti1Image(pixels, np.diag([0.5, 1.25, 1, 1])), pairs_folder.root / f"{name}.nii"
        )
    pairs_folder.rows = [["m.nii", "f.nii", ""]]
    ((pair,),) = read(request(pairs_folder.table())).values()
    assert pair.moving_spacing == pair.fixed_spacing == (1.25, 0.5)


def slice_places(index: int) -> np.ndarray:
    """(2, 3), mm, LPS, on an axial slice of `volumes_folder`: voxels (3, 4) and (7, 11) of its plane."""
    return np.array([[2.0 * i, -0.5 * j, 3.0 * index] for i, j in ((3, 4), (7, 11))])


def test_landmarks_in_mm_lie_on_the_slice_as_it_is_turned(volumes_folder):
    volumes_folder.columns += ["moving_landmarks", "fixed_landmarks"]
    volumes_folder.text("m.fcsv", landmark_texts.fcsv(slice_places(4)))
    ras = landmark_texts.flipped(slice_places(3))
    volumes_folder.text("f.mrk.json", landmark_texts.markups(ras, "RAS"))
    volumes_folder.rows = [["a.nii.gz#4", "a.nii.gz#3", "m.fcsv", "f.mrk.json"]]
    ((pair,),) = read(request(volumes_folder.table())).values()
    # The picture is turned in y: the voxel j is the row 13 - j.
    np.testing.assert_allclose(pair.moving_landmarks, [[9, 3], [2, 7]], atol=1e-3)
    np.testing.assert_allclose(pair.fixed_landmarks, pair.moving_landmarks, atol=1e-3)
    assert pair.notes == ()


LANDMARK_FAULTS = [
    (
        "m.fcsv",
        lambda k: landmark_texts.fcsv(slice_places(k + 3)),
        r"m.fcsv: point 1 \(F-1\) .* lies 9 mm off",
    ),
    (
        "m.csv",
        lambda k: landmark_texts.slicer_table(landmark_texts.flipped(slice_places(k))),
        "m.csv: point 1 .* read as RAS",
    ),
    ("m.csv", lambda k: "row,col\n9,60\n1,2\n", "m.csv: point 1 .* lies outside"),
    ("m.csv", lambda k: "row,col\n3,13\n7,2\n", "m.csv: point 1 .* read as x and y exchanged"),
    ("m.csv", lambda k: "MNI Tag Point File\nVolumes = 1;\n", "m.csv: an MNI tag point file; it is not read"),
    (
        "m.csv",
        lambda k: landmark_texts.slicer_table(slice_places(k)).replace(",1,1,1,0,", ",0,1,1,0,", 1),
        "m.csv, line 2: this point has no position",
    ),
    ("m.csv", lambda k: "x,y,z\n1,2,3\n4,5,6\n", "m.csv: the columns `x,y,z` may be mm or pixels"),
    (
        "m.csv",
        lambda k: landmark_texts.ants(slice_places(k)[:1]),
        "m.csv has 1; row i of one must match row i",
    ),
]


def test_every_fault_of_landmark_files_is_named_in_one_run(volumes_folder):
    volumes_folder.columns += ["moving_landmarks", "fixed_landmarks"]
    volumes_folder.rows = []
    for number, (name, text, _) in enumerate(LANDMARK_FAULTS):
        volumes_folder.text(f"{number}{name}", text(number + 1))
        volumes_folder.text(f"{number}f.fcsv", landmark_texts.fcsv(slice_places(number)))
        slices = [f"a.nii.gz#{number + 1}", f"a.nii.gz#{number}"]
        volumes_folder.rows.append([*slices, f"{number}{name}", f"{number}f.fcsv"])
    with pytest.raises(InputErrors) as caught:
        read(request(volumes_folder.table()))
    lines = caught.value.lines
    for number, (_, _, said) in enumerate(LANDMARK_FAULTS):
        assert any(re.search(f"/{number}{said}", line) for line in lines), (said, lines)
    assert any(re.search("7f.fcsv: 2 landmarks, ", line) for line in lines)
    assert len(lines) == len(LANDMARK_FAULTS)


def test_landmarks_with_x_and_y_exchanged_in_one_file_are_told(pairs_folder, run):
    """Both files fit their images; validate says which reading would fit better, and goes on."""
    points = np.random.default_rng(0).uniform(2, 38, (8, 2))
    for name, order in (("m.csv", [1, 0]), ("f.csv", [0, 1])):
        pairs_folder.text(name, "x,y\n" + "".join(f"{x},{y}\n" for x, y in points[:, order].tolist()))
    pairs_folder.columns += ["moving_landmarks", "fixed_landmarks"]
    pairs_folder.rows = [[*row, "m.csv", "f.csv"] for row in pairs_folder.rows[:2]]
    status, _, err = run("validate", "--source", "pairs", "--input", pairs_folder.table(), "--workers", 1)
    assert status == 0
    (line,) = [line for line in err.splitlines() if line.startswith("note: ")]
    assert (
        "m.csv: its landmarks lie 47% of the image from those of f.csv" in line
        and "if one of the two files is read as x and y exchanged" in line
    )


def test_dicom_files_frames_and_pages_are_images(tmp_path):
    frames = np.stack([stored(number) for number in range(3)])
    write(tmp_path / "a.dcm", 0)
    write(tmp_path / "IM0001", 1)  # DICOM by its content.
    write(tmp_path / "clip.dcm", image=frames, Rows=20, Columns=24, NumberOfFrames=3)
    tifffile.imwrite(tmp_path / "stack.tif", frames, photometric="minisblack")
    rows = ("a.dcm,IM0001", "clip.dcm#2,clip.dcm#0", "stack.tif#1,stack.tif#0", "stack.tif#2,a.dcm")
    (tmp_path / "pairs.csv").write_text("moving,fixed\n" + "\n".join(rows) + "\n")
    (pairs,) = read(request(tmp_path)).values()
    one, clip, stack, mixed = pairs
    np.testing.assert_array_equal(one.moving, stored(0).astype(int) - 1000)
    np.testing.assert_array_equal(one.fixed, stored(1).astype(int) - 1000)
    assert one.moving_spacing == (0.8, 0.7)
    np.testing.assert_array_equal(clip.moving, frames[2].astype(int) - 1000)
    np.testing.assert_array_equal(stack.moving, frames[1])
    # Frames and pages of one file are one subject.
    assert stack.subject == mixed.subject == one.subject != clip.subject


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("clip.dcm", "holds 3 frames; name one, as in `clip.dcm#0`"),
        ("clip.dcm#3", "has no frame 3; frames are 0 to 2"),
        ("gone.dcm#1", "no such file"),
        ("a.png#0", "`#0` names a page of a TIFF or DICOM file; take it away"),
    ],
)
def test_frames_that_are_not_there(tmp_path, name, rule):
    frames = np.stack([stored(number) for number in range(3)])
    write(tmp_path / "clip.dcm", image=frames, Rows=20, Columns=24, NumberOfFrames=3)
    Image.fromarray(np.uint8(stored(0) % 256)).save(tmp_path / "a.png")
    (tmp_path / "pairs.csv").write_text(f"moving,fixed\n{name},clip.dcm#1\n")
    with pytest.raises(InputErrors, match=rule):
        read(request(tmp_path))
