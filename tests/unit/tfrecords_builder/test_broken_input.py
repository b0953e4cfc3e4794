"""What users get wrong: one clear line for each mistake, all of a set together, and nothing written."""

from __future__ import annotations

import os
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

SIZE = ["--image-size", 32, 32]
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
VOLUME = np.random.default_rng(0).random((24, 26, 12)).astype(np.float32)

# Each case changes the good folder (which has not yet its table) and returns further arguments, if any.
CASES = {}


def case(*expected):
    """Registers a way to break the input, with what each line of the answer must say."""

    def register(change):
        assert change.__name__ not in CASES
        CASES[change.__name__] = (change, expected)
        return change

    return register


def replace(folder, **cells):
    """Changes cells of the first row."""
    for name, value in cells.items():
        if name not in folder.columns:
            folder.columns.append(name)
            for row in folder.rows:
                row.append("")
        folder.rows[0][folder.columns.index(name)] = value


def save_array(folder, image, name="broken.npy"):
    np.save(folder.root / name, image)
    replace(folder, moving=name)


def save_nifti(folder, array, name="broken.nii.gz", place=""):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder.root / name)
    replace(folder, moving=name + place)


def save_with_first_row_of_affine(folder, row):
    """nibabel does not write such an affine; other programs do. The sform's first row is at byte 280."""
    save_nifti(folder, VOLUME, "broken.nii", "#3")
    content = (folder.root / "broken.nii").read_bytes()
    (folder.root / "broken.nii").write_bytes(content[:280] + np.float32(row).tobytes() + content[296:])


def landmarks(folder, moving="x,y\n1,2\n3,4\n", fixed="x,y\n1,2\n3,4\n"):
    folder.text("moving.csv", moving)
    folder.text("fixed.csv", fixed)
    replace(folder, moving_landmarks="moving.csv", fixed_landmarks="fixed.csv")


# Images


