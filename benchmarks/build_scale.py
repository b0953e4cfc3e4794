"""Builds records from many pairs and measures pairs per second and memory.

    python -m benchmarks.build_scale --pairs 1000 10000 --workers 1 2 --folder /tmp/scale --output scale.json

Makes a `pairs` folder of distinct 400 x 400 PNG images, builds it once for each number of pairs and workers,
each time in a process of its own, under a limit on the memory of each of its processes, and writes
what it measured as JSON. Memory is that of the whole process tree: the sum of proportional set
sizes, in which a page that several processes share counts once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE = 400
_SECONDS_BETWEEN_SAMPLES = 0.5
_MIB = 1 << 20


def make_pairs(folder: Path, count: int) -> None:
    """Writes `pairs.csv` with `count` pairs, and the images that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    base = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 3, mode="wrap")
    base = np.uint8(255 * (base - base.min()) / np.ptp(base))
    rows = ["moving,fixed,subject"]
    for number in range(count):
        names = [f"{kind}{number:06d}.png" for kind in ("m", "f")]
        for side, name in enumerate(names):
            if not (folder / name).exists():
                shift = divmod(7919 * (2 * number + side), SIZE)
                Image.fromarray(np.roll(base, shift, axis=(0, 1))).save(folder / name, compress_level=1)
        rows.append(f"{names[0]},{names[1]},subject{number // 10}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")


def measure(folder: Path, pairs: int, workers: int, cap_mib: int) -> dict:
    """Builds the folder under a limit on each process's memory; seconds, pairs/s and peak memory in MiB."""
    records = folder.parent / "records"
    shutil.rmtree(records, ignore_errors=True)
    command = [sys.executable, "-m", "tfrecords_builder", "build", "--source", "pairs"]
    command += ["--input", str(folder), "--output", str(records), "--workers", str(workers)]
    started = time.monotonic()
    process = subprocess.Popen(command, preexec_fn=lambda: _limit(cap_mib), stdout=subprocess.DEVNULL)
    peaks = {"tree_mib": 0.0, "process_mib": 0.0}
    samples = []
    while process.poll() is None:
        sizes = [_proportional_mib(pid) for pid in _tree(process.pid)]
        samples.append(sum(sizes))
        peaks = {
            "tree_mib": max(peaks["tree_mib"], sum(sizes)),
            "process_mib": max(peaks["process_mib"], *sizes, 0.0),
        }
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the build of {pairs} pairs failed with status {process.returncode}.")
    size = sum(path.stat().st_size for path in records.iterdir()) / _MIB
    shutil.rmtree(records)
    return {
        "pairs": pairs,
        "workers": workers,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(pairs / seconds, 1),
        "records_mib": round(size),
        "peak_tree_mib": round(peaks["tree_mib"]),
        "peak_process_mib": round(peaks["process_mib"]),
        "median_tree_mib_by_quarter": [round(float(np.median(part))) for part in np.array_split(samples, 4)],
        "limit_per_process_mib": cap_mib,
    }


def _limit(mib: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (mib * _MIB, mib * _MIB))


def _tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    found = [root]
    for pid in found:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            found += [
                int(c) for t in tasks for c in Path(f"/proc/{pid}/task/{t}/children").read_text().split()
            ]
        except OSError:  # it has ended
            continue
    return found


def _proportional_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def markdown(rows: list[dict]) -> str:
    """The measurements as a table."""
    lines = [
        "| pairs | workers | pairs/s | records, MiB | peak memory, MiB |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['pairs']:,} | {row['workers']} | {row['pairs_per_second']} | {row['records_mib']:,} "
        f"| {row['peak_tree_mib']:,} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, required=True, help="gets the images; 3 GB for 10,000 pairs")
    parser.add_argument(
        "--cap-mib", type=int, default=2048, help="memory limit of each process (default: 2048)"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    rows = []
    for pairs in options.pairs:
        make_pairs(options.folder / "pairs", pairs)
        for workers in options.workers:
            rows.append(measure(options.folder / "pairs", pairs, workers, options.cap_mib))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            options.output.write_text(json.dumps({"schema": 1, "builds": rows}, indent=1) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
