"""Spread over the pairs, pairs made worse, and pairs that similarity misleads about, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.report.workdirs import write_result, write_scores
from tfmetareg.report.pair_scores import (
    evenly,
    measures_of,
    misleading,
    misleading_rows,
    misleading_warnings,
    pairs_to_show,
    ranked,
    spread_rows,
    spreads,
)
from tfmetareg.report.results import PairScore, read_results

NOTHING = dict.fromkeys(("folding_percent", "seconds", "loss"))


def score(key, distance=None, before=6.0, ncc=0.5, ncc_before=0.4, dice=None, dice_before=None):
    return PairScore(
        key=key,
        subject="",
        distance_before_px=None if distance is None else before,
        distance_px=distance,
        ncc=ncc,
        local_ncc=ncc - 0.2,
        ncc_before=ncc_before,
        local_ncc_before=ncc_before - 0.2,
        dice=dice,
        dice_before=dice_before,
        **NOTHING,
    )


def result_of(folder, scores, method="ours_10"):
    """A result with these scores of single pairs, as it is read back."""
    write_result(folder, method, pairs=len(scores))
    rows = [{name: value for name, value in vars(one).items() if value is not None} for one in scores]
    write_scores(folder / "results" / f"{method}.csv", rows)
    return next(result for result in read_results(folder) if result.method == method)


def test_the_spread_by_hand(tmp_path):
    distances = [1.0, 2.0, 3.0, 4.0, 10.0]
    result = result_of(tmp_path, [score(f"p{value:g}", value) for value in distances])
    ((measure, (spread,)),) = spreads([result])
    assert (measure.name, spread.method, spread.pairs) == ("landmark distance", "ours_10", 5)
    assert (spread.first_quartile, spread.median, spread.third_quartile) == (2, 3, 4)
    assert (spread.worst, spread.worst_pair, spread.made_worse) == (10, "p10", 1)
    assert (spread.mean, spread.before_mean) == (4, 6)
    assert spread.std == pytest.approx(np.std(distances))
    head, row = spread_rows(measure, [spread])
    assert dict(zip(head, row)) == {
        "Method": "Ours (10)",
        "Pairs": "5",
        "Before": "6.00",
        "Mean ± SD": "4.00 ± 3.16",
        "Median": "3.00",
        "Quartiles": "2.00 … 4.00",
        "Worst": "10.00",
        "Made worse": "1 of 5 (20 %)",
        "Worst pair": "p10",
    }


def test_labels_are_a_measure_of_their_own_where_higher_is_better(tmp_path):
    scores = [
        score("a", 1.0, dice=0.9, dice_before=0.5),
        score("b", 7.0, dice=0.4, dice_before=0.5),
        score("c"),
    ]
    found = spreads([result_of(tmp_path, scores)])
    assert [measure.name for measure, _ in found] == ["landmark distance", "Dice"]
    (dice,) = found[1][1]
    assert (dice.pairs, dice.worst, dice.worst_pair, dice.made_worse) == (2, 0.4, "b", 1)


def test_similarity_stands_in_where_nothing_else_is_known(tmp_path):
    found = spreads([result_of(tmp_path, [score("a", ncc=0.6), score("b", ncc=0.3)])])
    ((measure, (spread,)),) = found
    assert (measure.name, spread.worst_pair, spread.made_worse) == ("local NCC", "b", 1)
    # It is no accuracy, so nothing can be said to have fallen while similarity rose.
    assert misleading([result_of(tmp_path, [score("a", ncc=0.6)])]) == []


@pytest.mark.parametrize(("after", "worse"), [(6.0, 0), (6.004, 0), (6.006, 1), (5.0, 0)])
def test_rounding_makes_no_pair_worse(tmp_path, after, worse):
    ((_, (spread,)),) = spreads([result_of(tmp_path, [score("a", after)])])
    assert spread.made_worse == worse


def test_pairs_that_became_more_alike_and_less_accurate(tmp_path):
    scores = [
        score("fine", 1.0),
        score("a bit", 6.5),
        score("far", 26.0, ncc=0.9),
        score("honest", 20.0, ncc=0.3),  # Less accurate, and less alike, too.
        score("no landmarks", None, ncc=0.9),
    ]
    result = result_of(tmp_path, scores)
    entries = misleading([result])
    assert [entry.pair for entry in entries] == ["", "far", "a bit"]
    (warning,) = misleading_warnings([result])
    assert warning.startswith("Ours (10): on average the images became more alike (NCC 0.400 → 0.550)")
    assert "(landmark distance 6.00 → 13.38 px)" in warning
    assert "2 of 5 pairs became more alike and less accurate, most of all far (NCC 0.400 → 0.900" in warning
    assert warning.endswith("Do not take similarity for accuracy here.")
    assert [row[1] for row in misleading_rows(entries)] == ["Pair", "far", "a bit"]


def test_where_accuracy_rose_or_similarity_fell_there_is_no_warning(tmp_path):
    scores = [score("better", 1.0, ncc=0.9), score("honest", 9.0, ncc=0.3), score("as it was", 6.0, ncc=0.9)]
    assert misleading_warnings([result_of(tmp_path, scores)]) == []


def test_labels_warn_alike(tmp_path):
    (warning,) = misleading_warnings([result_of(tmp_path, [score("a", dice=0.2, dice_before=0.7)])])
    assert "Dice 0.700 → 0.200" in warning


def test_a_long_list_says_how_many_more_there_are(tmp_path):
    result = result_of(tmp_path, [score(f"p{number}", 7.0) for number in range(23)])
    rows = misleading_rows(misleading([result]))
    assert len(rows) == 22 and rows[-1][0] == "and 3 more"


def test_a_result_of_an_older_version_has_a_spread_and_no_warning(tmp_path):
    write_result(tmp_path, "transfer", distance=9.0)
    path = tmp_path / "results" / "transfer.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    wanted = [place for place, name in enumerate(lines[0]) if "ncc_before" not in name]
    path.write_text("".join(",".join(line[place] for place in wanted) + "\n" for line in lines))
    results = read_results(tmp_path)
    assert spreads(results)[0][1][0].made_worse == 2
    assert misleading_warnings(results) == []


@settings(max_examples=60, deadline=None)
@given(
    distances=st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=12),
    count=st.integers(1, 5),
)
def test_the_pairs_to_show_run_from_the_worst_to_the_best(distances, count):
    scores = [score(str(place), distance, before=50 - place) for place, distance in enumerate(distances)]
    known = [place for place, distance in enumerate(distances) if distance is not None]
    shown = pairs_to_show(scores, count)
    assert len(set(shown)) == len(shown) <= 2 * count
    if known:  # Else similarity decides.
        assert set(shown) <= set(known)
        assert distances[shown[0]] == max(distances[place] for place in known)
        assert known[0] in shown, "the worst before registration, which is the same for every method"
        if count > 1:
            assert min(distances[place] for place in known) in [distances[place] for place in shown]
    order = ranked(scores)
    assert sorted(order) == sorted(known or range(len(scores)))
    assert len(measures_of(scores)) == 1


@pytest.mark.parametrize(
    ("count", "wanted", "places"),
    [(5, 3, [0, 2, 4]), (4, 3, [0, 1, 3]), (2, 3, [0, 1]), (1, 3, [0]), (0, 3, []), (9, 1, [0])],
)
def test_places_are_spread_evenly(count, wanted, places):
    assert evenly(count, wanted) == places
