from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmetareg._compat import tfa
from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair
from tfrecords_builder import preprocess
from tfrecords_builder.images import read_image
from tfrecords_builder.preprocess import Preprocessing, prepare_image, prepare_pair, resize, resize_points

sides = st.integers(24, 90)


@settings(max_examples=25, deadline=None)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides), place=st.tuples(*[st.floats(0.3, 0.7)] * 2))
def test_a_blob_is_where_its_landmark_is(old, new, place):
    centre = np.asarray(place) * old
    rows, columns = np.indices(old)
    blob = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * 2.5**2))
    resized = resize(blob, new)
    rows, columns = np.indices(new)
    found = np.array([(resized * rows).sum(), (resized * columns).sum()]) / resized.sum()
    np.testing.assert_allclose(found, resize_points(centre[None], old, new)[0], atol=0.05)


@settings(max_examples=25, deadline=None)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides))
def test_a_ramp_reads_the_coordinate_of_each_pixel(old, new):
    """Pixel x of a ramp holds x; resized, the pixel at x' must hold the x that maps to x'.

    Up to the antialiasing kernel's own ripple, below 0.08 pixels of the coarser grid and zero on average.
    """
    grid = np.indices(old).astype(np.float32)
    back = resize_points(np.stack(np.indices(new), -1).reshape(-1, 2), new, old).reshape(*new, 2)
    for axis in range(2):
        coarser = max(1, old[axis] / new[axis])
        inner = (back[..., axis] > coarser) & (back[..., axis] < old[axis] - 1 - coarser)
        error = (resize(grid[axis], new) - back[..., axis])[inner]
        assert np.abs(error).max() < 0.08 * coarser
        assert abs(error.mean()) < 0.02 * coarser


def test_points_by_hand():
    """Doubling the side puts the first pixel's centre between the first two pixels, and keeps the border."""
    points = np.array([[0, 0], [-0.5, -0.5], [9.5, 19.5]])
    np.testing.assert_array_equal(
        resize_points(points, (10, 20), (20, 40)), [[0.5, 0.5], [-0.5, -0.5], [19.5, 39.5]]
    )


def test_each_image_of_a_pair_follows_its_own_resize():
    rng = np.random.default_rng(0)
    pair = ImagePair(
        key="a",
        subject="s",
        moving=rng.normal(size=(20, 40)),
        fixed=rng.integers(0, 4000, (40, 20)).astype(np.int16),
        moving_landmarks=np.array([[19.5, 39.5]], np.float32),
        fixed_landmarks=np.array([[4.5, 9.5]], np.float32),
        moving_spacing=(1.0, 0.5),
        fixed_spacing=(0.5, 1.0),
    )
    prepared = prepare_pair(pair, Preprocessing((40, 40)))
    assert prepared.moving.shape == prepared.fixed.shape == (40, 40)
    assert prepared.moving.dtype == prepared.fixed.dtype == np.uint8
    np.testing.assert_array_equal(prepared.moving_landmarks, [[39.5, 39.5]])
    np.testing.assert_array_equal(prepared.fixed_landmarks, [[4.5, 19.5]])
    assert prepared.moving_spacing == (0.5, 0.5)
    assert prepared.fixed_spacing == (0.5, 0.5)
    assert (prepared.key, prepared.subject) == ("a", "s")


def test_without_background_it_is_tfas_equalisation():
    image = np.random.default_rng(1).beta(2, 5, (64, 64)).astype(np.float32)
    plain = tfa.image.equalize(tf.constant(np.uint8(np.rint(255 * preprocess.scale(image)))[..., None]))[
        ..., 0
    ]
    difference = prepare_image(image, Preprocessing((64, 64))).astype(int) - plain.numpy()
    # 256 levels against 1024, the lowest 3 % of the range to black.
    assert np.percentile(np.abs(difference), 95) <= 6
    assert np.abs(difference.mean()) < 2


def test_equalised_histogram_is_flat():
    image = np.random.default_rng(1).gamma(2, 300, (100, 100)) - 1024
    counts, _ = np.histogram(prepare_image(image, Preprocessing((100, 100))), 8, (0, 256))
    assert counts.min() > 0.7 * 10000 / 8
    assert counts.max() < 1.3 * 10000 / 8


