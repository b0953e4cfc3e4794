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

from tfmetareg.errors import UserError
from tfmetareg.files import published

COLUMNS = ("task", "subject", "moving", "fixed", "moving_spacing", "fixed_spacing")


def main() -> int:
    options = parse_arguments()
    try:
        rows = slice_volumes(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {len(rows)} pairs of task `{options.task}`.")
    return 0


def slice_volumes(options: argparse.Namespace) -> list[tuple]:
    """Publishes the folder of slices; returns the rows of its table."""
    volumes = sorted(Path(name) for name in glob.glob(options.volumes))
    if not volumes:
        raise UserError(f"no file matches {options.volumes}; quote the pattern and check the folder.")
    if options.output.exists():
        raise UserError(f"{options.output} exists already; name a new folder.")
    with published(options.output) as folder:
        folder.mkdir()
        rows = [row for path in volumes for row in cut(path, subject(path, volumes), folder, options)]
        with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    return rows


def subject(path: Path, volumes: list[Path]) -> str:
    """The file's name without its ending, or its folder's where several files are named alike."""
    alike = [other for other in volumes if other.name == path.name]
    return path.name.split(".")[0] if len(alike) == 1 else path.parent.name


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", required=True, help="pattern of 3D or 4D NIfTI files, quoted")
    parser.add_argument("--channel", type=int, default=0, help="last index of a 4D volume (default: 0)")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--gap", type=positive, default=1, help="slices from one to the other (default: 1)")
    parser.add_argument("--foreground", type=float, default=0.1, help="least share of a slice (default: 0.1)")
    return parser.parse_args()


def read_volume(path: Path, channel: int) -> tuple[np.ndarray, tuple]:
    """float32 (x, y, z) in RAS orientation, and the voxel's size."""
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        voxels = np.asarray(image.dataobj, np.float32)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable NIfTI file ({error}); remove it or fetch it again."
        ) from None
    if voxels.ndim not in (3, 4) or (voxels.ndim == 4 and channel >= voxels.shape[3]):
        raise UserError(f"{path}: must be 3D, or 4D with a channel {channel}, has shape {voxels.shape}.")
    return (voxels[..., channel] if voxels.ndim == 4 else voxels), image.header.get_zooms()


def cut(path: Path, name: str, folder: Path, options: argparse.Namespace) -> list[tuple]:
    """Writes the slices of one volume; returns its rows of the table."""
    volume, zooms = read_volume(path, options.channel)
    spacing = f"{zooms[1]:.4g} {zooms[0]:.4g}"
    low, high = np.percentile(volume, (1, 99))
    foreground = np.mean(volume > low + 0.1 * (high - low), axis=(0, 1))
    names = {index: f"{name}-{index:03d}.npy" for index in np.flatnonzero(foreground >= options.foreground)}
    for index, file in names.items():
        # RAS: x grows to the right, y to the front. Rows run from front to back, as the field shows them.
        np.save(folder / file, volume[::-1, ::-1, index].T)
    return [
        (options.task, name, names[index + options.gap], names[index], spacing, spacing)
        for index in names
        if index + options.gap in names
    ]


if __name__ == "__main__":
    sys.exit(main())
