from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.unit.tfrecords_builder.conftest import error_lines
from tests.unit.tfrecords_builder.fire_files import SIZE, field_of_view, photograph, points, write_fire
from tfmetareg.errors import InputErrors, UserError
from tfrecords_builder.sources.base import Request
from tfrecords_builder.sources.fire import fire_tasks, read_points


def request(root, **options):
    return Request(root, None, "target", (32, 32), 0, options)


def read(root, **options):
    """Pairs by key; problems raised."""
    asked = request(root, **options)
    (task,) = fire_tasks(asked)
    pairs = {pair.key: pair for pair in task.pairs}
    asked.problems.raise_any()
    assert len(pairs) == len(task.pairs)
    return pairs


def only_problem(root, **options) -> str:
    with pytest.raises(InputErrors) as error:
        read(root, **options)
    (line,) = error.value.lines
    return line


@pytest.fixture
def root(tmp_path):
    return write_fire(tmp_path / "FIRE")


def test_pairs_keep_their_names_and_the_wrong_one_is_left_out(root):
    pairs = read(root)
    assert list(pairs) == ["A01", "P01", "S01", "S02"]
    assert [pair.subject for pair in pairs.values()] == list(pairs)
    assert list(read(root, exclude=[])) == ["A01", "P01", "P37", "S01", "S02"]
    assert list(read(root, exclude=["A01", "P37"])) == ["P01", "S01", "S02"]
    assert "has no pair `S09`; take it off" in only_problem(root, exclude=["S09"])


@pytest.mark.parametrize(
    ("categories", "name", "keys"),
    [
        (["S"], "fire_s", ["S01", "S02"]),
        (["A", "S"], "fire_sa", ["A01", "S01", "S02"]),
        (["S", "P", "A"], "fire", ["A01", "P01", "S01", "S02"]),
    ],
)
def test_categories(root, categories, name, keys):
    (task,) = fire_tasks(request(root, categories=categories))
    assert (task.name, task.role, task.modality) == (name, "target", "fundus")
    assert [pair.key for pair in task.pairs] == keys


def test_a_category_that_is_not_there(tmp_path):
    root = write_fire(tmp_path / "FIRE", ("S01",))
    assert "no pairs of P, A; widen `--categories`" in only_problem(root, categories=["P", "A"])


def test_image_1_is_fixed_image_2_moving_and_points_are_row_and_column(root):
    pair = read(root)["P01"]
    np.testing.assert_allclose(pair.fixed_landmarks[1], [21, 12])
    np.testing.assert_allclose(pair.moving_landmarks[1], [24, 10])
    assert pair.fixed_landmarks.shape == pair.moving_landmarks.shape == (10, 2)
    fixed, moving = (
        image[tuple(np.int32(points).T)].astype(float)
        for image, points in ((pair.fixed, pair.fixed_landmarks), (pair.moving, pair.moving_landmarks))
    )
    np.testing.assert_allclose(fixed, moving, atol=15)
    assert fixed.std() > 20
    inside = field_of_view()
    np.testing.assert_allclose(pair.fixed[inside], photograph(1)[inside, 1], atol=15)


def test_luminance_on_request(root):
    inside = field_of_view()
    green, luminance = (read(root, colour=colour)["S01"].fixed[inside] for colour in ("green", "luminance"))
    assert luminance.mean() > green.mean() + 5


def test_background_outside_the_mask(root):
    pair = read(root)["S01"]
    with Image.open(root / "Images" / "S01_1.jpg") as image:
        assert np.asarray(image)[0, 0, 1] > 0
    for image in (pair.fixed, pair.moving):
        assert (image[~field_of_view()] == 0).all()
        assert (image[field_of_view()] > 0).mean() > 0.99


def test_pairs_of_one_image_are_one_subject(root):
    shutil.copy(root / "Images" / "P01_2.jpg", root / "Images" / "S02_1.jpg")
    subjects = {key: pair.subject for key, pair in read(root).items()}
    assert subjects == {"A01": "A01", "P01": "P01", "S01": "S01", "S02": "P01"}


