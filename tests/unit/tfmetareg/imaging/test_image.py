"""Images of every kind that a caller may have, against SimpleITK's reading of the same file."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from PIL import Image as PillowImage

from tests.unit.tfmetareg.imaging.image_files import (
    assert_same_grid,
    files_of_every_kind,
    texture,
    turned,
    write_volume,
)
from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.read import open_image, read_image

SHAPE = (24, 32)
GRIDS = {
    "unit": Grid(SHAPE),
    "anisotropic": Grid(SHAPE, (0.4, 0.9), (12.0, -30.0)),
    "turned": Grid(SHAPE, (0.4, 0.9), (12.0, -30.0), turned(25)),
    "mirrored": Grid(SHAPE, (0.4, 0.9), (12.0, -30.0), (-1.0, 0.0, 0.0, 1.0)),
}


def read_with_simpleitk(path: Path) -> tuple[np.ndarray, sitk.Image]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image).reshape(SHAPE), image


def check_places(grid: Grid, image: sitk.Image) -> None:
    indices = [(0, 0, 0), (31, 5, 0), (3, 20, 0)]
    expected = [image.TransformIndexToPhysicalPoint(index[: image.GetDimension()]) for index in indices]
    np.testing.assert_allclose(grid.places(np.array(indices)[:, 1::-1]), expected, atol=1e-4)


def test_arrays_keep_pixels_and_channels():
    pixels = np.arange(24 * 32 * 3, dtype=np.uint16).reshape(24, 32, 3)
    image = open_image(pixels, "moving")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert not np.shares_memory(image.pixels, pixels)  # The caller may go on to change his.
    assert (image.grid, image.name, image.spacing, image.shape) == (Grid(SHAPE), "moving", None, SHAPE)
    np.testing.assert_array_equal(image.grey(), pixels[..., 1])
    luminance = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(image.grey("luminance"), luminance, rtol=1e-5)


def test_an_opened_image_is_taken_as_it_is():
    image = open_image(texture(SHAPE))
    assert open_image(image, "other") is image


@pytest.mark.parametrize("kind", [str, Path])
def test_files_of_every_kind_have_simpleitks_pixels_and_grid(tmp_path, kind):
    for path in files_of_every_kind(tmp_path):
        pixels, reference = read_with_simpleitk(path)
        image = open_image(kind(path))
        np.testing.assert_array_equal(image.pixels, pixels)
        check_places(image.grid, reference)
        assert (image.shape, image.name) == (SHAPE, str(path))
        np.testing.assert_array_equal(image.grey(), read_image(path))


def test_a_numpy_file_has_no_geometry(tmp_path):
    np.save(tmp_path / "a.npy", texture(SHAPE))
    image = open_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(image.pixels, texture(SHAPE))
    assert (image.grid, image.spacing) == (Grid(SHAPE), None)


def test_a_colour_file_keeps_its_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.grey(), pixels[..., 1])


def test_a_slice_of_a_volume_lies_where_the_volume_has_it(tmp_path):
    place = f"{write_volume(tmp_path, (-1, 0, 0, 0, -1, 0, 0, 0, 1))}#3"
    image = open_image(place)
    # The volume's intensity is x + 100 y.
    places = image.grid.places(np.stack(np.indices(image.shape), axis=-1))
    np.testing.assert_allclose(places @ [1, 100, 0], image.pixels, atol=1e-2)
    assert image.name == place


@pytest.mark.parametrize("name", GRIDS)
def test_a_simpleitk_image_keeps_its_grid(name, tmp_path):
    grid, pixels = GRIDS[name], texture(SHAPE)
    sitk.WriteImage(grid.image(pixels), str(tmp_path / "a.nii.gz"))
    for source in (grid.image(pixels), sitk.ReadImage(str(tmp_path / "a.nii.gz"))):
        image = open_image(source, "fixed")
        np.testing.assert_array_equal(image.pixels, pixels)
        assert_same_grid(image.grid, grid)
        assert image.name == "fixed"
        known = source.GetOrigin() != (0.0, 0.0)  # As SimpleITK gives it to images of no geometry.
        assert image.grid.is_known == known
        assert image.spacing == (pytest.approx(grid.pixel_size) if known else None)
    assert_same_grid(open_image(tmp_path / "a.nii.gz").grid, grid)


@pytest.mark.parametrize("name", GRIDS)
def test_a_nibabel_image_has_the_grid_that_simpleitk_reads_from_its_file(name, tmp_path):
    grid, pixels = GRIDS[name], texture(SHAPE)
    sitk.WriteImage(grid.image(pixels), str(tmp_path / "a.nii.gz"))
    image = open_image(nibabel.load(tmp_path / "a.nii.gz"), "fixed")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert_same_grid(image.grid, grid)
    check_places(image.grid, read_with_simpleitk(tmp_path / "a.nii.gz")[1])
    np.testing.assert_allclose(image.spacing, grid.spacing[::-1], rtol=1e-6)


def test_a_nibabel_image_in_memory_may_have_axes_of_one():
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    image = open_image(nibabel.Nifti1Image(texture(SHAPE).T[..., None], affine))
    np.testing.assert_array_equal(image.pixels, texture(SHAPE))
    assert (image.grid.spacing, image.spacing) == ((2.0, 3.0, 1.0), (3.0, 2.0))
    # RAS to LPS: voxel (i, j) lies at (-2 i, -3 j).
    np.testing.assert_allclose(image.grid.places([5, 7]), (-14.0, -15.0, 0.0))


THREE_AXES = np.zeros((16, 16, 16), np.float32)


@pytest.mark.parametrize(
    "source", [sitk.GetImageFromArray(THREE_AXES), nibabel.Nifti1Image(THREE_AXES, np.eye(4))]
)
def test_volumes_are_refused_in_one_line(source):
    with pytest.raises(UserError) as caught:
        open_image(source, "moving")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("moving: must be one 2D image, got an array of shape (16, 16, 16); take")


@pytest.mark.parametrize("shape", [(), (9,), (2, 9, 9, 3)])
def test_arrays_that_are_no_image_are_refused_in_one_line(shape):
    with pytest.raises(UserError) as caught:
        open_image(np.zeros(shape), "moving")
    assert str(caught.value) == f"moving: must be one 2D image, got an array of shape {shape}."


@pytest.mark.parametrize(
    ("pixels", "rule"),
    [
        (np.zeros((9, 9)), "constant image"),
        (np.full((9, 9), np.nan), "holds NaN or infinity"),
        (np.eye(5), "at least 8 pixels"),
        (np.random.default_rng(0).random((9, 9, 7)), "must be one 2D image"),
    ],
)
def test_what_cannot_be_registered_is_refused_by_name(pixels, rule):
    with pytest.raises(UserError, match=f"^fixed: .*{rule}"):
        open_image(pixels, "fixed").grey()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        open_image(tmp_path / "none.png")


def test_images_are_values():
    pixels = texture(SHAPE)
    assert Image(pixels, Grid(SHAPE)).shape == SHAPE
    with pytest.raises(AttributeError):
        Image(pixels, Grid(SHAPE)).name = "other"


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_units_of_a_nibabel_image_are_those_of_its_file(tmp_path, unit, factor):
    voxels = np.arange(600, dtype=np.float32).reshape(20, 30)
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 3.0, 1.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "image.nii")
    from_memory, from_file = open_image(image), open_image(tmp_path / "image.nii")
    assert from_memory.grid.spacing == pytest.approx((2 * factor, 3 * factor))
    assert from_file.grid.spacing == pytest.approx(from_memory.grid.spacing)


def test_a_slice_has_its_volumes_pixel_size(tmp_path):
    volume = nibabel.Nifti1Image(np.random.default_rng(0).random((20, 30, 4)), np.diag([0.5, 0.75, 2.0, 1.0]))
    nibabel.save(volume, tmp_path / "volume.nii.gz")
    assert open_image(tmp_path / "volume.nii.gz#2").spacing == pytest.approx((0.75, 0.5))


def test_a_simpleitk_volume_of_one_slice_is_an_image():
    volume = sitk.GetImageFromArray(np.arange(600, dtype=np.float32).reshape(1, 20, 30))
    assert open_image(volume).shape == (20, 30)
