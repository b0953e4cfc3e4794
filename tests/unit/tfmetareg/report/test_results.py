"""Reading results, pair scores, examples and metrics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.tfmetareg.report.workdirs import training_line, write_metrics, write_result
from tfmetareg.errors import UserError
from tfmetareg.methods import label
from tfmetareg.report.results import (
    read_examples,
    read_metrics,
    read_results,
    read_scores,
    read_stages,
    series,
)


def test_known_methods_come_in_their_order_and_unknown_ones_after(tmp_path):
    for method in ("zeta", "syn", "alpha", "ours_10", "not_deformed", "fine_tune_long", "fine_tune_10"):
        write_result(tmp_path, method)
    methods = [result.method for result in read_results(tmp_path)]
    assert methods == [
        "not_deformed",
        "fine_tune_10",
        "fine_tune_long",
        "ours_10",
        "syn",
        "alpha",
        "zeta",
    ]
    assert label("ours_10") == "Ours (10)"
    assert label("alpha") == "alpha"


def test_a_result_holds_the_numbers_of_its_files(workdir):
    result = next(result for result in read_results(workdir) if result.method == "ours_10")
    assert (result.distance_px.mean, result.distance_px.std, result.distance_px.before_mean) == (
        1.25,
        0.5,
        6.0,
    )
    assert (result.landmarks, result.pairs, result.epochs) == (6, 2, 10.0)
    assert (result.ncc.mean, result.local_ncc.mean) == (0.7, 0.5)
    scores = read_scores(result)
    assert [score.key for score in scores] == ["pair0", "pair1"]
    assert [score.distance_px for score in scores] == [0.75, 1.75]
    examples = read_examples(result)
    assert examples.keys == ("pair0", "pair1")
    np.testing.assert_array_equal(examples.displacement[1, 3, 4], [1, 0])
    assert examples.fixed_landmarks[1].shape == (3, 2)


def test_no_results_read_as_an_empty_list(tmp_path):
    assert read_results(tmp_path) == []


def test_null_distance_and_empty_cells_read_as_none(tmp_path):
    write_result(tmp_path, "transfer", distance=None)
    (result,) = read_results(tmp_path)
    assert result.distance_px is None
    assert [score.distance_px for score in read_scores(result)] == [None, None]
    assert read_examples(result).fixed_landmarks[0].shape == (0, 2)


def test_files_beside_a_result_may_be_absent(tmp_path):
    write_result(tmp_path, "transfer")
    (tmp_path / "results" / "transfer.csv").unlink()
    (tmp_path / "results" / "transfer.examples.npz").unlink()
    (result,) = read_results(tmp_path)
    assert read_scores(result) == []
    assert read_examples(result) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": 1, "method": ', "is not JSON"),
        ("[1, 2]", "must hold a JSON object, got list"),
        ('{"schema": 2}', "`schema` must be 1, got 2"),
        ('{"schema": 1, "method": "x"}', "lacks the key 'distance_px'"),
    ],
)
def test_a_damaged_result_is_one_line_with_its_name(tmp_path, content, said):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "ours_10.json").write_text(content)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path)
    assert "ours_10.json" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_is_none_of_its_kind_names_the_file(tmp_path):
    write_result(tmp_path, "transfer", ncc={"mean": "much", "std": 0, "before_mean": 0})
    with pytest.raises(UserError, match=r"transfer\.json is damaged"):
        read_results(tmp_path)


def test_a_damaged_csv_names_its_line(tmp_path):
    write_result(tmp_path, "transfer")
    path = tmp_path / "results" / "transfer.csv"
    (result,) = read_results(tmp_path)
    path.write_text(path.read_text().replace("2.5", "two"))
    with pytest.raises(UserError, match=r"transfer\.csv, line 3: .*two"):
        read_scores(result)
    path.write_text("key,subject\na,b\n")
    with pytest.raises(UserError, match="lacks the column 'distance_before_px'"):
        read_scores(result)


def test_a_truncated_examples_file_is_a_user_error(tmp_path):
    write_result(tmp_path, "transfer")
    path = tmp_path / "results" / "transfer.examples.npz"
    path.write_bytes(path.read_bytes()[:500])
    (result,) = read_results(tmp_path)
    with pytest.raises(UserError, match=r"transfer\.examples\.npz is damaged"):
        read_examples(result)


def test_metrics_of_a_resumed_run_count_once_in_the_order_of_steps(tmp_path):
    write_metrics(
        tmp_path,
        "reptile",
        [training_line(step, total) for step, total in [(10, 1.0), (20, 2.0), (30, 3.0), (20, 20.0)]],
    )
    steps, totals = series(read_metrics(tmp_path / "reptile"), "step", "total")
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_array_equal(totals, [1.0, 20.0, 3.0])


def test_training_and_evaluation_lines_of_one_step_both_stay(workdir):
    lines = read_metrics(workdir / "ours_10")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 4]


def test_a_line_being_written_is_left_out_and_a_damaged_one_is_named(tmp_path):
    write_metrics(tmp_path, "reptile", [training_line(1, 1.0)])
    path = tmp_path / "reptile" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 2, "tot')
    assert [line["step"] for line in read_metrics(tmp_path / "reptile")] == [1]
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is not JSON"):
        read_metrics(tmp_path / "reptile")


def test_stages_come_in_the_order_of_the_work(tmp_path):
    for stage in ("ours_10", "another", "reptile", "pretrain", "fine_tune_10"):
        write_metrics(tmp_path, stage, [training_line(1, 1.0)])
    assert list(read_stages(tmp_path)) == ["pretrain", "reptile", "fine_tune_10", "ours_10", "another"]
