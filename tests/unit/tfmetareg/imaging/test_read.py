from __future__ import annotations

import nibabel
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from tfmetareg.errors import UserError
from tfmetareg.imaging.image import check_image
from tfmetareg.imaging.read import is_image, read_image

GREY = (np.arange(12 * 10).reshape(12, 10) * 2).astype(np.uint8)
GREY16 = GREY.astype(np.uint16) * 257 + 3
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def save(path, image):
    """Writes `image` in the format that the name asks for."""
    if path.name.endswith(".npy"):
        np.save(path, image)
    elif path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), path)
    elif path.name.endswith(".tif"):
        tifffile.imwrite(path, image)
    else:
        Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "A.PNG"])
@pytest.mark.parametrize("image", [GREY, GREY16], ids=["8 bit", "16 bit"])
def test_lossless_formats_keep_every_value(tmp_path, name, image):
    read = read_image(save(tmp_path / name, image))
    np.testing.assert_array_equal(read, image)
    assert read.dtype.itemsize >= image.dtype.itemsize


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_float_images(tmp_path, name):
    image = (GREY / 7 - 5).astype(np.float32)
    np.testing.assert_array_equal(read_image(save(tmp_path / name, image)), image)


def test_jpeg_is_close(tmp_path):
    smooth = np.uint8(np.add.outer(np.arange(32), np.arange(40)) * 3)
    assert np.abs(read_image(save(tmp_path / "a.jpg", smooth)).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("shape", [(10, 12), (10, 12, 1), (10, 12, 1, 1)])
def test_nifti_voxel_ij_is_column_i_row_j(tmp_path, shape):
    voxels = np.zeros(shape, np.int16)
    voxels[2, 7] = 100
    image = read_image(save(tmp_path / "a.nii.gz", voxels))
    assert image.shape == (12, 10)
    assert image[7, 2] == 100


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colour_is_read_by_green_or_luminance(tmp_path, name):
    path = save(tmp_path / name, COLOUR)
    np.testing.assert_array_equal(read_image(path), COLOUR[..., 1])
    np.testing.assert_allclose(
        read_image(path, "luminance"),
        0.299 * COLOUR[..., 0] + 0.587 * COLOUR[..., 1] + 0.114 * COLOUR[..., 2],
        atol=1e-3,
    )


def test_16_bit_colour_png_is_not_cut_to_8_bits(tmp_path):
    image = COLOUR.astype(np.uint16) * 257 + 3
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(image).numpy())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image[..., 1])


def test_palette_alpha_and_bilevel(tmp_path):
    Image.fromarray(GREY).convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), GREY)
    Image.fromarray(np.dstack([COLOUR, np.full_like(GREY, 9)])).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), COLOUR[..., 1])
    Image.fromarray(GREY > 100).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png") > 0, GREY > 100)


def test_inverted_tiff_is_turned_the_right_way(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", 255 - GREY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), GREY)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.npy", "a.nii.gz", "a.nii"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.6])
def test_cut_files_are_unreadable(tmp_path, name, kept):
    path = save(tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match="unreadable image") as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_colour_array_is_read_by_its_green_channel(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (12, 14, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.npy", image)), image[..., 1])


@pytest.mark.parametrize(
    ("name", "image", "rule"),
    [
        ("a.npy", np.zeros((12, 12, 5), np.uint8), "must be one 2D image"),
        ("a.nii.gz", np.arange(12.0**3).reshape(12, 12, 12).astype(np.float32), "must be one 2D image"),
        ("a.npy", np.arange(12.0), "must be one 2D image"),
        ("a.npy", np.ones((12, 12)) * 1j, "must be real numbers"),
        ("a.npy", np.where(np.eye(12), np.nan, 1.0), "NaN or infinity"),
        ("a.npy", np.where(np.eye(12), np.inf, 1.0), "NaN or infinity"),
        ("a.png", np.full((12, 12), 7, np.uint8), "constant image, every pixel is 7"),
        ("a.png", GREY[:4], "at least 8 pixels"),
    ],
)
def test_images_that_cannot_be_registered(tmp_path, name, image, rule):
    with pytest.raises(UserError, match=rule) as error:
        read_image(save(tmp_path / name, image))
    assert name in str(error.value)


def test_pages_of_a_tiff_are_not_one_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), photometric="minisblack")
    with pytest.raises(UserError, match="2 pages"):
        read_image(tmp_path / "a.tif")


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(UserError, match="unknown image format"):
        read_image(tmp_path / "a.doc")
    assert not is_image(tmp_path / "a.doc")
    assert is_image(tmp_path / "a.NII.GZ")


def test_object_arrays_are_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}] * 9] * 9), allow_pickle=True)
    with pytest.raises(UserError, match="unreadable"):
        read_image(tmp_path / "a.npy")


def test_check_image_accepts_a_good_one():
    check_image(GREY, "here")


@pytest.mark.parametrize("named", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("kind", ["png", "tif", "jpg"])
def test_pictures_with_another_ending_are_read_as_what_they_are(tmp_path, named, kind):
    smooth = np.uint8(np.add.outer(np.arange(32), np.arange(40)) * 3)
    if kind == "tif":
        tifffile.imwrite(tmp_path / "right.tif", smooth, photometric="miniswhite", compression="lzw")
    else:
        save(tmp_path / f"right.{kind}", smooth)
    (tmp_path / f"right.{kind}").rename(tmp_path / named)
    shown = 255 - smooth if kind == "tif" else smooth
    assert np.abs(read_image(tmp_path / named).astype(int) - shown).max() <= (4 if kind == "jpg" else 0)