@case("m0.png: unreadable image")
def truncated_png(folder):
    content = (folder.root / "m0.png").read_bytes()
    (folder.root / "m0.png").write_bytes(content[: len(content) // 2])


@case("m0.png: unreadable image")
def zero_bytes(folder):
    (folder.root / "m0.png").write_bytes(b"")


@case("m0.png: unreadable image")
def text_named_png(folder):
    folder.text("m0.png", "I am no image\n")


@case("broken.nii.gz: unreadable image")
def truncated_nifti(folder):
    save_nifti(folder, VOLUME[..., 0])
    path = folder.root / "broken.nii.gz"
    path.write_bytes(path.read_bytes()[:300])


@case("broken.nii.gz: holds NaN or infinity")
def nifti_with_nan(folder):
    save_nifti(folder, np.where(np.eye(24, 26) > 0, np.nan, VOLUME[..., 0]))


@case("broken.nii.gz: holds NaN or infinity")
def nifti_with_infinity(folder):
    save_nifti(folder, np.where(np.eye(24, 26) > 0, np.inf, VOLUME[..., 0]))


@case("broken.nii.gz: must be one 2D image, got an array of shape")
def volume_where_a_slice_is_due(folder):
    save_nifti(folder, VOLUME)


@case("broken.nii.gz: must be one 2D image, got an array of shape")
def four_dimensions(folder):
    save_nifti(folder, np.stack([VOLUME, VOLUME], axis=-1))


@case("broken.nii.gz: has 2 channels; name one")
def slice_of_a_4d_volume_without_channel(folder):
    save_nifti(folder, np.stack([VOLUME, VOLUME], axis=-1), place="#3")


@case("broken.nii.gz: has no slice 99; slices are 0 to 11")
def slice_beyond_the_volume(folder):
    save_nifti(folder, VOLUME, place="#99")


@case("broken.nii: its affine is singular")
def singular_affine(folder):
    save_with_first_row_of_affine(folder, [0, 0, 0, 0])


@case("broken.nii: its affine is singular")
def affine_of_nan(folder):
    save_with_first_row_of_affine(folder, [np.nan, 0, 0, 0])


@case("broken.nii: its affine is singular")
def two_axes_that_point_the_same_way(folder):
    save_with_first_row_of_affine(folder, [0, 1, 0, 0])


@case("broken.npy: intensities must be real numbers, got complex128")
def complex_numbers(folder):
    save_array(folder, IMAGE * 1j)


@case("broken.npy: unreadable image")
def objects(folder):
    save_array(folder, np.array([[{}] * 9] * 9))


@case("broken.npy: intensities must be real numbers, got <U1")
def letters(folder):
    save_array(folder, np.full((12, 12), "a"))


@case("broken.npy: must be one 2D image")
def five_channels(folder):
    save_array(folder, np.stack([IMAGE] * 5, axis=-1))


@case("m0.png: constant image, every pixel is 7")
def constant(folder):
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(folder.root / "m0.png")


@case("m0.png: each side must have at least 8 pixels")
def too_small(folder):
    Image.fromarray(IMAGE[:4]).save(folder.root / "m0.png")


@case("m0.doc: unknown image format")
def unknown_format(folder):
    (folder.root / "m0.png").rename(folder.root / "m0.doc")
    replace(folder, moving="m0.doc")


@case("m0.png: is a folder")
def folder_in_place_of_an_image(folder):
    (folder.root / "m0.png").unlink()
    (folder.root / "m0.png").mkdir()


@case("m0.png: no such file")
def moving_missing(folder):
    (folder.root / "m0.png").unlink()


@case("f0.png: no such file")
def fixed_missing(folder):
    (folder.root / "f0.png").unlink()


@case("m0.png: a link that leads nowhere or in circles")
def broken_link(folder):
    (folder.root / "m0.png").unlink()
    (folder.root / "m0.png").symlink_to("nowhere.png")


@case("m0.png: a link that leads nowhere or in circles")
def link_in_circles(folder):
    (folder.root / "m0.png").unlink()
    (folder.root / "m0.png").symlink_to("loop.png")
    (folder.root / "loop.png").symlink_to("m0.png")


# pairs.csv


@case("line 2: `m0.png` is both the moving and the fixed image")
def one_image_twice(folder):
    replace(folder, fixed="./m0.png")


@case("line 2: `m0.png` is both the moving and the fixed image")
def one_image_twice_by_a_link(folder):
    (folder.root / "f0.png").unlink()
    (folder.root / "f0.png").symlink_to("m0.png")


@case("line 8: the same pair as in line 2")
def duplicate_pair(folder):
    folder.rows.append(["./m0.png", "f0.png", "eye0"])


@case("line 2: `fixed` is empty")
def empty_cell(folder):
    replace(folder, fixed="")


@case("line 2: `../m0.png` leads out of the folder")
def path_to_above(folder):
    replace(folder, moving="../m0.png")


@case("line 2: `/tmp/m0.png` leads out of the folder")
def absolute_path(folder):
    replace(folder, moving="/tmp/m0.png")  # noqa: S108 - never opened


@case("column `fixed` is missing")
def missing_column(folder):
    folder.columns[1:] = ["subject"]
    folder.rows = [[row[0], row[2]] for row in folder.rows]


@case("column `moving` is missing", "column `fixed` is missing", *["unknown column `"] * 3)
def no_header(folder):
    folder.columns = folder.rows.pop()


@case("unknown column `subjects`; did you mean `subject`?")
def unknown_column(folder):
    folder.columns[2] = "subjects"


@case("column `subject` is there twice")
def column_twice(folder):
    folder.columns.append("subject")
    for row in folder.rows:
        row.append("a")


@case("line 2: 4 cells where the header has 3", "line 4: 2 cells where the header has 3")
def rows_of_other_lengths(folder):
    folder.rows[0].append("more")
    folder.rows[2].pop()


@case("a quoted cell goes on over the end of its line")
def open_quotes(folder):
    replace(folder, moving='"m0.png')


@case("pairs.csv: no pairs")
def no_rows(folder):
    folder.rows.clear()


@case("line 2: spacing must be a number above 0", "line 2: spacing must be a number above 0")
def spacing_not_positive(folder):
    replace(folder, moving_spacing="0", fixed_spacing="-1x2")


@case("`moving_spacing` and `fixed_spacing` go together")
def spacing_of_one_image(folder):
    replace(folder, moving_spacing="1")


# Landmarks


@case("fixed.csv: 1 landmarks, ")
def landmark_counts(folder):
    landmarks(folder, fixed="x,y\n1,2\n")


@case("moving.csv, line 2: a coordinate must be a finite number, got `one`")
def landmark_not_a_number(folder):
    landmarks(folder, moving="x,y\none,2\n3,4\n")


@case("moving.csv, line 3: a coordinate must be", "moving.csv, line 2: a coordinate must be")
def landmark_nan_and_infinite(folder):
    landmarks(folder, moving="x,y\nnan,2\n3,inf\n")


@case("fixed.csv: point 2 (x 48, y 4) lies outside the image of width 48 and height 40")
def landmark_outside(folder):
    landmarks(folder, fixed="x,y\n1,2\n48,4\n")


@case("moving.csv: the first line must be a header with `x,y`")
def landmarks_without_header(folder):
    landmarks(folder, moving="1,2\n3,4\n")


@case("line 2: landmarks for one image only")
def landmarks_of_one_image(folder):
    landmarks(folder)
    replace(folder, fixed_landmarks="")


@case("fixed.csv: no such file")
def landmark_file_missing(folder):
    landmarks(folder)
    (folder.root / "fixed.csv").unlink()


# Splits


def with_splits(folder, *splits):
    folder.columns.append("split")
    for row, split in zip(folder.rows, splits):
        row.append(split)


@case("subject eye0 is in two splits, test and train")
def subject_in_two_splits(folder):
    with_splits(folder, "train", "test", "train", "train", "test", "test")


@case("m4.png:f4.png and 1 more: split of a source task must be train or test, got `val`")
def unknown_split(folder):
    with_splits(folder, "train", "train", "train", "train", "val", "val")


@case("m5.png:f5.png: no split, while other pairs of the task have one")
def split_of_some_pairs(folder):
    with_splits(folder, *["train"] * 5, "")


@case("line 7: subjects `eye0` and `eye2` share an image")
def subjects_that_share_an_image(folder):
    folder.rows[5][0] = "m0.png"


@case("subject eye0 is in two splits, test and train")
def shared_image_in_two_splits(folder):
    """The second pair names no subject, but shares an image with the first."""
    folder.rows[1] = ["m0.png", "f1.png", ""]
    with_splits(folder, "train", "test", *["train"] * 4)


def splits_file(folder, text):
    return ["--splits", folder.root / folder.text("splits.csv", text)]


@case("splits.csv: no line for subject `eye1`, `eye2`; add one")
def splits_file_leaves_subjects_out(folder):
    return splits_file(folder, "subject,split\neye0,train\n")


@case("splits.csv: the input has no subject `eye9`, `eye10`; correct")
def splits_file_with_unknown_subjects(folder):
    rows = "".join(f"eye{number},train\n" for number in (0, 1, 2, 9, 10))
    return splits_file(folder, "subject,split\n" + rows)


@case(
    "line 3: split must be train, finetune or test, got `val`", "line 4: subject `eye0` is in train already"
)
def splits_file_with_wrong_lines(folder):
    return splits_file(folder, "subject,split\neye0,train\neye1,val\neye0,test\n")


@case("subject eye0 is in two splits, test and train")
def splits_file_divides_a_subject(folder):
    rows = "".join(f"m{n}.png:f{n}.png,{'test' if n else 'train'}\n" for n in range(6))
    return splits_file(folder, "key,split\n" + rows)


@case("splits.csv: the first line must be `subject,split` or `key,split`, got `eye,split`")
def splits_file_with_other_columns(folder):
    return splits_file(folder, "eye,split\neye0,train\n")


@case(
    "m0.png: unreadable image",
    "no line for subject `eye2`; add one",
    "pair m2.png:f2.png and 1 more: split of a source task must be train or test, got `finetune`",
    "what could be read of the input has no subject `eye9`; correct",
)
def splits_file_and_images_are_wrong(folder):
    folder.text("m0.png", "x")
    return splits_file(folder, "subject,split\neye0,train\neye1,finetune\neye9,train\n")


@case("line 2: split must be train, finetune or test, got `val`", "line 2: `fixed` is empty")
def splits_file_and_table_are_wrong(folder):
    replace(folder, fixed="")
    return splits_file(folder, "subject,split\neye0,val\n")


@case("splits.csv: no such file")
def splits_file_missing(folder):
    return ["--splits", folder.root / "splits.csv"]


# Options


@case("`--spacing` keeps a pixel size")
def spacing_with_resize(folder):
    return ["--spacing", 1]


@case(*[f"pair m{n}.png:f{n}.png, moving image: pixel size unknown" for n in range(6)])
def spacing_of_images_without(folder):
    return ["--spacing", 1, "--fit", "crop"]


@case(*[f"pair m{n}.png:f{n}.png, moving image: 40 x 48 pixels are more than" for n in range(6)])
def larger_than_the_frame(folder):
    return ["--fit", "pad"]


@case("`percentiles` must be LOW below HIGH")
def percentiles_the_wrong_way_round(folder):
    return ["--percentiles", 99, 1]


@case("`--percentiles` has no use with `--intensity none`")
def percentiles_without_use(folder):
    return ["--percentiles", 1, 99, "--intensity", "none"]


@case("moving image: `--intensity none` keeps the values of 8 and 16 bit images")
def numbers_of_unknown_meaning(folder):
    save_array(folder, IMAGE.astype(np.int16) - 1024)
    return ["--intensity", "none"]


# The table as a file: a case gives its bytes, or None for no file.

TABLES = {
    "none": (None, "pairs.csv: no such file"),
    "empty": (b"", "pairs.csv: empty file"),
    "blank lines": (b"\n \n", "pairs.csv: empty file"),
    "UTF-16": ("moving,fixed\nm0.png,f0.png\n".encode("utf-16"), "pairs.csv: not UTF-8 text"),
    "Latin-1": ("moving,fixed\nm\xe4.png,f0.png\n".encode("latin-1"), "pairs.csv: not UTF-8 text"),
    "binary": (b"moving,fixed\nm0.png,f0\0.png\n", "pairs.csv: not text but binary"),
    "spaces between": (b"moving fixed\nm0.png f0.png\n", "column `moving` is missing"),
}


def told(run, folder, output, arguments):
    """The errors that `build` names, after checking that `validate` names the same."""
    common = ["--source", "pairs", "--input", folder.root, *SIZE, *arguments]
    status, out, err = run("build", "--output", output, *common)
    assert (status, out) == (2, ""), err
    assert "Traceback" not in err
    status, _, validated = run("validate", *common)
    assert (status, errors(validated)) == (2, errors(err))
    return errors(err)


def errors(text):
    """Without notes, and how far a slow machine has come."""
    return [line for line in text.splitlines() if line.startswith("error: ")]


def check_lines(lines, expected):
    """One line for each expected text, with a remedy behind a semicolon or comma."""
    assert len(lines) == len(expected), lines
    for text in expected:
        assert any(text in line for line in lines), lines
    assert all(";" in line for line in lines), lines


@pytest.mark.parametrize("name", CASES)
def test_a_line_for_each_mistake(pairs_folder, run, tmp_path, listing, name):
    change, expected = CASES[name]
    arguments = change(pairs_folder) or []
    pairs_folder.table()
    before = listing(tmp_path)
    check_lines(told(run, pairs_folder, tmp_path / "records", arguments), expected)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", TABLES)
def test_a_broken_table(pairs_folder, run, tmp_path, listing, name):
    content, expected = TABLES[name]
    if content is not None:
        (pairs_folder.root / "pairs.csv").write_bytes(content)
    before = listing(tmp_path)
    lines = told(run, pairs_folder, tmp_path / "records", [])
    assert expected in lines[0]
    assert all(";" in line for line in lines)
    assert listing(tmp_path) == before


def test_many_mistakes_are_all_told_in_one_run(pairs_folder, run, tmp_path, listing):
    changes = [truncated_png, fixed_missing, landmark_not_a_number, spacing_not_positive, duplicate_pair]
    for change in changes:
        change(pairs_folder)
    pairs_folder.rows[-1] += [""] * 4
    pairs_folder.rows[3][1] = "../f3.png"
    pairs_folder.table()
    before = listing(tmp_path)
    expected = [text for change in changes for text in CASES[change.__name__][1]]
    check_lines(
        told(run, pairs_folder, tmp_path / "records", []), [*expected, "line 5: `../f3.png` leads out"]
    )
    assert listing(tmp_path) == before


def test_an_empty_folder_and_one_without_images(tmp_path, run):
    (tmp_path / "empty").mkdir()
    for source, text in (("pairs", "pairs.csv: no such file"), ("unpaired", "no images in this folder")):
        status, _, err = run("validate", "--source", source, "--input", tmp_path / "empty", *SIZE)
        assert (status, len(errors(err))) == (2, 1)
        assert text in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written(pairs_folder, run, tmp_path):
    root = pairs_folder.table()
    common = ["--source", "pairs", "--input", root, *SIZE]
    (root / "m0.png").chmod(0)
    assert "m0.png: unreadable image" in run("validate", *common)[2]
    (root / "m0.png").chmod(0o600)
    (tmp_path / "locked").mkdir(mode=0o500)
    status, _, err = run("build", *common, "--output", tmp_path / "locked" / "records")
    assert status == 2
    assert "cannot be written (Permission denied)" in err


# The output


def file_in_the_way(output):
    output.write_text("mine")
    return "is a file"


def file_above(output):
    output.parent.write_text("mine")
    return "cannot be written"


def damaged_manifest(output):
    output.mkdir(parents=True)
    (output / "manifest.json").write_text('{"schema": 1, "tasks": 3}')
    return "damaged manifest"


def manifest_that_is_no_json(output):
    output.mkdir(parents=True)
    (output / "manifest.json").write_text("{")
    return "not a readable manifest"


def manifest_of_another_schema(output):
    output.mkdir(parents=True)
    (output / "manifest.json").write_text('{"schema": 99}')
    return "schema must be 1, got 99"


@pytest.mark.parametrize(
    "obstruct",
    [file_in_the_way, file_above, damaged_manifest, manifest_that_is_no_json, manifest_of_another_schema],
)
def test_an_output_that_cannot_be_used(pairs_folder, run, tmp_path, listing, obstruct):
    root, output = pairs_folder.table(), tmp_path / "records"
    if obstruct is file_above:
        output = output / "below"
    expected = obstruct(output)
    before = listing(tmp_path)
    status, out, err = run("build", "--source", "pairs", "--input", root, "--output", output, *SIZE)
    assert (status, out) == (2, "")
    check_lines(errors(err), [expected])
    assert listing(tmp_path) == before


def test_a_wrong_splits_file_is_told_even_where_there_is_no_input(run, tmp_path):
    arguments = ["--input", tmp_path / "nowhere", "--splits", tmp_path / "none.csv"]
    status, out, err = run("validate", "--source", "pairs", *arguments)
    assert (status, out) == (2, "")
    check_lines(errors(err), ["none.csv: no such file", "nowhere: no such folder"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "task `input` is there already"),
        (["--task", "other", "--intensity", "clahe"], "its tasks were built otherwise (clahe_clip_limit"),
        (["--task", "a/b"], "task name `a/b`"),
    ],
)
def test_records_that_are_there_stay_as_they_are(pairs_folder, run, tmp_path, listing, arguments, expected):
    root, output = pairs_folder.table(), tmp_path / "records"
    command = ["build", "--source", "pairs", "--input", root, "--output", output, *SIZE]
    assert run(*command)[0] == 0
    before = listing(tmp_path)
    status, out, err = run(*command, *arguments)
    assert (status, out) == (2, "")
    check_lines(errors(err), [expected])
    assert listing(tmp_path) == before


# What looks odd and is read all the same


def crlf_mark_and_semicolons(root):
    rows = "".join(f"m{n}.png;f{n}.png;eye{n // 2}\r\n" for n in range(6))
    (root / "pairs.csv").write_bytes(b"\xef\xbb\xbfmoving;fixed;subject\r\n" + rows.encode())


def links_to_outside(root):
    """As data managers make them: the folder holds links alone."""
    for path in list(root.glob("*.png")):
        shutil.move(path, root.parent / path.name)
        path.symlink_to(root.parent / path.name)


def colour_whose_green_is_the_image(root):
    for path in root.glob("*.png"):
        grey = np.asarray(Image.open(path))
        Image.fromarray(np.dstack([255 - grey, grey, grey // 2])).save(path)


@pytest.mark.parametrize(
    "change", [crlf_mark_and_semicolons, links_to_outside, colour_whose_green_is_the_image]
)
def test_what_is_read_all_the_same(pairs_folder, run, tmp_path, listing, change):
    root = pairs_folder.table()
    command = ["build", "--source", "pairs", "--input", root, *SIZE, "--output"]
    assert run(*command, tmp_path / "plain")[0] == 0
    change(root)
    assert run(*command, tmp_path / "odd")[0] == 0
    assert listing(tmp_path / "plain") == listing(tmp_path / "odd")


def test_at_least_forty_kinds():
    assert len(CASES) + len(TABLES) >= 60
