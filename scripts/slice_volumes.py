"""Cuts NIfTI volumes into adjacent axial slices, as a folder that `--source pairs` reads.

    python scripts/slice_volumes.py --volumes 'imagesTr/*.nii.gz' --channel 1 --task brain_t1w --output slices

Volumes are brought to RAS orientation by their affine. A slice counts as empty, and is left out, where less
than `--foreground` of its pixels lie above the volume's darkest value by a tenth of its range (1st to 99th
percentile). Neighbouring slices `--gap` apart make a pair; every volume is a subject. Slices are stored as
float32 .npy files with the volume's own intensities, rows from front to back, columns from right to left.
"""

from __future__ import annotations

import argparse
import csv
import glob
import sys
from pathlib import Path

import nibabel
import numpy as np

COLUMNS = ("task", "subject", "moving", "fixed", "moving_spacing", "fixed_spacing")


def main() -> int:
    options = parse_arguments()
    volumes = sorted(glob.glob(options.volumes))
    if not volumes:
        print(
            f"error: no file matches {options.volumes}; quote the pattern and check the folder.",
            file=sys.stderr,
        )
        return 2
    if options.output.exists():
        print(f"error: {options.output} exists already; name a new folder.", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True)
    rows = [row for path in volumes for row in cut(Path(path), options)]
    with open(options.output / "pairs.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(f"{options.output}: {len(rows)} pairs of task `{options.task}` from {len(volumes)} volumes.")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", required=True, help="pattern of 3D or 4D NIfTI files, quoted")
    parser.add_argument("--channel", type=int, default=0, help="last index of a 4D volume (default: 0)")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--gap", type=int, default=1, help="slices between the two of a pair (default: 1)")
    parser.add_argument("--foreground", type=float, default=0.1, help="least share of a slice (default: 0.1)")
    return parser.parse_args()


def cut(path: Path, options: argparse.Namespace) -> list[tuple]:
    """Writes the slices of one volume; returns its rows of the table."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    voxels = np.asarray(image.dataobj, np.float32)
    volume = voxels[..., options.channel] if voxels.ndim == 4 else voxels
    subject = path.name.split(".")[0]
    spacing = "{:.4g} {:.4g}".format(*[image.header.get_zooms()[axis] for axis in (1, 0)])
    low, high = np.percentile(volume, (1, 99))
    used = [
        index
        for index in range(volume.shape[2])
        if np.mean(volume[..., index] > low + 0.1 * (high - low)) >= options.foreground
    ]
    names = {index: f"{subject}-{index:03d}.npy" for index in used}
    for index, name in names.items():
        # RAS: x grows to the right, y to the front. Rows run from front to back, as the field shows them.
        np.save(options.output / name, volume[::-1, ::-1, index].T)
    return [
        (options.task, subject, names[index + options.gap], names[index], spacing, spacing)
        for index in used
        if index + options.gap in names
    ]


if __name__ == "__main__":
    sys.exit(main())
