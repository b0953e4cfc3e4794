"""Grids of images, against SimpleITK's own reading of their files."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tfmetareg.imaging.image_files import (
    assert_same_grid,
    files_of_every_kind,
    grids,
    texture,
    turned,
    write_volume,
)
from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid, affine_grid, in_one_space, itk_grid
from tfmetareg.imaging.read import open_image


def test_places_by_hand():
    grid = Grid((20, 30), (0.5, 2.0), (10.0, 20.0), (0.0, -1.0, 1.0, 0.0))
    # A column further is 0.5 mm in y, a row further 2 mm against x.
    np.testing.assert_allclose(grid.places([[0, 0], [0, 2], [3, 0]]), [[10, 20], [10, 21], [4, 20]])
    points = np.random.default_rng(0).uniform(-5, 40, (6, 4, 2))
    np.testing.assert_allclose(grid.points(grid.places(points)), points, atol=1e-10)


@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0, 1.0), turned(25), (0.0, 1.0, 1.0, 0.0)])
def test_an_image_on_a_grid_is_simpleitks(direction):
    grid = Grid((20, 30), (0.5, 2.0), (10.0, 20.0), direction)
    image = grid.image(np.arange(600.0).reshape(20, 30))
    assert itk_grid(image) == grid
    for row, column in ((0, 0), (3, 5), (19, 29)):
        place = image.TransformIndexToPhysicalPoint((column, row))
        np.testing.assert_allclose(grid.places([row, column]), place, atol=1e-9)
        assert image[column, row] == 30 * row + column


def test_vectors_on_a_grid():
    image = Grid((20, 30)).image(np.stack(np.indices((20, 30)), axis=-1).astype(np.float32))
    assert image.GetNumberOfComponentsPerPixel() == 2
    assert image[5, 3] == (3.0, 5.0)


@given(grids(3))
def test_a_slice_in_space_is_simpleitks(grid):
    image = grid.image(np.arange(600.0).reshape(20, 30))
    assert image.GetSize() == (30, 20, 1)
    assert itk_grid(image) == grid and itk_grid(image).is_known
    points = np.array([(0, 0), (3, 5), (19, 29)])
    places = [image.TransformIndexToPhysicalPoint((int(column), int(row), 0)) for row, column in points]
    np.testing.assert_allclose(grid.places(points), places, atol=1e-9)
    np.testing.assert_allclose(grid.points(places), points, atol=1e-9)


@given(grids(3), st.floats(-30, 30))
def test_landmarks_in_space_are_points_and_their_distance_from_the_plane(grid, distance):
    points = np.random.default_rng(0).uniform(-5, 40, (6, 2))
    normal = np.reshape(grid.direction, (3, 3))[:, 2]
    found, off = grid.from_lps(grid.places(points) + distance * normal)
    np.testing.assert_allclose(found, points, atol=1e-8)
    np.testing.assert_allclose(off, abs(distance), atol=1e-8)


def test_landmarks_on_a_2d_image_have_no_height():
    grid = Grid((20, 30), (0.5, 2.0), (10.0, 20.0), is_known=True)
    for places in ([[11.0, 24.0]], [[11.0, 24.0, 7.0]]):
        points, off = grid.from_lps(np.array(places))
        assert (points.tolist(), off.tolist()) == ([[2.0, 2.0]], [0.0])
    with pytest.raises(ValueError, match="3 numbers"):
        grid.in_space().from_lps(np.array([[11.0, 24.0]]))


@given(grids(2), grids(3))
def test_a_2d_grid_lies_in_the_plane_z_0_of_space(flat, slice_in_space):
    one, other = in_one_space(flat, slice_in_space)
    assert other is slice_in_space
    points = np.array([(0, 0), (3, 5)])
    np.testing.assert_allclose(one.places(points), np.pad(flat.places(points), ((0, 0), (0, 1))), atol=1e-9)
    assert in_one_space(flat, flat) == (flat, flat)


@given(grids(3))
def test_the_grid_of_an_affine_is_that_of_the_file(grid):
    steps = np.reshape(grid.direction, (3, 3)) * grid.spacing
    affine = np.diag([-1, -1, 1, 1]) @ np.vstack([np.column_stack([steps, grid.origin]), [0, 0, 0, 1]])
    assert_same_grid(affine_grid(affine, (20, 30)), grid)


def test_axes_that_are_not_perpendicular_are_read_as_the_nearest_that_are():
    shear = np.eye(4)
    shear[0, 1] = np.tan(np.deg2rad(2))  # Down a column, pixels lean 2 degrees.
    found = affine_grid(shear, (101, 101))
    direction = np.reshape(found.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    # The two axes share the 2 degrees, and the centre stays.
    np.testing.assert_allclose(direction[:2, 0], [-np.cos(np.deg2rad(1)), np.sin(np.deg2rad(1))], atol=1e-9)
    np.testing.assert_allclose(found.places([50, 50]), [-50 - 50 * shear[0, 1], -50, 0], atol=1e-9)


@pytest.mark.parametrize("place", ["x", "-1", "1,2,3", ""])
def test_what_is_no_slice_is_refused(tmp_path, place):
    with pytest.raises(UserError, match="name a slice as `#INDEX`"):
        open_image(f"{tmp_path}/volume.nii.gz#{place}")


def test_grids_are_those_that_simpleitk_reads(tmp_path):
    files = files_of_every_kind(tmp_path)
    assert len(files) == 8
    for path in files:
        image, grid = sitk.ReadImage(str(path)), open_image(path).grid
        assert grid.shape == (24, 32)
        assert grid.image(np.zeros((24, 32))).GetSize() == image.GetSize()
        indices = [(0, 0, 0), (31, 5, 0), (3, 20, 0)]
        expected = [image.TransformIndexToPhysicalPoint(index[: image.GetDimension()]) for index in indices]
        np.testing.assert_allclose(grid.places(np.array(indices)[:, 1::-1]), expected, atol=1e-4)
        assert grid.is_known == path.name.endswith((".nii", ".nii.gz"))


def test_a_file_of_no_geometry_has_its_pixels_for_places(tmp_path):
    np.save(tmp_path / "a.npy", texture((24, 32)))
    assert open_image(tmp_path / "a.npy").grid == Grid((24, 32))


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 1, 0, 1, 0, 0, 0, 0, -1)]
)
def test_a_slice_of_a_volume_lies_where_the_volume_has_it(tmp_path, direction):
    place = f"{write_volume(tmp_path, direction)}#3"
    image = open_image(place)
    places = image.grid.places(np.stack(np.indices(image.shape), axis=-1))
    np.testing.assert_allclose(places @ [1, 100, 0], image.pixels, atol=1e-2)


def test_a_volume_in_micrometres_is_one_in_millimetres(tmp_path):
    path = write_volume(tmp_path, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    expected = open_image(f"{path}#3").grid
    image = nibabel.load(path)
    affine = np.diag([1000, 1000, 1000, 1]) @ image.affine
    small = nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), affine)
    small.header.set_xyzt_units("micron")
    nibabel.save(small, path)
    np.testing.assert_allclose(open_image(f"{path}#3").grid.spacing, expected.spacing, rtol=1e-5)
    np.testing.assert_allclose(open_image(f"{path}#3").grid.origin, expected.origin, rtol=1e-5)


def test_a_slice_of_an_oblique_volume_lies_in_space(tmp_path):
    cosine, sine = np.cos(0.2), np.sin(0.2)
    oblique = (1, 0, 0, 0, cosine, -sine, 0, sine, cosine)
    grid = open_image(f"{write_volume(tmp_path, oblique)}#3").grid
    np.testing.assert_allclose(grid.direction, oblique, atol=1e-6)
    np.testing.assert_allclose(grid.spacing, (1.1, 0.7, 3.0), atol=1e-5)
