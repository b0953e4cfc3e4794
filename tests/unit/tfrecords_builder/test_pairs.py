from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from tfmetareg.errors import InputErrors, UserError
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
