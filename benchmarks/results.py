"""Medians, ratios, and shares of the machine's ceilings, computed from the replies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Optional

from benchmarks import flops
from benchmarks.cases import CONTENDERS, FEATURES, Case
from benchmarks.measure import CaseReplies

_CEILINGS = {"float32": "matrix_product_float32", "bfloat16": "matrix_product_bfloat16"}


def case_result(case: Case, measured: CaseReplies) -> dict[str, Any]:
    """The entry of one case in the JSON file.

    Returns:
        Title, unit, measure, count, options and projection of the case;
        for each contender the values of all repetitions, their medians, and
        `value`, the median of the case's measure (seconds divided by `count`);
        `ratios[ours][other]`, the other's value divided by ours;
        and `left_out`, the missing contenders with the reasons.
    """
    results = {name: _contender(case, replies) for name, replies in measured.replies.items()}
    values = {name: result["value"] for name, result in results.items()}
    return {
        "name": case.name,
        "title": case.title,
        "unit": case.unit,
        "measure": case.measure,
        "count": case.count,
        "options": case.options,
        "projected_to": case.projected_to,
        "results": results,
        "ratios": {
            ours: {name: value / values[ours] for name, value in values.items() if name != ours}
            for ours in values
            if CONTENDERS[ours].ours and values[ours] and case.measure != "waiting_percent"
        },
        "left_out": measured.left_out,
    }


def _contender(case: Case, replies: Sequence[dict[str, float]]) -> dict[str, Any]:
    repetitions = {key: [reply[key] for reply in replies] for key in replies[0]}
    medians = {key: statistics.median(values) for key, values in repetitions.items()}
    value = medians[case.measure] / (case.count if case.measure == "seconds" else 1)
    return {"repetitions": repetitions, "median": medians, "value": value}


def add_shares(results: Sequence[dict[str, Any]]) -> None:
    """Adds to each case of gradient steps how close it comes to the machine's measured ceilings.

    `counted`: FLOPs and bytes of one step of the plain network, FLOPs executed
    by ours, and the least time of a float32 step in seconds.
    `shares[contender]`: FLOPs of the plain network per second, as a share of
    each ceiling; `executed`: FLOPs that the contender executes per second, as
    a share of the float32 ceiling.
    """
    measured = {dtype: _machine_value(results, name) for dtype, name in _CEILINGS.items()}
    peaks = {dtype: peak for dtype, peak in measured.items() if peak}
    bandwidth = _machine_value(results, "memory_traffic")
    for result in results:
        if (result["unit"], result["measure"]) == ("gradient step", "seconds") and "float32" in peaks:
            network: tuple[list[list[int]], int, int]
            network = (FEATURES, result["options"]["size"], result["options"].get("batch", 1))
            plain, folded = (flops.step_flops(*network, folded=choice) for choice in (False, True))
            result["counted"] = {
                "flops": plain,
                "flops_executed": folded,
                "bytes": flops.step_bytes(*network),
            }
            if bandwidth:
                for name, choice in (("floor_seconds", False), ("floor_executed", True)):
                    result["counted"][name] = flops.step_floor(
                        *network,
                        flops_per_second=peaks["float32"],
                        bytes_per_second=bandwidth,
                        folded=choice,
                    )
            result["shares"] = {
                name: _shares(result, name, plain, folded, peaks) for name in result["results"]
            }


def _shares(
    result: dict[str, Any], name: str, plain: int, folded: int, peaks: dict[str, float]
) -> dict[str, float]:
    seconds = result["results"][name]["median"]["seconds"] / result["count"]
    executed = folded if CONTENDERS[name].ours else plain
    shares = {dtype: plain / seconds / peak for dtype, peak in peaks.items()}
    return {**shares, "executed": executed / seconds / peaks["float32"]}


def _machine_value(results: Sequence[dict[str, Any]], name: str) -> Optional[float]:
    entries = [result["results"] for result in results if result["name"] == name]
    return entries[0]["machine"]["value"] if entries and "machine" in entries[0] else None
