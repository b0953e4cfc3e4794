"""Measures what steps on the pair itself bring by NCC and by MIND: python scripts/contrast.py DATA OUTPUT.csv

DATA holds Task01_BrainMS (FLAIR and T2w onto T1w of one slice, the moving image warped by a known smooth
field and both with noise), octa_scp and histology (a pairs.csv with landmarks each). Distances are pixels of
a 128-pixel-wide image, means over the brain or over the landmarks.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

import tfmetareg
from tfmetareg.geometry.affine import points_to_moving
from tfmetareg.geometry.displacement import warp_image
from tfmetareg.imaging.read import open_image

SIDE = 128
SETTINGS: dict[str, dict[str, Any]] = {
    "network": {},
    "20 ncc": {"adapt_steps": 20, "similarity": "ncc"},
    "20 mind": {"adapt_steps": 20, "similarity": "mind"},
    "50 mind": {"adapt_steps": 50, "similarity": "mind"},
    "20 auto": {"adapt_steps": 20},
}


class Pair(NamedTuple):
    """A pair, the alignment ahead of the network, and what the distance of a registration is."""

    moving: Any
    fixed: Any
    align: str
    distance: Callable[[tfmetareg.Registration], float]
    before: Callable[[tfmetareg.Registration], float]


def brain_pairs(folder: Path, channel: int, count: int = 8) -> Iterator[Pair]:
    """A sequence onto T1w (channel 1) of one slice, warped by 1.5 pixels on average."""
    names = sorted(file for file in (folder / "imagesTr").glob("*.nii.gz") if not file.name.startswith("."))
    places = [(name, z) for name in names for z in (70, 85, 100)]
    for seed, (name, z) in enumerate(places[:count]):
        rng = np.random.default_rng(seed)
        sequences = [_framed(np.asarray(nib.load(name).dataobj)[:, :, z, each]) for each in (channel, 1)]
        smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 12) for _ in range(2)], -1)
        field = np.float32(1.5 * smooth / np.linalg.norm(smooth, axis=-1).mean())
        truth = _inverse(field)
        brain = sequences[1] > 0.05 * np.percentile(sequences[1], 99)
        moving, fixed = (
            np.maximum(each + 0.02 * np.percentile(each, 99) * rng.normal(size=each.shape) * (each > 0), 0)
            for each in (warp_image(sequences[0], field), sequences[1])
        )
        yield Pair(
            moving,
            fixed,
            "none",
            lambda found, u=truth, where=brain: float(_lengths(found.displacement - u)[where].mean()),
            lambda _, u=truth, where=brain: float(_lengths(u)[where].mean()),
        )


def listed_pairs(folder: Path, split: str = "test") -> Iterator[Pair]:
    """Pairs with landmarks."""
    with (folder / "pairs.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    for row in rows:
        there, here = (_points(folder / row[f"{side}_landmarks"]) for side in ("moving", "fixed"))
        moving = open_image(folder / row["moving"])
        scale = SIDE / moving.shape[1]
        yield Pair(
            moving.grey("luminance"),
            open_image(folder / row["fixed"]).grey("luminance"),
            "affine",
            lambda found, p=here, q=there, s=scale: s * float(_lengths(found.to_moving(p) - q).mean()),
            lambda found, p=here, q=there, s=scale: (
                s * float(_lengths(points_to_moving(p, found.prepared.unregistered) - q).mean())
            ),
        )


def _framed(image: np.ndarray) -> np.ndarray:
    turned = np.rot90(image).astype(np.float64)
    small = ndimage.zoom(turned, SIDE / max(turned.shape), order=1)
    missing = SIDE - small.shape[1]
    return np.pad(small, ((0, 0), (missing // 2, missing - missing // 2))).astype(np.float32)


def _inverse(field: np.ndarray) -> np.ndarray:
    inverse = -field
    for _ in range(30):
        places = np.moveaxis(np.indices(field.shape[:2]), 0, -1) + inverse
        inverse = -np.stack(
            [
                ndimage.map_coordinates(field[..., axis], np.moveaxis(places, -1, 0), order=1, mode="nearest")
                for axis in (0, 1)
            ],
            -1,
        )
    return inverse


def _points(path: Path) -> np.ndarray:
    with path.open(encoding="utf-8") as file:
        return np.array([(row["y"], row["x"]) for row in csv.DictReader(file)], np.float32)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)


def main(data: Path, output: Path) -> None:
    """Writes a row for each pair, and prints the means of each set."""
    brain = data / "Task01_BrainMS"
    sets = {
        "T2w onto T1w": list(brain_pairs(brain, 3)),
        "FLAIR onto T1w": list(brain_pairs(brain, 0)),
        "histology": list(listed_pairs(data / "histology")),
        "octa_scp": list(listed_pairs(data / "octa_scp")),
    }
    rows = [
        {"set": name, "pair": number, "before": 0.0} for name in sets for number in range(len(sets[name]))
    ]
    pairs = [pair for name in sets for pair in sets[name]]
    for setting, options in SETTINGS.items():
        for row, pair in zip(rows, pairs):
            found = tfmetareg.register(pair.moving, pair.fixed, align=pair.align, **options)
            row["before"] = round(pair.before(found), 3)
            row[setting] = round(pair.distance(found), 3)
            if found.adaptation:
                row[f"{setting}: by"] = f"{found.adaptation.similarity} from {found.adaptation.start}"
        for name in sets:
            values = [float(row[setting]) for row in rows if row["set"] == name]
            print(f"{name}, {setting}: {np.mean(values):.2f}", flush=True)
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
