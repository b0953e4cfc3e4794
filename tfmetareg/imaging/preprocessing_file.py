"""What was done to the images that weights were trained on: a file beside the weights."""

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
    """Publishes, beside the weights, what was done to the images they were trained on.

    Args:
        weights: file of the weights.
        image_shape: (height, width) of those images.
        description: as `Preprocessing.describe` and a manifest tell it.
    """
    write_json(weights.parent / _FILE, {"image_shape": list(image_shape), "preprocessing": description})


def find_preprocessing(weights: Path) -> Preprocessing:
    """What to do to a new image before a network with these weights sees it.

    Weights that have no such file beside them, a network of voxelmorph's for instance, get the
    defaults: 400x400, equalised; a line on stderr says so.

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
