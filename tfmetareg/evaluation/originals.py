"""The images that records were made from, found again by the names in the records' keys."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.geometry.frame import FrameMapping
from tfmetareg.imaging.choices import COLOURS
from tfmetareg.imaging.direction import turn_to_fixed
from tfmetareg.imaging.display import displayed
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.preprocessing import Preprocessing, frame_image
from tfmetareg.imaging.read import open_image


def find_originals(
    folder: Path, key: str, recorded: tuple[np.ndarray, np.ndarray], preprocessing: Preprocessing
) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """The original images of a pair on the records' grid, not equalised, and in colour if they are.

    Args:
        folder: that the records were built from; a key names both files relative to it, "moving:fixed".
        key: of the pair.
        recorded: moving and fixed image of the record, uint8 (height, width).
        preprocessing: that the records were built with.

    Returns:
        Moving and fixed, uint8 (height, width) or (height, width, 3). None unless there are two files whose
        preprocessing gives exactly the record's pixels: no other images are ever taken for them.
    """
    for names in _names(key):
        with contextlib.suppress(UserError):
            moving, fixed = (_opened(folder, name) for name in names)
            turn = turn_to_fixed(moving, fixed)
            spacing = moving.spacing and turn.size(moving.spacing)
            turned = dataclasses.replace(moving, pixels=turn.image(moving.pixels), spacing=spacing)
            return (
                _on_frame(turned, recorded[0], preprocessing),
                _on_frame(fixed, recorded[1], preprocessing),
            )
    return None


def _opened(folder: Path, name: str) -> Image:
    """The image of that name within the folder: records are data, and may be of others."""
    path = os.path.normpath(name)
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        raise UserError(f"{name}: leads out of the folder.")
    return open_image(folder / name)


def _names(key: str) -> Iterator[tuple[str, str]]:
    """The ways to read a key as two names; names may hold colons."""
    parts = key.split(":")
    for split in range(1, len(parts)):
        yield ":".join(parts[:split]), ":".join(parts[split:])


def _on_frame(image: Image, recorded: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    grey = image.grey(preprocessing.colour or COLOURS[0])
    prepared, mapping = frame_image(grey, preprocessing, image.name, image.spacing)
    if not np.array_equal(prepared, recorded):
        raise UserError(f"{image.name}: is not what the record was made of.")
    return _resampled(displayed(image.pixels), mapping)


def _resampled(image: np.ndarray, mapping: FrameMapping) -> np.ndarray:
    channels: Any = [image] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    framed = [mapping.pad(np.rint(255 * mapping.resample(channel)).astype(np.uint8)) for channel in channels]
    return framed[0] if image.ndim == 2 else np.stack(framed, axis=-1)
