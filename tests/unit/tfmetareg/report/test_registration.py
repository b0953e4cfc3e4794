"""The figures of one registered pair."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from tfmetareg.report.figures import save_figure
from tfmetareg.report.registration import RegistrationPanels, draw_registered, figure_jacobian, figure_points


def pair(shape=(60, 80), moving=(50, 40), **changes) -> RegistrationPanels:
    rng = np.random.default_rng(0)
    values = {
        "moving": rng.random(moving, np.float32),
        "fixed": rng.random(shape, np.float32),
        "before": rng.random(shape, np.float32),
        "warped": rng.random(shape, np.float32),
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


def test_a_large_image_is_drawn_from_fewer_pixels():
    figure = draw_registered(pair((1900, 2000), (1000, 100)))["overlay"]
    assert max(figure.axes[0].get_images()[0].get_array().shape) <= 900


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
