"""Which images count as of one contrast, and the two pictures that compare them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tests.conftest import texture
from tfmetareg.report.contrast import (
    LEAST_AGREEMENT,
    agreement,
    checkerboard,
    colour_difference,
    fitting_comparison,
    overlay,
)


def unit(image):
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


def scene(seed, size=160):
    return unit(texture(np.random.default_rng(seed), 4.0, size))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), gamma=st.floats(0.4, 2.5), noise=st.floats(0, 0.1))
def test_brightness_gamma_and_noise_leave_a_contrast_as_it_is(seed, gamma, noise):
    image = scene(seed)
    ramp = np.linspace(0, 0.5, image.shape[1])
    other = unit(image**gamma + ramp + noise * np.random.default_rng(seed + 1).random(image.shape))
    assert agreement(image, other) > 0.9
    assert fitting_comparison([(image, other)]) == "overlay"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99))
def test_inverted_and_folded_contrasts_differ(seed):
    image = scene(seed)
    for other in (1 - image, np.abs(image - np.median(image)), scene(seed + 100)):
        assert agreement(image, other) < LEAST_AGREEMENT
        assert fitting_comparison([(image, other)]) == "checkerboard"


def test_the_version_that_agrees_best_decides():
    image = scene(0)
    moved = np.roll(image, 20, axis=1)
    assert fitting_comparison([(image, moved)]) == "checkerboard"
    assert fitting_comparison([(image, moved, image)]) == "overlay"


def test_most_pairs_decide():
    same, different = (scene(0), scene(0)), (scene(0), 1 - scene(0))
    assert fitting_comparison([same, same, different]) == "overlay"
    assert fitting_comparison([same, different, different]) == "checkerboard"
    assert fitting_comparison([]) == "overlay"


def stained(colour, grey):
    """White where the tissue is bright, the stain's colour where it is dark."""
    return grey[..., None] + (1 - grey[..., None]) * np.float32(colour)


def test_two_stains_differ_though_their_structure_agrees():
    grey = scene(3)
    red, blue, paler = ([0.7, 0.1, 0.4], [0.2, 0.2, 0.7], [0.85, 0.55, 0.7])
    assert colour_difference(stained(red, grey), stained(blue, grey)) > 0.5
    assert fitting_comparison([(stained(red, grey), stained(blue, grey))]) == "checkerboard"
    assert fitting_comparison([(stained(red, grey), stained(red, grey))]) == "overlay"
    # A grey image has no colour to differ in, nor has one that is nearly grey.
    assert colour_difference(grey, stained(red, grey)) == 0
    assert colour_difference(stained([0.50, 0.51, 0.5], grey), stained([0.5] * 3, grey)) == 0
    assert colour_difference(stained(red, grey), stained(paler, grey)) > 0.3  # One stain is nearly gone.


@pytest.mark.parametrize("image", [np.zeros((40, 40)), np.ones((12, 300)), np.eye(8), np.zeros((8, 3000))])
def test_images_with_little_to_see_are_measured_without_a_complaint(image):
    with np.errstate(all="raise"):
        assert -1 <= agreement(image, image.T if image.shape[0] == image.shape[1] else image) <= 1


def test_real_contrasts(real_data):
    volume = nibabel.load(real_data / "Task01_BrainMS" / "imagesTr" / "MS_07.nii.gz")
    flair, t1, t1gd, t2 = (unit(np.asarray(volume.dataobj[:, :, 90, channel])) for channel in range(4))
    assert fitting_comparison([(t1, t1gd)]) == "overlay"
    assert fitting_comparison([(t1, t2)]) == fitting_comparison([(t1, flair)]) == "checkerboard"


def test_real_stains_and_repeat_scans(real_data):
    def opened(*parts):
        return np.asarray(Image.open(real_data.joinpath(*parts)), np.float32) / 255

    stains = [opened("histology", f"kidney_{name}.png")[:700, :1100] for name in ("HE", "PanCytokeratin")]
    assert fitting_comparison([stains]) == "checkerboard"
    scans = [
        [opened("octa_scp", "images", f"pair{number:02}_{name}.png") for name in ("fixed", "moving")]
        for number in (1, 2, 3, 5, 6, 9)
    ]
    assert fitting_comparison(scans) == "overlay"


def test_overlay_is_magenta_green_and_white():
    ramp = np.linspace(0, 1, 5)[None]
    nothing = np.zeros_like(ramp)
    rgb = overlay(ramp, ramp)
    assert (rgb.shape, rgb.dtype) == ((1, 5, 3), np.float32)
    np.testing.assert_allclose(rgb, np.repeat(ramp[..., None], 3, -1))
    np.testing.assert_array_equal(overlay(ramp, nothing)[0, -1], [1, 0, 1])
    np.testing.assert_array_equal(overlay(nothing, ramp)[0, -1], [0, 1, 0])
    np.testing.assert_array_equal(overlay(ramp + 1, nothing - 1)[0, -1], [1, 0, 1])
    colour = np.zeros((1, 5, 3)) + [1, 0, 0]
    np.testing.assert_allclose(overlay(colour, nothing)[0, 0], [0.2126, 0, 0.2126], rtol=1e-6)


def test_the_checkerboard_has_eight_tiles_along_the_longer_side_the_first_of_the_fixed_image():
    moving, fixed = np.zeros((40, 80)), np.ones((40, 80))
    board = checkerboard(moving, fixed)
    assert board[0, 0] == 1 and board[0, 10] == board[10, 0] == 0 and board[39, 79] == 1
    assert ndimage.label(board)[1] == 16
    assert checkerboard(np.zeros((40, 80, 3)), fixed).shape == (40, 80, 3)