@pytest.mark.parametrize("separator", [" ", "\t", "   ", " \t "])
def test_control_points_as_people_have_them(tmp_path, separator):
    path = tmp_path / "points.txt"
    path.write_bytes(f"\n1.5e1{separator}2{separator}3{separator}4\r\n5 6 7 8\r\n\r\n".encode())
    first, second = read_points(path)
    np.testing.assert_array_equal(first, [[2, 15], [6, 5]])
    np.testing.assert_array_equal(second, [[4, 3], [8, 7]])


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("1 2 3", "line 11: must be four numbers, `x1 y1 x2 y2`, got `1 2 3`"),
        ("1 2 3 4 5", "line 11: must be four numbers"),
        ("1,2,3,4", "line 11: must be four numbers"),
        ("1 2 3 b", "line 11: must be four numbers, .* got `1 2 3 b`"),
        ("1 2 3 nan", "line 11: must be four numbers"),
        (f"1 2 {SIZE} 2", "point 11 .x 48, y 2. lies outside the image of width 48 and height 48"),
        ("1 -2 3 4", "point 11 .x 1, y -2. lies outside"),
    ],
)
def test_wrong_control_points(root, line, rule):
    with points(root, "S01").open("a") as stream:
        stream.write(line + "\n")
    found = only_problem(root)
    assert found.startswith(str(points(root, "S01")))
    with pytest.raises(UserError, match=rule):
        raise UserError(found)


def test_missing_files(root):
    points(root, "A01").unlink()
    (root / "Images" / "S01_2.jpg").unlink()
    points(root, "S02").write_text("\n")
    (root / "Images" / "P01_1.jpg").write_bytes(b"x")
    with pytest.raises(InputErrors) as error:
        read(root)
    expected = [
        "control_points_A01_1_2.txt: no such file; fetch it, or leave the pair out: `--exclude A01`",
        "S01_2.jpg: no such file; fetch it, or leave",
        "P01_1.jpg: unreadable image",
        "control_points_S02_1_2.txt: empty file",
    ]
    assert len(error.value.lines) == len(expected)
    for line, rule in zip(error.value.lines, expected):
        assert rule in line


def test_an_image_that_cannot_be_read(root):
    """The kernel refuses to read what the link leads to, even for root."""
    image = root / "Images" / "S01_2.jpg"
    image.unlink()
    image.symlink_to("/proc/self/mem")
    assert only_problem(root).startswith(f"{image}: cannot be read (Input/output error); check its")


@pytest.mark.parametrize("folder", ["Images", "Ground Truth"])
def test_a_folder_that_cannot_be_listed(root, monkeypatch, folder):
    """As on a network drive that fails; root may list whatever is there."""

    def fail(path, listdir=os.listdir):
        if path == root / folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", fail)
    assert only_problem(root).startswith(f"{root / folder}: cannot be read (Input/output error); check its")


@pytest.mark.parametrize("folder", ["Images", "Ground Truth", "Masks"])
def test_a_folder_is_missing(root, folder):
    shutil.rmtree(root / folder)
    assert only_problem(root).startswith(f"{root / folder}: no such folder; `--input` must be")


def test_the_folder_above(root):
    assert f"did you mean {root}?" in only_problem(root.parent)


def test_masks(root):
    (root / "Masks" / "feature_mask.png").unlink()  # of no use here
    read(root)
    Image.fromarray(np.uint8(255 * np.eye(40))).save(root / "Masks" / "mask.png")
    with pytest.raises(InputErrors) as error:
        read(root)
    assert "A01_1.jpg: size 48x48, but " in error.value.lines[0]
    assert len(error.value.lines) == 8
    (root / "Masks" / "mask.png").unlink()
    assert "mask.png: no such file" in only_problem(root)


def test_other_files_are_passed_over(root):
    (root / "Images" / "._S01_1.jpg").write_bytes(b"x")
    (root / "Images" / "Thumbs.db").write_bytes(b"x")
    (root / "readme.txt").write_text("x")
    assert len(read(root)) == 4


def test_command_line(root, tmp_path, run):
    status, out, error = run(
        *("build", "--source", "fire", "--input", root, "--output", tmp_path / "records"),
        *("--categories", "s", "p", "--exclude", "--role", "target", "--image-size", 32, 32),
    )
    assert (status, error_lines(error)) == (0, [])
    assert "task `fire_sp` (target): 3 finetune, 1 test pairs." in out
    status, _, error = run("validate", "--source", "fire", "--input", root, "--categories", "x")
    assert status == 2
    assert "invalid choice: 'X' (choose from 'S', 'P', 'A')" in error