@pytest.mark.parametrize("size", [(48, 48), (128, 128), (400, 400)])
@pytest.mark.parametrize("noise", [0, 12])
def test_ct_keeps_soft_tissue_and_a_dark_background(size, noise):
    """Air around a body of fat, muscle and liver with bone: HU from -1024 to 3000."""
    rng = np.random.default_rng(0)
    image = np.full((256, 256), -1000.0)
    parts = {"fat": (-100, 60, 196), "muscle": (55, 80, 176), "liver": (110, 100, 156)}
    for value, low, high in parts.values():
        image[low:high, low:high] = value
    image[62:66, 62:194] = 1500
    image[62, 62] = 3000
    body = image > -500
    image += np.where(body, 8, noise) * rng.standard_normal(image.shape)
    result = resize(prepare_image(image, Preprocessing(size)).astype(float), (256, 256))
    assert np.median(result[:40]) == 0
    assert (result[:40] > 20).mean() < 0.02
    fat, muscle, liver = (np.median(result[y, 100:156]) for y in (72, 90, 128))
    assert 15 < fat < muscle - 40 < liver - 80


def test_a_small_body_is_not_bleached():
    """Nine tenths of background must not leave the rest the brightest greys, nor cut its upper half off."""
    rng = np.random.default_rng(0)
    image = np.zeros((128, 128))
    image[40:80, 40:80] = 100 + 40 * rng.random((40, 40))
    body = prepare_image(image, Preprocessing((128, 128)))[41:79, 41:79]
    assert np.percentile(body, 10) < 70
    assert 120 < np.median(body) < 170
    assert (body == 255).mean() < 0.03


@pytest.mark.parametrize("equalize", [True, False])
def test_two_values_stay_two(equalize):
    image = np.zeros((32, 32), np.uint16)
    image[8:20, 8:20] = 65535
    result = prepare_image(image, Preprocessing((32, 32), equalize))
    assert set(np.unique(result)) == {0, 255}


@pytest.mark.parametrize("equalize", [True, False])
@pytest.mark.parametrize("scale_by, offset", [(1e-12, 0), (1, 1e9), (1e300, 0), (1, -1e6)])
def test_units_do_not_matter(equalize, scale_by, offset):
    image = np.random.default_rng(0).random((32, 32))
    plain = prepare_image(image, Preprocessing((32, 32), equalize)).astype(int)
    other = prepare_image(image * scale_by + offset, Preprocessing((32, 32), equalize)).astype(int)
    assert np.abs(plain - other).max() <= 1


def test_one_bright_pixel_is_no_failure():
    image = np.zeros((64, 64))
    image[5, 5] = 1
    assert prepare_image(image, Preprocessing((64, 64))).max() == 255


def test_scaling_without_equalisation_clips_outliers():
    image = np.linspace(0, 1, 100 * 100).reshape(100, 100)
    image[0, 0] = 1000
    result = prepare_image(image, Preprocessing((100, 100), equalize=False))
    assert result[50, 50] == pytest.approx(128, abs=2)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"moving": np.zeros((20, 20))}, "moving image: constant"),
        ({"fixed": np.zeros((20, 20, 3))}, "fixed image: must be one 2D"),
        ({"moving_landmarks": np.zeros((1, 2), np.float32)}, "1 moving and 0 fixed landmarks"),
        (
            {"moving_landmarks": np.float32([[3, 19.6]]), "fixed_landmarks": np.float32([[0, 0]])},
            r"point 1 \(x 19.6, y 3\) lies outside the image of width 20 and height 20",
        ),
    ],
)
def test_broken_pairs(changes, rule):
    image = np.random.default_rng(0).random((20, 20))
    pair = ImagePair(**{"key": "k", "subject": "s", "moving": image, "fixed": image, **changes})
    with pytest.raises(UserError, match=rule) as error:
        prepare_pair(pair, Preprocessing((20, 20)))
    assert "pair k" in str(error.value)


def test_real_scans_stay_as_the_paper_shows_them(real_data):
    octa = prepare_image(read_image(real_data / "octa_6mm" / "images" / "eye000.png"), Preprocessing())
    assert 0.45 < octa.mean() / 255 < 0.55
    brain = prepare_image(read_image(real_data / "oasis2d" / "oasis2d_0003.png"), Preprocessing())
    assert 0.4 < (brain == 0).mean() < 0.55
    assert brain[brain > 0].std() > 55
