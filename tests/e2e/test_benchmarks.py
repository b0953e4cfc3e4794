"""`python -m benchmarks`: the project against its Keras peer, small."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.machine import computes_bfloat16
from benchmarks.results import add_shares

ROOT = Path(__file__).resolve().parents[2]
REPETITIONS = 3
CONTENDERS = ("ours_float32", "keras")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The folder that a quick run leaves."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(folder), "--contenders"]
    subprocess.run([*command, *CONTENDERS], check=True, cwd=ROOT, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def run(output):
    return json.loads((output / "bench.json").read_text())


def test_every_case_and_repetition_of_every_contender_is_there(run):
    found = {case["name"]: {*case["results"]} for case in run["cases"]}
    compared = {*CONTENDERS}
    types = ["float32"] + ["bfloat16"] * computes_bfloat16(run["machine"])
    assert found == {
        **{f"matrix_product_{name}": {"machine"} for name in types},
        "memory_traffic": {"machine"},
        "meta_step_128_b1": compared,
        "register_128": compared,
    }
    for case in run["cases"]:
        assert case["left_out"] == {}
        for result in case["results"].values():
            for values in result["repetitions"].values():
                assert len(values) == REPETITIONS
                assert all(value > 0 for value in values)


def test_medians_values_and_ratios_follow_from_the_repetitions(run):
    for case in run["cases"]:
        for result in case["results"].values():
            medians = {key: statistics.median(values) for key, values in result["repetitions"].items()}
            assert result["median"] == medians
            units = case["count"] if case["measure"] == "seconds" else 1
            assert result["value"] == pytest.approx(medians[case["measure"]] / units)
    step = next(case for case in run["cases"] if case["name"] == "meta_step_128_b1")
    ours, keras = (step["results"][name]["value"] for name in CONTENDERS)
    assert step["ratios"] == {"ours_float32": {"keras": pytest.approx(keras / ours)}}


def test_the_shares_follow_from_the_ceilings_of_the_same_run(run):
    cases = json.loads(json.dumps(run["cases"]))
    for case in cases:
        case.pop("shares", None)
    add_shares(cases)
    assert cases == run["cases"]
    (step,) = [case for case in cases if "shares" in case]
    for share in step["shares"].values():
        assert 0 < share["executed"] <= share["float32"] < 1.5


def test_machine_and_versions_are_recorded(run):
    assert run["machine"]["cores"] >= 1
    for name in CONTENDERS:
        assert run["contenders"][name]["about"]["versions"]["tensorflow"] == "2.15.1"
    assert "precision by default" in run["contenders"]["ours_float32"]["about"]


def test_the_page_names_every_case_and_contender(run, output):
    page = (output / "bench.md").read_text()
    for case in run["cases"]:
        assert case["title"] in page
        for name in case["results"]:
            assert f"| `{name}` |" in page.split(case["title"])[1]


def test_an_unknown_case_is_one_line():
    command = [sys.executable, "-m", "benchmarks", "--only", "meta_step_127"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "meta_step_127" in done.stderr.splitlines()[-1]
