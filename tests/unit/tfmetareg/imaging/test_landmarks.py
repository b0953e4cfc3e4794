"""Landmarks on images: every format in every frame, and what is said of those that do not fit."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.imaging import landmark_texts as texts
from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.landmark_files import read_landmark_file
from tfmetareg.imaging.landmarks import landmark_doubts, points_on, read_landmarks
from tfmetareg.imaging.read import open_image

SHAPE = (48, 64)


def image_on(grid: Grid, name: str = "scan.nii.gz") -> Image:
    spacing = grid.pixel_size if grid.is_known else None
    return Image(np.zeros(grid.shape, np.uint8), grid, name, spacing)


PLAIN = image_on(Grid(SHAPE), "scan.png")


@st.composite
def grids(draw: st.DrawFn, dimension: int) -> Grid:
    """Any grid: oblique, flipped, anisotropic, far from the origin."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    direction, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    direction *= rng.choice([-1, 1], dimension)
    spacing = np.exp(rng.uniform(np.log(0.01), np.log(20), dimension))
    origin = rng.uniform(-500, 500, dimension)
    shape = tuple(int(side) for side in rng.integers(8, 600, 2))
    return Grid(shape, tuple(spacing), tuple(origin), tuple(direction.ravel()), is_known=True)


def random_points(grid: Grid, seed: int, count: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.49, np.asarray(grid.shape) - 0.51, (count, 2))


def places_of(points: np.ndarray, grid: Grid) -> np.ndarray:
    """(n, 3), mm, LPS: where SimpleITK says that the pixels lie; a 2D image at z = 0."""
    ours = grid.image(np.zeros(grid.shape, np.uint8))
    indices = [[column, row, *[0.0] * (grid.dimension - 2)] for row, column in points.tolist()]
    places = [ours.TransformContinuousIndexToPhysicalPoint(index) for index in indices]
    return np.array([[*place, *[0.0] * (3 - grid.dimension)] for place in places])


@pytest.mark.parametrize("kind", texts.IN_MM)
@pytest.mark.parametrize("dimension", [2, 3])
@settings(max_examples=8)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_points_in_mm_lie_where_simpleitk_says(tmp_path_factory, kind, dimension, data, seed):
    """Any grid; the file in the layout of the program that writes it."""
    grid = data.draw(grids(dimension))
    points = random_points(grid, seed)
    name, text = texts.IN_MM[kind]
    path = tmp_path_factory.mktemp("points") / name
    places = places_of(points, grid)
    path.write_text(text(places))
    found = read_landmarks(path, image_on(grid))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, points, atol=1e-3)
    itk = grid.image(np.zeros(grid.shape, np.uint8))
    indices = [itk.TransformPhysicalPointToContinuousIndex(place[:dimension]) for place in places.tolist()]
    np.testing.assert_allclose(found, np.array(indices)[:, 1::-1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", lambda points: "x,y\n" + "".join(f"{x!r},{y!r}\n" for y, x in points.tolist())),
        ("a.csv", lambda points: "row;col\n" + "".join(f"{y!r};{x!r}\n" for y, x in points.tolist())),
        ("a.csv", texts.imagej),
        ("a.xls", lambda points: texts.imagej(points, "\t")),
        ("a.txt", lambda points: texts.imagej(points, "\t", extra="Slice")),
        # Centroids of areas: counted from the corner of the first pixel.
        ("a.csv", lambda points: texts.imagej(points + 0.5, area=12.5)),
        ("a.txt", lambda points: texts.elastix(points[:, ::-1], "index")),
        ("a.txt", lambda points: texts.elastix(np.pad(points[:, ::-1], ((0, 0), (0, 1))), "index")),
    ],
)
def test_points_in_pixels_need_no_grid(tmp_path, name, text):
    points = random_points(PLAIN.grid, 3)
    (tmp_path / name).write_text(text(points))
    np.testing.assert_allclose(read_landmarks(tmp_path / name, PLAIN), points, atol=1e-4)


@pytest.mark.parametrize("kind", texts.IN_MM)
def test_mm_on_an_image_that_does_not_tell_where_it_lies(tmp_path, kind):
    name, text = texts.IN_MM[kind]
    (tmp_path / name).write_text(text(np.array([[1.0, 2.0, 0.0]])))
    with pytest.raises(UserError, match="mm, (LPS|RAS), but scan.png does not tell.*as CSV with `x,y`"):
        read_landmarks(tmp_path / name, PLAIN)
    with pytest.raises(UserError, match="mm, (LPS|RAS); name the image"):
        read_landmarks(tmp_path / name)


