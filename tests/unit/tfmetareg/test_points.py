from __future__ import annotations

import numpy as np
import pytest

from tfmetareg.points import write_points


def test_columns_name_image_and_axis_and_x_is_the_column(tmp_path):
    fixed = np.float32([[1.5, 2.0], [3.0, 4.25]])
    moving = np.array([[10.0, 20.0], [np.nan, np.nan]])
    write_points(tmp_path / "points.csv", fixed=fixed, moving=moving)
    assert (tmp_path / "points.csv").read_text().splitlines() == [
        "fixed_x,fixed_y,moving_x,moving_y",
        "2.0000,1.5000,20.0000,10.0000",
        "4.2500,3.0000,,",
    ]


def test_no_points_leave_the_header(tmp_path):
    write_points(tmp_path / "points.csv", fixed=np.zeros((0, 2)), moving=np.zeros((0, 2)))
    assert (tmp_path / "points.csv").read_text() == "fixed_x,fixed_y,moving_x,moving_y\n"


def test_unmatched_points_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="dimension"):
        write_points(tmp_path / "points.csv", fixed=np.zeros((3, 2)), moving=np.zeros((2, 2)))
    assert not list(tmp_path.iterdir())
