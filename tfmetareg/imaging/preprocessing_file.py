"""The file beside weights that describes the preprocessing of the images they were trained on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfmetareg.errors import UserError
from tfmetareg.files import write_json
from tfmetareg.imaging.preprocessing import Preprocessing

_FILE = "preprocessing.json"


def write_preprocessing(weights: Path, image_shape: Sequence[int], description: dict[str, Any]) -> None:
    """Publishes the preprocessing of the training images beside the weights.

    Args:
        weights: file of the weights.
        image_shape: (height, width) of the training images.
        description: as returned by `Preprocessing.describe`, and stored in a manifest.
    """
    write_json(weights.parent / _FILE, {"image_shape": list(image_shape), "preprocessing": description})


def is_described(weights: Path, preprocessing: Preprocessing) -> bool:
    """Whether a description of this preprocessing lies beside the weights file.

    Args:
        weights: path of the weights file, which need not be there.
        preprocessing: what is done to images.
    """
    try:
        return (weights.parent / _FILE).is_file() and find_preprocessing(weights) == preprocessing
    except UserError:
        return False


def find_preprocessing(weights: Path) -> Preprocessing:
    """The preprocessing that new images need for a network with these weights.

    For weights without the file, for instance voxelmorph's own, these are the defaults (400x400, histogram
    equalisation); a line on stderr reports it.

    Args:
        weights: file of the weights.

    Raises:
        UserError: the file is damaged, or of another version of the preprocessing.
    """
    path = weights.parent / _FILE
    if not path.is_file():
        defaults = Preprocessing()
        size = "x".join(map(str, defaults.image_size))
        print(f"note: {path}: not there; images are brought to {size} and equalised.", file=sys.stderr)
        return defaults
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Preprocessing.from_description(content["image_shape"], content["preprocessing"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); copy it from beside the weights' original.") from None
