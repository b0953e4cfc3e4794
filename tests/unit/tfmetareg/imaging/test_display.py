"""Images as the people who know them see them."""

from __future__ import annotations

import numpy as np
import pytest

from tfmetareg.imaging.display import displayed


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_stay_as_they_are(dtype, white, channels):
    rng = np.random.default_rng(0)
    share = rng.random((9, 7, channels)) * 0.5
    shown = displayed((share * white).astype(dtype))
    assert (shown.dtype, shown.shape) == (np.float32, (9, 7, 3))
    np.testing.assert_allclose(shown, share[..., :3], atol=0.005)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64])
def test_grey_values_are_stretched_linearly_and_not_equalised(dtype):
    values = (np.arange(10000).reshape(100, 100) // 100).astype(dtype)  # 0 to 99
    shown = displayed(values)
    assert (shown.min(), shown.max()) == (0, 1)
    np.testing.assert_allclose(np.diff(shown[:, 0])[1:-1], 1 / 99, atol=1e-4)


def test_the_first_of_channels_that_are_no_colours_is_shown():
    channels = np.random.default_rng(0).normal(0, 100, (20, 20, 5))
    np.testing.assert_array_equal(displayed(channels), displayed(channels[..., 0]))
    # Three channels of Hounsfield units are no colours either.
    np.testing.assert_array_equal(displayed(channels[..., :3]), displayed(channels[..., 0]))


def test_two_versions_of_an_image_look_alike_on_one_range():
    image = np.linspace(0, 1000, 10000).reshape(100, 100)
    part = image[:50]
    np.testing.assert_array_equal(displayed(part, range_of=image), displayed(image)[:50])
    assert displayed(part).max() == 1 > displayed(part, range_of=image).max()


def test_a_few_bright_pixels_and_a_constant_are_shown():
    few = np.zeros((100, 100))
    few[0, 0] = 7
    assert displayed(few)[0, 0] == 1 and displayed(few)[1, 1] == 0
    assert np.isfinite(displayed(np.full((9, 9), 3.0))).all()
