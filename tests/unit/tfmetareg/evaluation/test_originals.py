"""The original images of a record, found again and shown only where they are its own."""

from __future__ import annotations

import dataclasses

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tfmetareg.evaluation.originals import find_originals
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_image
from tfmetareg.imaging.read import read_image


@pytest.fixture
def folder(tmp_path):
    """A colour and a grey image, under names with a colon and in a folder of their own."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((60, 80, 3)), (3, 3, 0))
    colour = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(colour).save(tmp_path / "in" / "a:b.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "c.png")
    return tmp_path


def recorded(folder, preprocessing, *names):
    return tuple(
        prepare_image(read_image(folder / name, preprocessing.colour), preprocessing) for name in names
    )


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing((48, 48)),
        Preprocessing((48, 48), intensity="clahe", colour="luminance"),
        Preprocessing((96, 96), fit="pad"),
        Preprocessing((32, 32), fit="crop", intensity="percentile"),
    ],
)
def test_originals_are_found_on_the_records_grid_in_their_own_colours(folder, preprocessing):
    record = recorded(folder, preprocessing, "in/a:b.png", "c.png")
    moving, fixed = find_originals(folder, "in/a:b.png:c.png", record, preprocessing)
    size = preprocessing.image_size
    assert (moving.shape, fixed.shape) == ((*size, 3), size)
    assert moving.dtype == fixed.dtype == np.uint8
    if preprocessing.fit == "crop":
        np.testing.assert_array_equal(moving, np.asarray(Image.open(folder / "in" / "a:b.png"))[14:46, 24:56])
    # They are not equalised: the histogram of the smooth image has its peak in the middle.
    assert np.histogram(moving[moving > 0], 3)[0].argmax() == 1


def test_other_images_are_never_taken_for_them(folder):
    preprocessing = Preprocessing((48, 48))
    moving, fixed = recorded(folder, preprocessing, "in/a:b.png", "c.png")
    assert find_originals(folder, "c.png:c.png", (fixed, fixed), preprocessing) is not None
    changed = fixed.copy()
    changed[7, 9] ^= 1
    for key, record in (
        ("in/a:b.png:c.png", (moving, changed)),
        ("c.png:in/a:b.png", (moving, fixed)),
        ("in/a:b.png:gone.png", (moving, fixed)),
        ("no colon", (moving, fixed)),
        ("", (moving, fixed)),
    ):
        assert find_originals(folder, key, record, preprocessing) is None
    otherwise = dataclasses.replace(preprocessing, intensity="percentile")
    assert find_originals(folder, "in/a:b.png:c.png", (moving, fixed), otherwise) is None


def test_records_of_others_lead_to_no_file_outside_the_folder(folder):
    preprocessing = Preprocessing((48, 48))
    (image,) = recorded(folder, preprocessing, "c.png")
    (folder / "within").mkdir()
    for name in (str(folder / "c.png"), "../c.png", "x/../../c.png"):
        assert find_originals(folder / "within", f"{name}:{name}", (image, image), preprocessing) is None


def test_a_moving_image_that_was_turned_is_turned_again(tmp_path):
    """As its header has it, like the builder does."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.random((60, 80)), 3).astype(np.float32)
    preprocessing = Preprocessing((48, 48))
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored[0, 3] = 79
    for name, pixels, affine in (("m", image[:, ::-1], mirrored), ("f", image, np.eye(4))):
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(pixels.T), affine), tmp_path / f"{name}.nii.gz")
    record = prepare_image(image, preprocessing)
    moving, fixed = find_originals(tmp_path, "m.nii.gz:f.nii.gz", (record, record), preprocessing)
    np.testing.assert_array_equal(moving, fixed)