AXIAL = Grid(SHAPE, (0.5, 0.5, 3.0), (-14.0, -31.0, 40.0), (1, 0, 0, 0, 1, 0, 0, 0, 1), is_known=True)
FLAT = Grid(SHAPE, (0.5, 0.5), (-14.0, -31.0), is_known=True)


@pytest.mark.parametrize(
    ("grid", "height", "distance"),
    [
        (AXIAL, 41.4, None),
        (AXIAL, 41.6, "1.6 mm"),
        (AXIAL, -3, "43 mm"),
        (FLAT, 0.2, None),
        (FLAT, 40, "40 mm"),
    ],
)
def test_points_of_another_slice_are_refused(tmp_path, grid, height, distance):
    places = places_of(random_points(grid, 0), grid)
    places[2, 2] = height
    (tmp_path / "a.fcsv").write_text(texts.fcsv(places))
    if distance is None:
        assert len(read_landmarks(tmp_path / "a.fcsv", image_on(grid))) == 7
        return
    with pytest.raises(UserError, match=rf"point 3 \(F-3\) lies {distance} off the (plane|height)"):
        read_landmarks(tmp_path / "a.fcsv", image_on(grid))


def mm(points: np.ndarray, grid: Grid = AXIAL) -> np.ndarray:
    return places_of(points, grid)


def in_pixels(first: np.ndarray, names: str = "x,y") -> str:
    return f"{names}\n" + "".join(f"{one!r},{two!r}\n" for one, two in first[:, :2].tolist())


# What people write instead of what the file declares, all of it outside the image as declared.
MISTAKEN = {
    "RAS declared as LPS": ("a.fcsv", lambda p: texts.fcsv(texts.flipped(mm(p))), "RAS"),
    "LPS declared as RAS": ("a.mrk.json", lambda p: texts.markups(mm(p), "RAS"), "LPS"),
    "pixels declared as mm": (
        "a.csv",
        lambda p: texts.ants(np.c_[p[:, ::-1], np.full(len(p), 40)]),
        "pixels, x,y",
    ),
    "row,col declared as mm": (
        "a.csv",
        lambda p: texts.ants(np.c_[p, np.full(len(p), 40)]),
        "pixels, row,col",
    ),
    "mm declared as pixels": ("a.csv", lambda p: in_pixels(mm(p)), "mm, LPS"),
    "RAS declared as pixels": ("a.csv", lambda p: in_pixels(texts.flipped(mm(p))), "mm, RAS"),
    "x and y exchanged": ("a.csv", lambda p: in_pixels(p[:, ::-1], "row,col"), "x and y exchanged"),
    "counted from 1": ("a.csv", lambda p: in_pixels(p[:, ::-1] + 1), "pixels counted from 1"),
    "micrometres": ("a.csv", lambda p: in_pixels(p[:, ::-1] * 500), "µm from the image's corner"),
}


@pytest.mark.parametrize("kind", MISTAKEN)
def test_landmarks_outside_tell_what_would_fit(tmp_path, kind):
    points = np.array([[0.0, 0.0], [20, 63], [47, 63], [30, 50], [11, 5]])
    name, text, reading = MISTAKEN[kind]
    (tmp_path / name).write_text(text(points))
    with pytest.raises(UserError) as error:
        read_landmarks(tmp_path / name, image_on(AXIAL))
    (line,) = str(error.value).splitlines()
    assert str(tmp_path / name) in line and "lies outside the image of width 64 and height 48" in line
    named = line.split("; read as ")[1].split(", all would lie inside")[0].split(", or as ")
    assert reading in named


SAGITTAL = Grid(SHAPE, (0.5, 0.5, 3.0), (12.0, -31.0, 40.0), (0, 0, 1, 1, 0, 0, 0, -1, 0), is_known=True)


