"""Paired statistics, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from tests.unit.tfmetareg.report.workdirs import write_result
from tfmetareg.report.results import read_results
from tfmetareg.report.statistics import compare, comparison_rows, comparisons, mean_interval


def samples(count=40):
    rng = np.random.default_rng(3)
    other = rng.gamma(2.0, 1.0, count)
    return other - 0.2 + rng.normal(0, 0.5, count), other


def test_the_interval_agrees_with_scipys_other_intervals_of_the_mean():
    values, others = samples()
    differences = values - others
    found = compare("ours_10", "matched_10", values, others)
    assert found.difference == pytest.approx(differences.mean())
    bootstrap = scipy.stats.bootstrap((differences,), np.mean, n_resamples=20000, method="BCa")
    student = scipy.stats.t.interval(
        0.95, len(differences) - 1, differences.mean(), scipy.stats.sem(differences)
    )
    for low, high in (bootstrap.confidence_interval, student):
        width = high - low
        assert found.low == pytest.approx(low, abs=0.06 * width)
        assert found.high == pytest.approx(high, abs=0.06 * width)


def test_the_p_value_is_wilcoxons_signed_rank():
    values, others = samples()
    expected = scipy.stats.wilcoxon(values, others).pvalue
    assert compare("a", "b", values, others).p_value == pytest.approx(expected)
    # By hand: of 2^5 sign patterns, only all plus and all minus are as extreme.
    assert compare("a", "b", [1.0, 2, 3, 4, 5], np.zeros(5)).p_value == pytest.approx(2 / 32)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(120):
        low, high = mean_interval(rng.normal(1.0, 2.0, 40))
        covered += low <= 1.0 <= high
    assert 0.87 < covered / 120 < 1.0


def test_the_statistics_are_the_same_every_time():
    assert compare("a", "b", *samples()) == compare("a", "b", *samples())


def test_no_difference_at_all_and_a_single_pair_are_told_as_they_are():
    same = compare("a", "b", [1.0, 2.0], [1.0, 2.0])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    single = compare("a", "b", [1.0], [2.0])
    assert (single.pairs, single.low, single.high) == (1, None, None)
    assert comparison_rows([single])[1][3] == "–"


def test_methods_are_compared_pair_by_pair_where_both_are_there(tmp_path):
    write_result(tmp_path, "ours_10", distance=1.25, seeds=[0, 1], over_seeds=means(1.0, 1.5))
    write_result(tmp_path, "matched_10", distance=1.5, seeds=[0, 1], over_seeds=means(1.5, 1.5))
    write_result(tmp_path, "fine_tune_10", distance=None)
    (found,) = comparisons(read_results(tmp_path))
    assert (found.method, found.other, found.pairs) == ("ours_10", "matched_10", 2)
    assert found.difference == found.low == found.high == pytest.approx(-0.25)
    assert found.over_seeds == (-0.5, 0.0)
    assert comparison_rows([found])[1][0] == "Ours (10) − Matched (10)"


def test_the_loss_is_compared_likewise_also_where_there_are_no_landmarks(tmp_path):
    write_result(tmp_path, "ours_10", distance=None, loss=-0.5)
    write_result(tmp_path, "matched_10", distance=None, loss=-0.4375)
    results = read_results(tmp_path)
    assert comparisons(results) == []
    (found,) = comparisons(results, measure="loss")
    assert found.difference == found.low == found.high == -0.0625
    assert comparison_rows([found], "loss", 4)[0][0] == "Difference (loss)"
    assert comparison_rows([found], "loss", 4)[1][2] == "-0.0625"


def means(*values):
    return {"distance_px": {"means": list(values), "std": 0.0}}
