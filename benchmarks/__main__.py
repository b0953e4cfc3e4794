"""`python -m benchmarks`: runs the project and its peers on the same work, in turn."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from benchmarks import machine
from benchmarks.cases import CASES, CONTENDERS, PAIRS, QUICK_CASES, ROOT, Case
from benchmarks.measure import measure
from benchmarks.report import markdown
from benchmarks.results import add_shares, case_result
from tfmetareg.files import write_json, write_text

_DEFAULT_OUTPUT = ROOT / "docs" / "performance"
_REPETITIONS, _QUICK_REPETITIONS = 7, 3


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the benchmarks; prints the report, and writes it together with the results as JSON.

    Returns:
        0; 2 for a mistake on the command line, 130 after Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.repetitions is not None and options.repetitions < 1:
        parser.error("--repetitions must be at least 1.")
    suite = QUICK_CASES if options.quick else CASES
    cases = [case for case in suite if case.name in (options.only or [case.name])]
    if not cases:
        parser.error(f"--quick has none of the cases {', '.join(options.only)}.")
    try:
        run = _run(cases, options)
    except KeyboardInterrupt:
        return 130
    page = markdown(run)
    print(page)
    output = options.output or (
        None if options.quick or options.only or options.contenders else _DEFAULT_OUTPUT
    )
    if output:
        write_json(output / "bench.json", run)
        write_text(output / "bench.md", page)
        _print_line(f"Results are in {output}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases at 128×128, 3 repetitions")
    parser.add_argument(
        "--only", nargs="+", metavar="CASE", choices=[case.name for case in CASES], help="%(choices)s"
    )
    parser.add_argument("--contenders", nargs="+", metavar="NAME", choices=CONTENDERS, help="%(choices)s")
    parser.add_argument("--repetitions", type=int, help=f"repetitions of each case (default: {_REPETITIONS})")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for bench.json and bench.md (default: docs/performance; none for a part of the run)",
    )
    return parser


def _run(cases: Sequence[Case], options: argparse.Namespace) -> dict[str, Any]:
    """Measures the cases.

    Returns:
        The content of the JSON file.
    """
    repetitions = options.repetitions or (_QUICK_REPETITIONS if options.quick else _REPETITIONS)
    run: dict[str, Any] = {
        "schema": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "revision": _revision(),
        "repetitions": repetitions,
        "machine": machine.describe(),
        "contenders": {},
        "cases": [],
    }
    run["left_out"] = _unusable(run["machine"])
    chosen = [name for name in options.contenders or CONTENDERS if name not in run["left_out"]]
    with tempfile.TemporaryDirectory(prefix="tfmetareg-bench-") as folder:
        _make_data(cases, Path(folder))
        for case in cases:
            _run_case(case, chosen, Path(folder), repetitions, run)
    add_shares(run["cases"])
    return run


def _run_case(case: Case, chosen: list[str], folder: Path, repetitions: int, run: dict[str, Any]) -> None:
    """Measures one case with its contenders among the chosen ones; adds the result to `run`."""
    names = [name for name in case.contenders if name in chosen or name == "machine"]
    if case.options.get("dtype") == "bfloat16" and "ours_mixed" in run["left_out"]:
        names = []
    if not names:
        return
    began = time.monotonic()
    measured = measure(case, names, folder, min(repetitions, case.repetitions or repetitions))
    run["cases"].append(case_result(case, measured))
    for name, about in measured.about.items():
        run["contenders"].setdefault(name, {"title": CONTENDERS[name].title, "about": about})
    _print_line(f"{case.name}: {time.monotonic() - began:.0f} s")
    for name, reason in measured.left_out.items():
        _print_line(f"{case.name}: {name} left out: {reason}")


def _unusable(description: dict[str, Any]) -> dict[str, str]:
    """Contenders that cannot run on this machine or in this checkout, with the reason."""
    reasons = {
        name: f"{contender.python} is missing; `make bench` makes it."
        for name, contender in CONTENDERS.items()
        if not contender.python.exists()
    }
    if not machine.computes_bfloat16(description):
        reasons["ours_mixed"] = "this machine computes no bfloat16."
    for name, reason in reasons.items():
        _print_line(f"{name} left out: {reason}")
    return reasons


def _make_data(cases: Sequence[Case], folder: Path) -> None:
    """Makes records and PNG files in the image sizes that the cases read."""
    for size in sorted({case.options["size"] for case in cases if case.needs_data}):
        command = [sys.executable, "-m", "benchmarks.records", str(folder), str(size), str(PAIRS)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
