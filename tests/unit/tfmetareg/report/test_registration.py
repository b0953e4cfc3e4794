"""The figures of one registered pair."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from tfmetareg.report.figures import save_figure
from tfmetareg.report.registration import draw_registered, figure_grid, figure_jacobian, figure_points
from tfmetareg.report.registration_panels import RegistrationPanels, shrink_factors, shrunk


def pair(shape=(60, 80), moving=(50, 40), **changes) -> RegistrationPanels:
    rng = np.random.default_rng(0)
    values = {
        "moving": rng.random(moving, np.float32),
        "fixed": rng.random(shape, np.float32),
        "before": rng.random(shape, np.float32),
        "warped": rng.random(shape, np.float32),
        "moving_shape": moving,
        "fixed_shape": shape,
        "displacement": np.float32(rng.normal(0, 1, (*shape, 2))),
        "determinant": np.ones((shape[0] - 1, shape[1] - 1), np.float32),
    }
    return RegistrationPanels(**{**values, **changes})


POINTS = np.array([[3.0, 4.0], [20.0, 30.0]], np.float32)


@pytest.mark.parametrize(
    ("shape", "moving"), [((60, 80), (50, 40)), ((20, 200), (200, 20)), ((8, 8), (8, 8))]
)
def test_every_figure_is_drawn_whatever_the_shapes(tmp_path, shape, moving):
    figures = draw_registered(pair(shape, moving))
    assert set(figures) == {"overlay", "checkerboard", "grid", "jacobian"}
    for name, figure in figures.items():
        image = imread(save_figure(figure, tmp_path / f"{name}.png"))
        assert min(image.shape[:2]) > 60 and image[..., :3].std() > 0.05


@pytest.mark.parametrize("shape", [(60, 80), (20, 200), (200, 20)])
def test_panels_lie_side_by_side_and_keep_their_proportions(shape):
    """The figure is laid out by hand."""
    figure = figure_grid(pair(shape, (50, 40)))
    width, height = figure.get_size_inches()
    boxes = [axis.get_position() for axis in figure.axes]
    for box, (rows, columns) in zip(boxes, (shape, (50, 40), shape)):
        assert box.height * height / (box.width * width) == pytest.approx(rows / columns)
        assert 0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < boxes[2].x0
    figure.draw_without_rendering()
    titles = [axis.title.get_window_extent() for axis in figure.axes]
    assert titles[0].x1 < titles[1].x0 and titles[1].x1 < titles[2].x0
    assert titles[0].y0 == pytest.approx(titles[1].y0)


def test_images_of_two_contrasts_have_no_overlay():
    assert set(draw_registered(pair(comparison="checkerboard"))) == {"checkerboard", "grid", "jacobian"}


def test_figures_are_in_pixels_of_the_whole_images_and_in_colour():
    red = np.zeros((60, 80, 3), np.float32) + np.float32([1, 0, 0])
    figure = figure_grid(pair(fixed=red, moving_shape=(1000, 800), fixed_shape=(600, 800)))
    fixed, moving, *_ = figure.axes
    assert fixed.get_images()[0].get_array().shape == (60, 80, 3)
    assert fixed.get_images()[0].get_extent() == [-0.5, 799.5, 599.5, -0.5]
    assert moving.get_images()[0].get_extent() == [-0.5, 799.5, 999.5, -0.5]


@pytest.mark.parametrize("shape", [(1900, 2000), (8, 3000), (1801, 7, 3), (900, 900)])
def test_a_large_image_is_shrunk_by_block_means(shape):
    image = np.random.default_rng(0).random(shape)
    small = shrunk(image)
    assert max(small.shape[:2]) <= 900 and small.shape[2:] == image.shape[2:]
    rows, columns = shrink_factors(shape)
    np.testing.assert_allclose(small[0, 0], image[:rows, :columns].mean(axis=(0, 1)))


def test_folds_are_marked_however_small_and_their_share_told():
    determinant = np.ones((1799, 1799), np.float32)
    assert len(figure_jacobian(pair(determinant=determinant)).axes[0].get_images()) == 1
    determinant[700, 900] = -0.5
    figure = figure_jacobian(pair(determinant=determinant))
    marked = figure.axes[0].get_images()[1].get_array()
    assert (marked[..., 3] > 0).sum() == 1
    assert "folded" in figure.axes[0].get_title()


@pytest.mark.parametrize(
    ("given", "way"), [("fixed", "fixed to moving: p + u(p)"), ("moving", "the inverse")]
)
def test_the_figure_of_points_tells_their_way(given, way):
    carried = POINTS + np.float32([[0, 0], [np.nan, np.nan]])
    points = {"fixed_points": POINTS, "moving_points": carried}
    figure = figure_points(pair(points_in=given, **points))
    assert way in figure.get_supxlabel()
    titles = [axis.get_title() for axis in figure.axes]
    assert [title for title in titles if "as given" in title] == [f"{given.capitalize()}: points as given"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["1"]
