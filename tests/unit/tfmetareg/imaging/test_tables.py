from __future__ import annotations

import numpy as np
import pytest

from tfmetareg.errors import UserError
from tfmetareg.imaging.tables import read_landmarks, read_table


@pytest.mark.parametrize(
    "content",
    [
        b"x,y\n3,5\n1.5,2\n",
        b"\xef\xbb\xbfx,y\r\n3,5\r\n1.5,2\r\n",
        b"x;y\n3;5\n1.5;2",
        b" X , Y \n 3 , 5 \n\n1.5,2\n\n",
        b"row,col\n5,3\n2,1.5\n",
        b"col\trow\n3\t5\n1.5\t2\n",
        b"name,y,x\na,5,3\nb,2,1.5\n",
    ],
)
def test_landmarks_are_row_column_whatever_the_dialect(tmp_path, content):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    points = read_landmarks(path)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, [[5, 3], [2, 1.5]])


def test_no_landmarks_below_the_header(tmp_path):
    (tmp_path / "points.csv").write_text("x,y\n")
    assert read_landmarks(tmp_path / "points.csv").shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"3,5\n1,2\n", "must be a header with `x,y`"),
        (b"a,b\n1,2\n", "must be a header with `x,y`"),
        (b"x,y,row,col\n1,2,2,1\n", "must be a header with `x,y`"),
        (b"x,y\n1,two\n", "line 2: a coordinate must be a finite number, got `two`"),
        (b"x,y\n\n1,nan\n", "line 3: a coordinate"),
        (b"x,y\n1,inf\n", "line 2: a coordinate"),
        (b"x,y\n1,2,3\n", "line 2: 3 cells where the header has 2"),
        (b"x,x,y\n1,2,3\n", "column `x` is there twice"),
        (b"\n\n", "empty file"),
        (b"x,y\n\xff\xfe,2\n", "not UTF-8"),
    ],
)
def test_wrong_landmark_files(tmp_path, content, rule):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rule) as error:
        read_landmarks(path)
    assert str(path) in str(error.value)


def test_quoted_cells_and_line_numbers(tmp_path):
    (tmp_path / "t.csv").write_text('moving,fixed\n"a, b.png",c.png\n\nd.png,e.png\n')
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("moving", "fixed")
    assert table.rows == (
        (2, {"moving": "a, b.png", "fixed": "c.png"}),
        (4, {"moving": "d.png", "fixed": "e.png"}),
    )


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "t.csv")
