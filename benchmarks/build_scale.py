"""`python -m benchmarks.build_scale`: measures pairs per second and peak memory of growing builds.

Each build is a process of its own, started by the user's command, on a `pairs` folder of 400 x 400 images
with the default preprocessing. A few image files are linked under as many names as needed: they take little
space on the disk, and the builder reads each name as a separate file. The largest number of pairs is built
with the largest number of workers only.

Memory is that of the build's whole process tree: the sum of proportional set sizes, which count a page
shared by several processes once, sampled twice a second. The run fails if a build takes more memory than the
ceiling.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks import machine
from tfmetareg.files import write_json, write_text

_ROOT = Path(__file__).resolve().parents[1]
_FILES = 64
_PAIRS_PER_SUBJECT = 10
_SECONDS_BETWEEN_SAMPLES = 0.5
_MIB = 1 << 20


def make_pairs(folder: Path, count: int, size: int) -> None:
    """Makes a `pairs` folder of `count` pairs, of images `size` x `size`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(_FILES):
        texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), 3, mode="wrap")
        image = np.uint8(255 * (texture - texture.min()) / np.ptp(texture))
        Image.fromarray(image).save(folder / f"texture{number}.png")
    rows = ["moving,fixed,subject"]
    for number in range(count):
        names = f"m{number:06d}.png", f"f{number:06d}.png"
        for side, name in enumerate(names):
            os.link(folder / f"texture{(2 * number + side) % _FILES}.png", folder / name)
        rows.append(f"{names[0]},{names[1]},subject{number // _PAIRS_PER_SUBJECT}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")


def measure(folder: Path, records: Path, workers: int, size: int) -> dict[str, Any]:
    """Builds `folder` into `records`.

    Returns:
        Seconds from start to end of the process, pairs per second, memory in MiB, and more.
    """
    command = [sys.executable, "-m", "tfrecords_builder", "build", "--source", "pairs", "--task", "scale"]
    command += ["--input", str(folder), "--output", str(records), "--workers", str(workers)]
    command += ["--image-size", str(size), str(size)]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL)
    samples = []
    while process.poll() is None:
        samples.append(sum(map(_proportional_mib, _tree(process.pid))))
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
    seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"the build failed with status {process.returncode}.")
    (task,) = json.loads((records / "manifest.json").read_text())["tasks"]
    pairs = sum(split["pairs"] for split in task["splits"].values())
    return {
        "pairs": pairs,
        "workers": workers,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(pairs / seconds, 1),
        "records_mib": round(sum(path.stat().st_size for path in records.iterdir()) / _MIB),
        "peak_mib": round(max(samples)),
        "median_mib_by_quarter": [round(float(np.median(part))) for part in np.array_split(samples, 4)],
    }


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    processes = [root]
    for pid in processes:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
            children = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
        except OSError:  # The process has ended.
            continue
        processes += [int(child) for line in children for child in line.split()]
    return processes


def _proportional_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # The process has ended.
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def markdown(run: dict[str, Any]) -> str:
    """The measurements as a page."""
    size, described = run["size"], run["machine"]
    lines = [
        f"# Building records of {size}×{size}",
        "",
        f"`make bench-build`, {run['time'][:10]}, on {described['cpu']}, "
        f"{described['cores']} cores, load {described['load_before']:.1f} at the start. Memory is the peak "
        f"of all processes together, with TensorFlow; a build may take {run['ceiling_mib']:,} MiB.",
        "",
        "| pairs | workers | seconds | pairs/s | records, MiB | peak memory, MiB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {build['pairs']:,} | {build['workers']} | {build['seconds']:.0f} | {build['pairs_per_second']} "
        f"| {build['records_mib']:,} | {build['peak_mib']:,} |"
        for build in run["builds"]
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the builds; prints the report, and writes it together with the results as JSON.

    Returns:
        0; 1 if a build took more memory than the ceiling, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    run: dict[str, Any] = {
        "schema": 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine.describe(),
        "size": options.size,
        "ceiling_mib": options.ceiling_mib,
        "builds": [],
    }
    try:
        for pairs in sorted(options.pairs):
            alone = len(options.pairs) > 1 and pairs == max(options.pairs)
            for workers in [max(options.workers)] if alone else sorted(options.workers):
                run["builds"].append(_build(pairs, workers, options))
    except KeyboardInterrupt:
        return 130
    page = markdown(run)
    print(page)
    if options.output:
        write_json(options.output / "build.json", run)
        write_text(options.output / "build.md", page)
    above = [build for build in run["builds"] if build["peak_mib"] > options.ceiling_mib]
    for build in above:
        _print_line(
            f"{build['pairs']} pairs, {build['workers']} workers: {build['peak_mib']} MiB, above the ceiling."
        )
    return 1 if above else 0


def _build(pairs: int, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tfmetareg-build-", dir=options.folder) as folder:
        make_pairs(Path(folder) / "pairs", pairs, options.size)
        measured = measure(Path(folder) / "pairs", Path(folder) / "records", workers, options.size)
    _print_line(f"{pairs} pairs, {workers} workers: {measured['seconds']} s, {measured['peak_mib']} MiB")
    return measured


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.build_scale", description=str(__doc__).split("\n\n")[0]
    )
    parser.add_argument(
        "--pairs",
        type=int,
        nargs="+",
        default=[500, 2000, 10000],
        metavar="N",
        help="numbers of pairs to build (default: 500 2000 10000)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="numbers of workers (default: 1 2)",
    )
    parser.add_argument("--size", type=int, default=400, help="side of the images in pixels (default: 400)")
    parser.add_argument(
        "--ceiling-mib",
        type=int,
        default=1536,
        metavar="MIB",
        help="largest memory of a build (default: 1536)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder with space for 0.65 MB per pair (default: the system's folder for temporary files)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for build.json and build.md")
    return parser


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
