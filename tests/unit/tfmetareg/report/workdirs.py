"""Writes small work directories in the real file formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

COLUMNS = (
    "key,subject,distance_before_px,distance_px,ncc_before,ncc,"
    "local_ncc_before,local_ncc,folding_percent,seconds,loss"
).split(",")
SIZE = 32


def write_result(
    workdir, method, *, distance=2.0, landmarks=3, loss=-0.5, names=("pair0", "pair1"), **changes
):
    """Writes the three files of a result; `changes` replace keys of the JSON record.

    The first pair's distance is half a pixel below `distance`, the second one's above.
    """
    folder = Path(workdir, "results")
    folder.mkdir(parents=True, exist_ok=True)
    measured = distance is not None
    spread = {"mean": distance, "std": 0.5, "before_mean": 6.0, "before_std": 1.0, "landmarks": 2 * landmarks}
    record = {
        "schema": 1,
        "method": method,
        "task": "octa_scp",
        "split": "test",
        "seed": 0,
        "pairs": 2,
        "epochs": None,
        "distance_px": spread if measured else None,
        "ncc": {"mean": 0.7, "std": 0.05, "before_mean": 0.3},
        "local_ncc": {"mean": 0.5, "std": 0.05, "before_mean": 0.2},
        "folding_percent": {"mean": 0.02, "max": 0.1},
        "seconds_per_pair": {"median": 0.034},
        "per_pair": f"{method}.csv",
        **changes,
    }
    (folder / f"{method}.json").write_text(json.dumps(record))
    with open(folder / f"{method}.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for pair, (name, offset) in enumerate(zip(names, (-0.5, 0.5))):
            after = [6.0, distance + offset] if measured else ["", ""]
            measures = [0.3, 0.7, 0.2, 0.5, 0.02, 0.034, loss + offset]
            writer.writerow([name, f"eye{pair}", *after, *measures])
    write_examples(
        folder / f"{method}.examples.npz", shift=1.0, landmarks=landmarks if measured else 0, names=names
    )


def write_scores(path, rows):
    """Writes a result's scores of single pairs; `rows` hold what each pair has, "key" among it."""
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, (*COLUMNS, "dice_before", "dice"), restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_examples(path, *, shift, landmarks, names=("pair0", "pair1")):
    """Writes example pairs whose displacement is `shift` pixels along the rows everywhere."""
    pairs = len(names)
    random = np.random.default_rng(0)
    images = random.random((3, pairs, SIZE, SIZE)).astype(np.float32)
    displacement = np.zeros((pairs, SIZE, SIZE, 2), np.float32)
    displacement[..., 0] = shift
    points = random.uniform(4, SIZE - 5, (landmarks, 2)).astype(np.float32)
    arrays = {"key": np.array(names), "displacement": displacement}
    arrays.update(zip(("moving", "fixed", "warped"), images))
    for i in range(pairs):
        arrays[f"fixed_landmarks_{i}"] = points
        arrays[f"moving_landmarks_{i}"] = points + np.float32([3, 0])
    np.savez(path, **arrays)


def write_metrics(workdir, stage, lines):
    """Writes <stage>/metrics.jsonl."""
    folder = Path(workdir, stage)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def training_line(step, total):
    return {
        "step": step,
        "epoch": None,
        "total": total,
        "similarity": total - 0.1,
        "smoothness": 0.1,
        "steps_per_second": 5.0,
    }


def evaluation_line(step, epoch, distance, ncc=0.5):
    return {"step": step, "epoch": epoch, "test/distance_px": distance, "test/ncc": ncc, "test/total": -ncc}
