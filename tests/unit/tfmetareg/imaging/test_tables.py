from __future__ import annotations

import pytest

from tfmetareg.errors import UserError
from tfmetareg.imaging.tables import read_table


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


@pytest.mark.parametrize(
    ("line", "separator"),
    [("sep=,", ","), ("sep=;", ";"), ("SEP=;", ";"), ("sep=\t", "\t"), ("sep=\\t", "\t"), ("sep=|", "|"),
     ('"sep=;"', ";"), ("sep=,,", ","), ("sep=; ", ";"), ("sep=:", ":")],
)  # fmt: skip
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_first_line_that_tells_excel_the_separator(tmp_path, line, separator, mark):
    path = tmp_path / "points.csv"
    rows = [line, "", f"x{separator}y", f"3{separator}5", f"1.5{separator}nowhere"]
    path.write_bytes((mark + "\r\n".join(rows)).encode())
    assert read_table(path).columns == ("x", "y")
    assert read_table(path).rows == ((4, {"x": "3", "y": "5"}), (5, {"x": "1.5", "y": "nowhere"}))


def test_nothing_below_the_line_for_excel(tmp_path):
    (tmp_path / "points.csv").write_text("sep=;\n")
    with pytest.raises(UserError, match="empty file"):
        read_table(tmp_path / "points.csv")
