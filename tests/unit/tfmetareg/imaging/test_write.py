"""Images written in the format that others have are read back as they were."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.imaging.image_files import assert_same_grid
from tfmetareg.imaging.grid import Grid, itk_grid
from tfmetareg.imaging.read import open_image
from tfmetareg.imaging.write import holds_grid, write_image

GREY = ("uint8", "uint16", "int16", "int32", "float32", "float64")
CASES = [
    *[(".png", as_type, channels) for as_type in ("uint8", "uint16") for channels in (0, 2, 3, 4)],
    *[(ending, as_type, 0) for ending in (".tif", ".tiff", ".npy", ".nii", ".nii.gz") for as_type in GREY],
    *[(ending, as_type, 3) for ending in (".tif", ".npy") for as_type in ("uint8", "uint16", "float32")],
    (".npy", "bool", 0),
]


@pytest.mark.parametrize(("ending", "as_type", "channels"), CASES)
def test_written_and_read_back(tmp_path, ending, as_type, channels):
    shape = (21, 34, channels) if channels else (21, 34)
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(as_type)
    path = tmp_path / f"image{ending}"
    write_image(path, pixels, Grid((21, 34)))
    found = open_image(path).pixels
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("channels", [0, 3])
def test_jpeg_is_close(tmp_path, channels):
    rows, columns = np.mgrid[:64, :48]
    pixels = np.uint8(2 * rows + 2 * columns)
    pixels = np.dstack([pixels, 255 - pixels, pixels // 2]) if channels else pixels
    write_image(tmp_path / "image.jpg", pixels, Grid((64, 48)))
    found = open_image(tmp_path / "image.jpg").pixels
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).max() <= 4


def test_nifti_tells_where_its_pixels_lie(tmp_path):
    grid = Grid((21, 34), (0.5, 0.7), (3.0, -4.0), (0.0, 1.0, -1.0, 0.0))
    path = tmp_path / "image.nii.gz"
    write_image(path, np.arange(21 * 34, dtype=np.int16).reshape(21, 34), grid)
    found = open_image(path).grid
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(found, name), getattr(grid, name), atol=1e-6)
    assert sitk.ReadImage(str(path)).GetPixelIDTypeAsString() == "16-bit signed integer"


@given(
    st.sampled_from([".nii.gz", ".tif", ".jpg"]),
    st.tuples(*[st.integers(1, 2400)] * 2),
    st.sampled_from([0, 3]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_itk_reads_what_was_written_where_the_grid_has_it(tmp_path, ending, dpi, channels):
    grid = Grid((21, 34), (25.4 / dpi[0], 25.4 / dpi[1]))
    path = tmp_path / f"image{ending}"
    channels = 0 if ending == ".nii.gz" else channels
    write_image(path, np.zeros((21, 34, channels) if channels else (21, 34), np.uint8), grid)
    assert holds_grid(path, grid)
    assert_same_grid(itk_grid(sitk.ReadImage(str(path))), grid)


@pytest.mark.parametrize("as_type", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.0301)])
def test_a_tiff_tells_a_pixel_size_as_imagej_does(tmp_path, as_type, channels, spacing):
    path = tmp_path / "image.tif"
    pixels = np.zeros((21, 34, channels) if channels else (21, 34), as_type)
    size = spacing[::-1] if spacing != (1.0, 1.0) else (0.00025, 0.0005)
    write_image(path, pixels, Grid((21, 34), spacing), size)
    with tifffile.TiffFile(path) as tiff:
        x, y = (np.divide(*tiff.pages[0].tags[name].value) for name in ("XResolution", "YResolution"))
        unit = {"mm": 1, "inch": 25.4}[tiff.imagej_metadata["unit"]]
    assert (unit / y, unit / x) == pytest.approx(size)
    assert_same_grid(itk_grid(sitk.ReadImage(str(path))), Grid((21, 34), spacing))
    write_image(path, pixels, Grid((21, 34), (0.5, 0.5)), (0.1, 0.1))  # Two sizes have no room: ITK's counts.
    assert_same_grid(itk_grid(sitk.ReadImage(str(path))), Grid((21, 34), (0.5, 0.5)))
    assert tifffile.TiffFile(path).imagej_metadata is None


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("in_space", [False, True])
def test_colours_of_a_nifti_file_stay_colours_in_their_place(tmp_path, channels, in_space):
    grid = Grid((21, 34), (0.5, 0.7), (3.0, -4.0), (0.0, 1.0, -1.0, 0.0))
    grid = grid.in_space() if in_space else grid
    pixels = np.random.default_rng(0).integers(0, 250, (21, 34, channels)).astype(np.uint8)
    write_image(tmp_path / "a.nii.gz", pixels, grid)
    found = open_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(found.pixels, pixels)
    assert_same_grid(found.grid, grid)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).reshape(pixels.shape), pixels)
    assert_same_grid(itk_grid(image), grid)


@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".npy"])
@pytest.mark.parametrize(
    "grid",
    [
        Grid((21, 34), (0.7, 0.0301)),
        Grid((21, 34), (1.0, 1.0), (3.0, 0.0)),
        Grid((21, 34), direction=(-1.0, 0.0, 0.0, 1.0)),
        Grid((21, 34)).in_space(),
    ],
)
def test_a_format_that_cannot_hold_a_grid_says_so(tmp_path, ending, grid):
    path = tmp_path / f"image{ending}"
    write_image(path, np.zeros((21, 34), np.uint8), grid)
    assert holds_grid(path, grid) == (ending == ".tif" and grid.spacing == (0.7, 0.0301))
    if ending != ".npy":
        there = itk_grid(sitk.ReadImage(str(path)))
        same = there.dimension == grid.dimension and np.allclose(
            there.places([20, 33]), grid.places([20, 33])
        )
        assert holds_grid(path, grid) == same
    assert holds_grid(path, Grid((21, 34)))


@pytest.mark.parametrize(
    ("ending", "as_type", "channels"), [(".nii", ">i2", 0), (".nii.gz", ">f4", 0), (".tif", "uint8", 2)]
)
def test_a_foreign_byte_order_and_grey_with_alpha_are_written(tmp_path, ending, as_type, channels):
    shape = (21, 34, channels) if channels else (21, 34)
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(as_type)
    write_image(tmp_path / f"image{ending}", pixels, Grid((21, 34)))
    np.testing.assert_array_equal(open_image(tmp_path / f"image{ending}").pixels, pixels)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".png", ".npy", ".tif"])
def test_a_disk_that_is_full_is_told_of(tmp_path, little_room, ending):
    pixels = np.random.default_rng(0).integers(0, 250, (200, 200)).astype(np.uint8)
    with little_room(), pytest.raises(OSError):
        write_image(tmp_path / f"image{ending}", pixels, Grid((200, 200)))
