"""`python -m benchmarks.precision`: effect of bfloat16 on the experiment, beside that of the seed."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cases import ROOT
from tfmetareg.files import write_json, write_text

PRECISIONS = ("float32", "mixed_bfloat16")
ROWS = ("transfer", "fine_tune_10", "ours_10")
# Image size, small enough for a CPU that emulates bfloat16.
SIZE = 64
OPTIONS = (
    "--pretrain.steps=800",
    "--reptile.meta_steps=80",
    "--finetune.batch_size=4",
    "--finetune.learning_rate=7e-4",
    "--finetune.evaluate_every=0",
    f"--reproduce.rows={json.dumps(ROWS)}",
    "--log_every=100",
)


def main() -> int:
    """Runs the experiment for each seed and precision; writes `precision.json` and `precision.md`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "precision", help="folder of the work directories"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance")
    options = parser.parse_args()
    if len(set(options.seeds)) < 2:
        parser.error("--seeds must be two at least: their spread is the yardstick.")
    distances = {
        precision: {seed: experiment(options.work, precision, seed) for seed in options.seeds}
        for precision in PRECISIONS
    }
    write_json(options.output / "precision.json", {"image_size": SIZE, "distance_px": distances})
    page = markdown(distances)
    write_text(options.output / "precision.md", page)
    print(page)
    return 0


def experiment(work: Path, precision: str, seed: int) -> dict[str, float]:
    """Mean landmark distance of each row in pixels; a finished run is not repeated."""
    records, workdir = work / "records", work / f"{precision}-{seed}"
    if not records.is_dir():
        size = ("--image-size", str(SIZE), str(SIZE))
        run("-m", "tfrecords_builder", "build", "--source=embedded", f"--output={records}", *size)
    run(
        "train.py",
        "--mode=reproduce",
        "--config=configs/embedded.yaml",
        *OPTIONS,
        f"--data.root={records}",
        f"--model.precision={precision}",
        f"--seed={seed}",
        f"--workdir={workdir}",
    )
    results = {row: json.loads((workdir / "results" / f"{row}.json").read_text()) for row in ROWS}
    return {row: result["distance_px"]["mean"] for row, result in results.items()}


def run(*arguments: str) -> None:
    """Runs Python with these arguments in the repository."""
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT)


def markdown(distances: dict[str, dict[int, dict[str, float]]]) -> str:
    """A table of each row's distance in both precisions, their spread, and paired differences."""
    plain, mixed = (distances[precision] for precision in PRECISIONS)
    lines = [
        "# Precision and the experiment's numbers",
        "",
        f"`python -m benchmarks.precision`: the embedded tasks at {SIZE}×{SIZE}, the same seeds in both",
        "precisions; landmark distance on the target's test pairs in pixels, mean over the seeds ± their",
        "standard deviation.",
        "",
        f"| row | float32 | mixed_bfloat16 | difference, seed by seed ({', '.join(map(str, plain))}) |",
        "| --- | ---: | ---: | --- |",
    ]
    for row in ROWS:
        pairs = [(plain[seed][row], mixed[seed][row]) for seed in plain]
        one, other = (
            f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" for values in zip(*pairs)
        )
        changes = ", ".join(f"{second - first:+.3f}" for first, second in pairs)
        lines.append(f"| {row} | {one} | {other} | {changes} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
