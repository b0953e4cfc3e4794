from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmetareg.geometry.frame import centre_mapping, inside_image, resize_mapping

sides = st.integers(24, 90)


@settings(max_examples=25, deadline=None)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides), place=st.tuples(*[st.floats(0.3, 0.7)] * 2))
def test_a_blob_is_where_its_landmark_is(old, new, place):
    centre = np.asarray(place) * old
    rows, columns = np.indices(old)
    blob = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * 2.5**2))
    way = resize_mapping(old, new)
    image = way.resample(blob)
    rows, columns = np.indices(new)
    found = np.array([(image * rows).sum(), (image * columns).sum()]) / image.sum()
    np.testing.assert_allclose(found, way.points(centre[None])[0], atol=0.1)


@settings(max_examples=25, deadline=None)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides))
def test_a_ramp_reads_the_coordinate_of_each_pixel(old, new):
    """Pixel x of a ramp holds x; resized, the pixel at x' must hold the x that maps to x'.

    Up to the antialiasing kernel's own ripple, below 0.08 pixels of the coarser grid and zero on average.
    """
    grid = np.indices(old).astype(np.float32)
    back = resize_mapping(new, old).points(np.stack(np.indices(new), -1).reshape(-1, 2)).reshape(*new, 2)
    for axis in range(2):
        coarser = max(1, old[axis] / new[axis])
        inner = (back[..., axis] > coarser) & (back[..., axis] < old[axis] - 1 - coarser)
        error = (resize_mapping(old, new).resample(grid[axis]) - back[..., axis])[inner]
        assert np.abs(error).max() < 0.08 * coarser
        assert abs(error.mean()) < 0.02 * coarser


def test_points_by_hand():
    """Doubling the side puts the first pixel's centre between the first two pixels, and keeps the border."""
    points = np.array([[0, 0], [-0.5, -0.5], [9.5, 19.5]])
    np.testing.assert_array_equal(
        resize_mapping((10, 20), (20, 40)).points(points), [[0.5, 0.5], [-0.5, -0.5], [19.5, 39.5]]
    )


def test_resizing_is_tensorflows_own():
    image = np.random.default_rng(0).random((70, 45)).astype(np.float32)
    expected = tf.image.resize(image[..., None], (33, 64), antialias=True).numpy()[..., 0]
    np.testing.assert_array_equal(resize_mapping(image.shape, (33, 64)).resample(image), expected)
    labels = np.random.default_rng(0).integers(0, 5, (70, 45)).astype(np.uint8)
    expected = tf.image.resize(labels[..., None], (33, 64), method="nearest").numpy()[..., 0]
    np.testing.assert_array_equal(resize_mapping(image.shape, (33, 64)).labels(labels), expected)


@pytest.mark.parametrize("shape", [(20, 30), (21, 31), (50, 60), (51, 9), (40, 40)])
def test_without_scale_pixels_stay_as_they_are(shape):
    """Cut where larger than 40 x 40, padded where smaller; each pixel keeps its value and landmark."""
    image = np.random.default_rng(0).random(shape).astype(np.float32) + 1
    way = centre_mapping(shape, (40, 40))
    framed = way.pad(way.resample(image))
    assert framed.shape == (40, 40)
    places = way.points(np.stack(np.indices(shape), -1).reshape(-1, 2))
    kept = inside_image(places, (40, 40))
    rows, columns = places[kept].astype(int).T
    np.testing.assert_array_equal(framed[rows, columns], image.ravel()[kept])
    assert kept.sum() == (framed > 0).sum() == min(shape[0], 40) * min(shape[1], 40)
    np.testing.assert_array_equal(way.pad(way.resample(image)) > 0, way.labels(np.ones(shape, np.uint8)))
    assert np.abs(way.points((np.array([shape]) - 1) / 2) - 19.5).max() <= 0.5


def test_where_the_odd_pixel_is():
    """Of 8 rows into 5, two are cut off above and one below; 5 rows into 8 get one above and two below."""
    rows = np.repeat(np.arange(1, 9, dtype=np.float32)[:, None], 8, axis=1)
    cut = centre_mapping((8, 8), (5, 5))
    np.testing.assert_array_equal(cut.pad(cut.resample(rows))[:, 0], [3, 4, 5, 6, 7])
    padded = centre_mapping((5, 5), (8, 8))
    np.testing.assert_array_equal(padded.pad(padded.resample(rows[:5, :5]))[:, 2], [0, 1, 2, 3, 4, 5, 0, 0])


def test_a_pixel_size_is_kept_to_the_last_digit():
    """0.7 and 0.4 mm to 0.5: what is 21 mm apart is 42 pixels apart, and a blob is where its landmark is."""
    shape, spacing = (61, 97), (0.7, 0.4)
    way = centre_mapping(shape, (96, 70), (0.7 / 0.5, 0.4 / 0.5))
    assert way.spacing(spacing) == pytest.approx((0.5, 0.5))
    # The middle of 85 rows and 78 columns in that of 96 and 70; the odd row is below.
    np.testing.assert_allclose(way.points(np.array([[30.0, 48]])), [[47, 34.5]], atol=1e-5)
    ends = way.points(np.array([[10.0, 20], [40, 20], [10, 72.5]]))
    np.testing.assert_allclose(ends[1:] - ends[0], [[42, 0], [0, 42]], atol=1e-4)
    rows, columns = np.indices(shape)
    image = np.exp(-((rows - 22) ** 2 + (columns - 55) ** 2) / 18.0)
    framed = way.pad(way.resample(image))
    rows, columns = np.indices(framed.shape)
    found = np.array([(framed * rows).sum(), (framed * columns).sum()]) / framed.sum()
    np.testing.assert_allclose(found, way.points(np.array([[22, 55]]))[0], atol=0.05)
