"""Grids of images, against SimpleITK's own reading of their files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name

from tests.unit.tfmetareg.imaging.image_files import files_of_every_kind, texture, turned, write_volume
from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid, affine_grid, itk_grid, read_grid
from tfmetareg.imaging.read import read_image


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


@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0, 1.0), turned(25), (-1.0, 0.0, 0.0, 1.0)])
def test_the_grid_of_an_affine_is_that_of_the_file(tmp_path, direction):
    grid = Grid((20, 30), (0.5, 2.0), (10.0, 20.0), direction)
    sitk.WriteImage(grid.image(texture((20, 30))), str(tmp_path / "a.nii.gz"))
    found = affine_grid(nibabel.load(tmp_path / "a.nii.gz").affine, (20, 30))
    for name in ("shape", "spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(found, name), getattr(grid, name), atol=1e-5)


@pytest.mark.parametrize("place", ["x", "-1", "1,2,3", ""])
def test_what_is_no_slice_is_refused(tmp_path, place):
    with pytest.raises(UserError, match="name a slice as `#INDEX`"):
        read_grid(f"{tmp_path}/volume.nii.gz#{place}", (20, 30))


def test_grids_are_those_that_simpleitk_reads(tmp_path):
    files = files_of_every_kind(tmp_path)
    assert len(files) == 8
    for path in files:
        image = sitk.ReadImage(str(path))
        image = image[:, :, 0] if image.GetDimension() == 3 else image
        grid = read_grid(path, read_image(path).shape)
        assert grid.shape == (24, 32)
        indices = [(0, 0), (31, 5), (3, 20)]
        expected = [image.TransformIndexToPhysicalPoint(index) for index in indices]
        np.testing.assert_allclose(grid.places(np.array(indices)[:, ::-1]), expected, atol=1e-4)


def test_a_file_of_no_geometry_has_its_pixels_for_places(tmp_path):
    np.save(tmp_path / "a.npy", texture((24, 32)))
    assert read_grid(tmp_path / "a.npy", (24, 32)) == Grid((24, 32))


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 1, 0, 1, 0, 0, 0, 0, -1)]
)
def test_a_slice_of_a_volume_lies_where_the_volume_has_it(tmp_path, direction):
    place = f"{write_volume(tmp_path, direction)}#3"
    image = read_image(Path(place))
    places = read_grid(place, image.shape).places(np.stack(np.indices(image.shape), axis=-1))
    np.testing.assert_allclose(places @ [1, 100], image, atol=1e-2)


def test_a_volume_in_micrometres_is_one_in_millimetres(tmp_path):
    path = write_volume(tmp_path, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    expected = read_grid(f"{path}#3", (16, 20))
    image = nibabel.load(path)
    affine = np.diag([1000, 1000, 1000, 1]) @ image.affine
    small = nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), affine)
    small.header.set_xyzt_units("micron")
    nibabel.save(small, path)
    np.testing.assert_allclose(read_grid(f"{path}#3", (16, 20)).spacing, expected.spacing, rtol=1e-5)
    np.testing.assert_allclose(read_grid(f"{path}#3", (16, 20)).origin, expected.origin, rtol=1e-5)


def test_a_slice_of_an_oblique_volume_is_turned_into_the_plane(tmp_path):
    cosine, sine = np.cos(0.2), np.sin(0.2)
    place = f"{write_volume(tmp_path, (1, 0, 0, 0, cosine, -sine, 0, sine, cosine))}#3"
    grid = read_grid(place, read_image(Path(place)).shape)
    np.testing.assert_allclose(grid.direction, (1, 0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(grid.spacing, (1.1, 0.7), atol=1e-5)
