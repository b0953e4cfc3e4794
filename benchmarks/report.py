"""The benchmark's results as a Markdown page."""

from __future__ import annotations

from typing import Any

_SCALES = {
    "max_rss_mib": (1, "MiB"),
    "waiting_percent": (1, "%"),
    "flops_per_second": (1e-9, "GFLOP/s"),
    "bytes_per_second": (1e-9, "GB/s"),
}


def markdown(run: dict[str, Any]) -> str:
    """The page: machine, versions, and a table for each case."""
    parts = [_head(run), *[_case(run, result) for result in run["cases"]]]
    return "\n\n".join(parts) + "\n"


def _head(run: dict[str, Any]) -> str:
    machine = run["machine"]
    lines = [
        "# Benchmark",
        "",
        "Written by `make bench`; `bench.json` holds every repetition; benchmarks/README.md explains it.",
        "",
        f"* {run['time']}, revision {run['revision']}, at most {run['repetitions']} repetitions a case, "
        "medians are given.",
        f"* {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{' '.join(machine['flags'])}{', ' * bool(machine['gpu'])}{machine['gpu']}, {machine['system']}, "
        f"Python {machine['python']}; load before the run {machine['load_before']:.2f}.",
    ]
    for name, contender in run["contenders"].items():
        lines.append(f"* `{name}`: {contender['title']}; {_settings(contender['about'])}.")
    for name, reason in run["left_out"].items():
        lines.append(f"* `{name}` left out: {reason}")
    return "\n".join(lines)


def _settings(about: dict[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in about["versions"].items()]
    others = [f"{name}: {value}" for name, value in about.items() if name != "versions"]
    return ", ".join([*versions, *others])


def _case(run: dict[str, Any], result: dict[str, Any]) -> str:
    ratios, shares = result["ratios"], result.get("shares", {})
    ceilings = list(next(iter(shares.values()), {}))
    schedule = result["projected_to"]
    rate = result["unit"] == "pair" and result["measure"] == "seconds"
    head = ["", f"median{_per(result)}", "least to most"]
    head += ["pairs/s"] * rate
    head += [f"÷ `{ours}`" for ours in ratios]
    head += [f"share, {name}" for name in ceilings]
    head += [f"{schedule:,} of them, projected"] * bool(schedule)
    rows = [
        [
            f"`{name}`",
            _shown(result, values["value"]),
            _spread(result, values),
            *[f"{1 / values['value']:.0f}"] * rate,
            *[f"{ratios[ours][name]:.2f}" if name in ratios[ours] else "" for ours in ratios],
            *[f"{100 * shares[name][ceiling]:.0f} %" for ceiling in ceilings],
            *[f"{schedule * values['value'] / 3600:.1f} h"] * bool(schedule),
        ]
        for name, values in result["results"].items()
    ]
    lines = [f"## {result['title']}", "", *_table(head, rows)]
    if "counted" in result:
        lines += ["", _counted(result)]
    lines += [f"\n`{name}` left out: {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _per(result: dict[str, Any]) -> str:
    return f" per {result['unit']}" if result["measure"] == "seconds" else ""


def _spread(result: dict[str, Any], values: dict[str, Any]) -> str:
    count = result["count"] if result["measure"] == "seconds" else 1
    repetitions = [value / count for value in values["repetitions"][result["measure"]]]
    return f"{_shown(result, min(repetitions))} to {_shown(result, max(repetitions))}"


def _shown(result: dict[str, Any], value: float) -> str:
    """A value of the case's measure, to three digits, with its unit."""
    if result["measure"] == "seconds":
        scale, unit = (1, "s") if value >= 1 else (1e3, "ms")
    else:
        scale, unit = _SCALES[result["measure"]]
    number = value * scale
    return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"


def _counted(result: dict[str, Any]) -> str:
    counted = result["counted"]
    text = (
        f"The plain network's step takes {counted['flops'] / 1e9:.1f} GFLOP and moves at least "
        f"{counted['bytes'] / 1e9:.2f} GB; ours executes {counted['flops_executed'] / 1e9:.1f} GFLOP."
    )
    if "floor_seconds" in counted:
        text += (
            f" Floors of this machine in float32: {1e3 * counted['floor_seconds']:.1f} ms and "
            f"{1e3 * counted['floor_executed']:.1f} ms."
        )
    return text