def test_ras_declared_as_lps_is_told_where_it_puts_points_beside_a_sagittal_slice(tmp_path):
    places = places_of(random_points(SAGITTAL, 4), SAGITTAL)
    (tmp_path / "a.fcsv").write_text(texts.fcsv(places, "RAS"))
    with pytest.raises(UserError, match="24 mm off the plane of .*; read as LPS, all would lie inside"):
        read_landmarks(tmp_path / "a.fcsv", image_on(SAGITTAL))


def test_points_of_the_pairs_other_image_are_called_that(tmp_path):
    other = image_on(Grid((300, 200)), "other.png")
    (tmp_path / "a.csv").write_text("x,y\n150,250\n3,4\n")
    with pytest.raises(UserError, match="read as points of other.png, all would lie inside"):
        points_on(read_landmark_file(tmp_path / "a.csv"), PLAIN, other)


def test_landmarks_outside_in_every_reading_get_a_general_hint(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n900,-77\n")
    with pytest.raises(UserError, match="point 2 .* check units and order"):
        read_landmarks(tmp_path / "a.csv", PLAIN)


@pytest.mark.parametrize(
    ("pixels", "refused"),
    [
        # As mm, the farthest point would lie outside: these can only be pixels.
        ([[3.0, 4.0], [40.0, 60.0], [20.0, 30.0]], None),
        # Of 1 mm a pixel it would not matter; of 0.5, all are inside as pixels and as mm.
        ([[3.0, 4.0], [20.0, 30.0], [11.0, 8.0]], "pixels or mm"),
    ],
)
def test_an_imagej_table_of_a_calibrated_image_is_read_only_if_it_must_be_pixels(tmp_path, pixels, refused):
    (tmp_path / "a.csv").write_text(texts.imagej(np.array(pixels)))
    if refused is None:
        np.testing.assert_array_equal(read_landmarks(tmp_path / "a.csv", image_on(FLAT)), pixels)
        return
    with pytest.raises(UserError, match=f"{refused}; in ImageJ remove the scale"):
        read_landmarks(tmp_path / "a.csv", image_on(FLAT))


def test_voxel_indices_of_a_volume_are_no_pixels_of_a_slice(tmp_path):
    (tmp_path / "a.txt").write_text(texts.elastix(np.array([[3, 4, 12]]), "index"))
    for name in ("volume.nii.gz#12", "scan.nii.gz"):
        with pytest.raises(UserError, match="`index`, voxels of a volume.*write `point`"):
            read_landmarks(tmp_path / "a.txt", image_on(AXIAL, name))


@pytest.mark.parametrize("text", [texts.imagej, lambda points: texts.elastix(points[:, ::-1], "index")])
def test_pixels_of_a_picture_as_stored_are_no_pixels_of_it_as_shown(tmp_path, text):
    (tmp_path / "a.txt").write_text(text(np.array([[3.0, 4.0]])))
    turned = dataclasses.replace(PLAIN, notes=("turned as its EXIF orientation (6) says",))
    with pytest.raises(UserError, match="scan.png as it is stored, which viewers show turned"):
        read_landmarks(tmp_path / "a.txt", turned)
    assert len(read_landmarks(tmp_path / "a.txt", PLAIN)) == 1


def test_a_2d_image_does_not_tell_its_height(tmp_path):
    """3D Slicer puts points of a 2D NIfTI file at the height in its header, which ITK's 2D images lack."""
    points = random_points(FLAT, 2)
    (tmp_path / "a.fcsv").write_text(texts.fcsv(places_of(points, FLAT) + [0, 0, 40]))
    np.testing.assert_allclose(read_landmarks(tmp_path / "a.fcsv", image_on(FLAT)), points, atol=1e-3)


def test_a_point_at_the_very_border_survives_rounding(tmp_path):
    corner = np.array([[-0.5, -0.5], [47.5, 63.5]])
    (tmp_path / "a.csv").write_text(texts.slicer_table(np.round(mm(corner), 4) + [-2e-4, 2e-4, 0]))
    found = read_landmarks(tmp_path / "a.csv", image_on(AXIAL))
    np.testing.assert_allclose(found, corner, atol=1e-3)
    assert found.min() >= -0.5 and (found <= np.array(SHAPE) - 0.5).all()


def doubts(folder: Path, moving: str, fixed: str, image: Image = PLAIN) -> list[str]:
    """What is said of two files of landmarks on one image."""
    for name, text in (("m.csv", moving), ("f.csv", fixed)):
        (folder / name).write_text(text)
    files = (read_landmark_file(folder / name) for name in ("m.csv", "f.csv"))
    return [f"{Path(name).name}: {text}" for name, text in landmark_doubts(*files, image, image)]


def test_one_file_with_x_and_y_exchanged_is_doubted(tmp_path):
    """On a square image all points are inside either way."""
    square = image_on(Grid((64, 64)), "scan.png")
    points = random_points(square.grid, 5, 12)
    moved = np.clip(points + [2, -3], 0, 63)
    assert doubts(tmp_path, in_pixels(moved[:, ::-1]), in_pixels(points[:, ::-1]), square) == []
    (line,) = doubts(tmp_path, in_pixels(moved), in_pixels(points[:, ::-1]), square)
    assert line.endswith("if one of the two files is read as x and y exchanged: check both")


def test_one_file_in_ras_on_an_image_around_the_origin_is_doubted(tmp_path):
    centred = Grid((64, 64), (0.5, 0.5), (-15.75, -15.75), is_known=True)
    points = random_points(centred, 6, 9)
    places = mm(points, centred)
    good, bad = texts.slicer_table(places), texts.slicer_table(texts.flipped(places))
    assert doubts(tmp_path, good, good, image_on(centred)) == []
    (line,) = doubts(tmp_path, bad, good, image_on(centred))
    assert "read as RAS" in line


def test_mm_from_the_corner_written_as_pixels_are_doubted(tmp_path):
    """0.25 mm a pixel: all points lie in a sixteenth of the image, and in mm all over it."""
    grid = Grid((64, 64), (0.25, 0.25), (0.0, 0.0), is_known=True)
    points = random_points(grid, 7, 10)
    text = in_pixels(np.clip(points, 0, None)[:, ::-1] * 0.25)
    lines = doubts(tmp_path, text, text, image_on(grid))
    assert len(lines) == 2
    assert all("its landmarks lie within" in line and "read as mm, LPS" in line for line in lines)
    right = in_pixels(points[:, ::-1])
    assert doubts(tmp_path, right, right, image_on(grid)) == []


@settings(max_examples=60)
@given(
    data=st.data(),
    dimension=st.sampled_from([2, 3]),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 80),
)
def test_good_landmarks_are_not_doubted(tmp_path_factory, data, dimension, seed, count):
    """Random points and their partners a few pixels away, on any grid, in pixels and in mm."""
    grid = data.draw(grids(dimension))
    rng = np.random.default_rng(seed)
    points = random_points(grid, seed, count)
    limit = np.asarray(grid.shape) - 0.51
    moved = np.clip(points + rng.normal(0, 0.03, points.shape) * grid.shape, -0.49, limit)
    folder = tmp_path_factory.mktemp("good")
    for write in (
        lambda p: in_pixels(p[:, ::-1]),
        lambda p: texts.slicer_table(places_of(p, grid).reshape(-1, 3)),
    ):
        assert doubts(folder, write(moved), write(points), image_on(grid)) == []


