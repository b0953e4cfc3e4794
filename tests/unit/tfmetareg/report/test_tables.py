"""The table's numbers, its best values and its three renderings."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.report.workdirs import write_result
from tfmetareg.files import from_cell, to_cell
from tfmetareg.report.results import read_results
from tfmetareg.report.tables import build_table, markdown_rows, to_csv, to_markdown


def spread(mean, std=0.05):
    return {"mean": mean, "std": std, "before_mean": 0.3}


def table_of(tmp_path, **methods):
    for method, changes in methods.items():
        write_result(tmp_path, method, **changes)
    return build_table(read_results(tmp_path))


def best(table):
    """{heading: labels of the rows with the best value}."""
    return {
        column.heading: [row[0].text for row in table.rows if row[position].best]
        for position, column in enumerate(table.columns)
    }


def test_a_row_shows_the_numbers_rounded(tmp_path):
    table = table_of(
        tmp_path,
        ours_10={
            "distance": 1.2549,
            "epochs": 10,
            "ncc": spread(0.80149, 0.04),
            "local_ncc": spread(0.5555),
            "folding_percent": {"mean": 0.004, "max": 1},
            "seconds_per_pair": {"median": 0.03456},
        },
        elastix={"seconds_per_pair": {"median": 8.2}, "folding_percent": {"mean": 0.0, "max": 0.0}},
    )
    texts = [[cell.text for cell in row] for row in table.rows]
    assert texts[0] == ["Ours (10)", "10", "1.25 ± 0.50", "0.801 ± 0.040", "0.555", "<0.01", "34.6"]
    assert texts[1][-2:] == ["0.00", "8200"]


def test_the_best_value_of_every_column(tmp_path):
    fast, slow = {"median": 0.01}, {"median": 0.02}
    table = table_of(
        tmp_path,
        not_deformed={
            "distance": 6.0,
            "ncc": spread(0.3),
            "folding_percent": {"mean": 0, "max": 0},
            "seconds_per_pair": {"median": 0},
        },
        transfer={"distance": 2.0, "ncc": spread(0.9), "seconds_per_pair": slow},
        ours_10={
            "distance": 1.0,
            "ncc": spread(0.8),
            "folding_percent": {"mean": 1, "max": 1},
            "seconds_per_pair": fast,
        },
    )
    assert best(table) == {
        "Method": [],
        "Epochs": [],
        "Distance (px)": ["Ours (10)"],
        "NCC": ["Transfer"],
        "Local NCC": [],  # all equal
        "Folding (%)": ["Transfer"],  # doing nothing folds nothing, and wins nothing
        "ms/pair": ["Ours (10)"],
    }


def test_values_that_look_equal_share_the_best(tmp_path):
    table = table_of(
        tmp_path, transfer={"distance": 1.001}, ours_10={"distance": 1.004}, syn={"distance": 2.0}
    )
    assert best(table)["Distance (px)"] == ["Transfer", "Ours (10)"]


def test_registering_may_be_worse_than_doing_nothing(tmp_path):
    table = table_of(tmp_path, not_deformed={"distance": 1.0}, ours_10={"distance": 2.0})
    assert best(table)["Distance (px)"] == ["Not deformed"]


def test_no_landmarks_leave_dashes(tmp_path):
    table = table_of(tmp_path, transfer={"distance": None}, ours_10={"distance": None})
    assert [row[2].text for row in table.rows] == ["–", "–"]
    assert best(table)["Distance (px)"] == []
    assert to_csv(table).splitlines()[1] == "transfer,,,,0.7,0.05,0.5,0.02,34.0"


def test_markdown_is_aligned_and_bold(tmp_path):
    table = table_of(tmp_path, transfer={"distance": 2.5}, ours_10={"distance": 1.25, "epochs": 10})
    assert to_markdown(table) == (
        "| Method    | Epochs |   Distance (px) |           NCC | Local NCC | Folding (%) | ms/pair |\n"
        "| --------- | -----: | --------------: | ------------: | --------: | ----------: | ------: |\n"
        "| Transfer  |      – |     2.50 ± 0.50 | 0.700 ± 0.050 |     0.500 |        0.02 |    34.0 |\n"
        "| Ours (10) |     10 | **1.25 ± 0.50** | 0.700 ± 0.050 |     0.500 |        0.02 |    34.0 |\n"
    )


def test_markdown_keeps_odd_names_in_their_cell(tmp_path):
    table = table_of(tmp_path, **{"a|b": {}})
    assert to_markdown(table).splitlines()[2].startswith("| a\\|b ")


def test_csv_is_not_rounded(tmp_path):
    table = table_of(tmp_path, ours_10={"distance": 1.23456789, "epochs": 10})
    head, row = to_csv(table).splitlines()
    assert head == (
        "method,epochs,distance_px_mean,distance_px_std,ncc_mean,ncc_std,local_ncc_mean,"
        "folding_percent_mean,ms_per_pair"
    )
    assert row == "ours_10,10.0,1.23456789,0.5,0.7,0.05,0.5,0.02,34.0"


def test_dice_and_millimetres_have_columns_only_where_some_row_has_them(tmp_path):
    plain = {"transfer": {"distance": 2.5}}
    headings = [column.heading for column in table_of(tmp_path / "plain", **plain).columns]
    assert headings == ["Method", "Epochs", "Distance (px)", "NCC", "Local NCC", "Folding (%)", "ms/pair"]
    table = table_of(
        tmp_path / "more",
        **plain,
        ours_10={"distance": 1.25, "distance_mm": spread(0.625), "dice": spread(0.81234)},
        syn={"distance": 1.0, "distance_mm": spread(0.5), "dice": spread(0.7)},
    )
    assert [column.heading for column in table.columns] == [
        "Method", "Epochs", "Distance (px)", "Distance (mm)", "NCC", "Local NCC", "Dice",
        "Folding (%)", "ms/pair",
    ]  # fmt: skip
    by_heading = [
        {column.heading: cell.text for column, cell in zip(table.columns, row)} for row in table.rows
    ]
    assert (by_heading[0]["Distance (mm)"], by_heading[0]["Dice"]) == ("–", "–")
    assert (by_heading[1]["Distance (mm)"], by_heading[1]["Dice"]) == ("0.62 ± 0.05", "0.812 ± 0.050")
    assert (best(table)["Distance (mm)"], best(table)["Dice"]) == (["ANTs SyN"], ["Ours (10)"])
    assert to_csv(table).splitlines()[1] == "transfer,,2.5,0.5,,,0.7,0.05,0.5,,,0.02,34.0"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30))
def test_a_name_in_a_csv_file_is_no_formula_and_comes_back(name):
    assert not to_cell(name).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert from_cell(to_cell(name)) == name


def test_names_are_no_markup_in_markdown():
    (head, _, row) = markdown_rows([("Method", "Pair"), ("<b>|*a*", "line\nbreak `x` [y](z)")]).splitlines()
    assert row == r"| \<b>\|\*a\* | line break \`x\` \[y](z) |"
    assert head.startswith("| Method")
