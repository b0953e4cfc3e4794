"""A folder as the FIRE set is distributed, small, for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE = 48


def photograph(seed: int, number: int = 1) -> np.ndarray:
    """uint8 (48, 48, 3): a reddish fundus with structure in green, dark grey outside of it.

    Image 2 shows what image 1 does 2 pixels to the left and 3 further down.
    """
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2, mode="wrap")
    green = np.clip(100 + 400 * smooth, 20, 220)
    if number == 2:
        green = np.roll(green, (3, -2), axis=(0, 1))
    image = np.stack([np.full_like(green, 200), green, np.full_like(green, 30)], axis=-1)
    return np.where(field_of_view()[..., None], image, 9).astype(np.uint8)


def field_of_view() -> np.ndarray:
    """bool (48, 48): a disc."""
    rows, columns = np.indices((SIZE, SIZE))
    return (rows - 23.5) ** 2 + (columns - 23.5) ** 2 < 22**2


def write_fire(root: Path, names: tuple[str, ...] = ("A01", "P01", "P37", "S01", "S02")) -> Path:
    """Images, control points (ten to a pair, four columns) and masks."""
    for folder in ("Images", "Ground Truth", "Masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    mask = np.uint8(255 * field_of_view())
    Image.fromarray(mask).save(root / "Masks" / "mask.png")
    Image.fromarray(ndimage.minimum_filter(mask, 5)).save(root / "Masks" / "feature_mask.png")
    for index, name in enumerate(names):
        for number in (1, 2):
            image = Image.fromarray(photograph(index, number))
            image.save(root / "Images" / f"{name}_{number}.jpg", quality=98, subsampling=0)
        points(root, name).write_text("".join(f"{line}\n" for line in point_lines()))
    return root


def points(root: Path, name: str) -> Path:
    """The file of a pair's control points."""
    return root / "Ground Truth" / f"control_points_{name}_1_2.txt"


def point_lines() -> list[str]:
    """x1 y1 x2 y2 of ten points, as the shift of image 2 has it."""
    return [f"{x:.3f} {y:.3f} {x - 2:.3f} {y + 3:.3f}" for x, y in ((10 + 2 * n, 20 + n) for n in range(10))]