@pytest.mark.parametrize("name", ["octa_scp", "histology"])
def test_real_landmarks_are_not_doubted(real_data, name):
    root = real_data / name
    with open(root / "pairs.csv") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        files = [read_landmark_file(root / row[f"{side}_landmarks"]) for side in ("moving", "fixed")]
        images = [open_image(root / row[side]) for side in ("moving", "fixed")]
        assert landmark_doubts(*files, *images) == ()
    assert len(rows) >= 12


def test_the_reader_agrees_with_simpleitk_on_a_file(tmp_path):
    """Not on our own idea of the grid: SimpleITK reads the image by itself."""
    points = random_points(FLAT, 1)
    sitk.WriteImage(
        FLAT.image(np.arange(48 * 64, dtype=np.int16).reshape(SHAPE)), str(tmp_path / "scan.nii.gz")
    )
    theirs = sitk.ReadImage(str(tmp_path / "scan.nii.gz"))
    places = [theirs.TransformContinuousIndexToPhysicalPoint(point[::-1]) for point in points.tolist()]
    (tmp_path / "a.fcsv").write_text(texts.fcsv(np.pad(places, ((0, 0), (0, 1)))))
    found = read_landmarks(tmp_path / "a.fcsv", open_image(tmp_path / "scan.nii.gz"))
    np.testing.assert_allclose(found, points, atol=1e-3)
