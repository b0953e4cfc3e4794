"""Medians, ratios and shares from given replies, and the page made of them."""

from __future__ import annotations

import pytest

from benchmarks.cases import FEATURES, Case
from benchmarks.flops import step_flops
from benchmarks.measure import CaseReplies
from benchmarks.report import markdown
from benchmarks.results import add_shares, case_result

STEP = Case(
    "meta_step", "A step", "meta_step", (), {"size": 64, "batch": 2}, 10, "gradient step", projected_to=36_000
)
RATES = ("ours_float32", "keras")
PRODUCT = Case("matrix_product_float32", "Products", "matrix_product", (), measure="flops_per_second")


def measured(**replies: list[dict[str, float]]) -> CaseReplies:
    result = CaseReplies()
    result.replies = replies
    return result


def page_of(cases: list[dict]) -> str:
    machine = dict(cpu="CPU", cores=2, memory_gib=4, flags=[], gpu="", system="", python="", load_before=0.0)
    run = dict(time="", revision="", repetitions=3, machine=machine, contenders={}, left_out={}, cases=cases)
    return markdown(run)


@pytest.fixture
def cases():
    """Ours takes 0.2 s a step, Keras 0.5 s, on a machine of 100 GFLOP/s."""
    step = measured(
        ours_float32=[{"seconds": seconds} for seconds in (9.0, 2.0, 1.0)],
        keras=[{"seconds": seconds} for seconds in (4.0, 5.0, 8.0)],
    )
    step.left_out["pytorch"] = "torch is missing"
    product = measured(machine=[{"seconds": 1.0, "flops_per_second": rate} for rate in (1e10, 1e11, 2e11)])
    results = [case_result(PRODUCT, product), case_result(STEP, step)]
    add_shares(results)
    return results


def test_the_value_is_the_median_for_one_unit(cases):
    product, step = cases
    assert product["results"]["machine"]["value"] == 1e11
    assert step["results"]["ours_float32"]["median"]["seconds"] == 2.0
    assert step["results"]["ours_float32"]["value"] == pytest.approx(0.2)
    assert step["results"]["keras"]["repetitions"]["seconds"] == [4.0, 5.0, 8.0]


def test_ratios_say_how_much_longer_the_others_take(cases):
    assert cases[1]["ratios"] == {"ours_float32": {"keras": pytest.approx(2.5)}}


def test_shares_of_the_ceiling_count_the_plain_network_and_what_is_executed(cases):
    plain = step_flops(FEATURES, 64, 2)
    shares = cases[1]["shares"]
    assert shares["keras"]["float32"] == pytest.approx(plain / 0.5 / 1e11)
    assert shares["keras"]["executed"] == shares["keras"]["float32"]
    assert shares["ours_float32"]["float32"] == pytest.approx(plain / 0.2 / 1e11)
    executed = step_flops(FEATURES, 64, 2, folded=True)
    assert shares["ours_float32"]["executed"] == pytest.approx(executed / 0.2 / 1e11)


def test_the_page_shows_medians_ratios_and_who_is_missing(cases):
    page = page_of(cases)
    assert "| `machine` | 100 GFLOP/s | 10 GFLOP/s to 200 GFLOP/s |" in page
    assert "| `keras` | 500 ms | 400 ms to 800 ms | 2.50 |" in page
    assert "| `ours_float32` | 200 ms | 100 ms to 900 ms |  |" in page
    assert "`pytorch` left out: torch is missing" in page


def test_the_page_projects_a_whole_schedule_from_the_steps_measured(cases):
    lines = page_of(cases).splitlines()
    head = next(line for line in lines if "36,000 of them, projected" in line)
    ours, keras = (next(line for line in lines if line.startswith(f"| `{name}`")) for name in RATES)
    assert head.endswith("| 36,000 of them, projected |")
    assert ours.endswith("| 2.0 h |") and keras.endswith("| 5.0 h |")
    assert sum("projected" in line for line in lines) == 1
