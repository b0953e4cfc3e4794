"""Images written in the format that others have are read back as they were."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.imaging.grid import Grid, read_grid
from tfmetareg.imaging.read import read_pixels
from tfmetareg.imaging.write import write_image

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
    found = read_pixels(path)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("channels", [0, 3])
def test_jpeg_is_close(tmp_path, channels):
    rows, columns = np.mgrid[:64, :48]
    pixels = np.uint8(2 * rows + 2 * columns)
    pixels = np.dstack([pixels, 255 - pixels, pixels // 2]) if channels else pixels
    write_image(tmp_path / "image.jpg", pixels, Grid((64, 48)))
    found = read_pixels(tmp_path / "image.jpg")
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).max() <= 4


def test_nifti_tells_where_its_pixels_lie(tmp_path):
    grid = Grid((21, 34), (0.5, 0.7), (3.0, -4.0), (0.0, 1.0, -1.0, 0.0))
    path = tmp_path / "image.nii.gz"
    write_image(path, np.arange(21 * 34, dtype=np.int16).reshape(21, 34), grid)
    found = read_grid(path, (21, 34))
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(found, name), getattr(grid, name), atol=1e-6)
    assert sitk.ReadImage(str(path)).GetPixelIDTypeAsString() == "16-bit signed integer"


@pytest.mark.parametrize(
    ("ending", "as_type", "channels"), [(".nii", ">i2", 0), (".nii.gz", ">f4", 0), (".tif", "uint8", 2)]
)
def test_a_foreign_byte_order_and_grey_with_alpha_are_written(tmp_path, ending, as_type, channels):
    shape = (21, 34, channels) if channels else (21, 34)
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(as_type)
    write_image(tmp_path / f"image{ending}", pixels, Grid((21, 34)))
    np.testing.assert_array_equal(read_pixels(tmp_path / f"image{ending}"), pixels)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".png", ".npy", ".tif"])
def test_a_disk_that_is_full_is_told_of(tmp_path, little_room, ending):
    pixels = np.random.default_rng(0).integers(0, 250, (200, 200)).astype(np.uint8)
    with little_room(), pytest.raises(OSError):
        write_image(tmp_path / f"image{ending}", pixels, Grid((200, 200)))
