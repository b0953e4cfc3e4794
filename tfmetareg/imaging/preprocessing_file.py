"""The file beside weights that describes the preprocessing of the images they were trained on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

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


def preprocessing_differences(
    weights: Path, image_shape: Sequence[int], description: dict[str, Any]
) -> Optional[dict[str, dict[str, Any]]]:
    """In what the images that weights were trained on were prepared otherwise than some records.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model, made = Path(folder, "model.h5"), {"intensity": "clahe", "align": "none"}
    ...     write_preprocessing(model, (64, 64), made)
    ...     preprocessing_differences(model, (64, 64), {**made, "intensity": "equalize"})
    {'intensity': {'weights': 'clahe', 'records': 'equalize'}}

    Args:
        weights: file of the weights.
        image_shape: (height, width) of the records.
        description: their preprocessing, as stored in the manifest.

    Returns:
        Both values by name; empty where all are the same; None where nothing beside the weights tells.

    Raises:
        UserError: the file beside the weights is damaged.
    """
    path = weights.parent / _FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        theirs = {"image size": list(content["image_shape"]), **content["preprocessing"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    ours = {"image size": list(image_shape), **description}
    pairs = {name: {"weights": theirs.get(name), "records": ours.get(name)} for name in {**theirs, **ours}}
    return {
        name: pair
        for name, pair in pairs.items()
        # What one of the two has no use for: the parameters of another intensity, the colour of grey images.
        if len({str(value) for value in pair.values()}) > 1
        and (None not in pair.values() or name == "spacing_mm")
    }


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
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged ({error}); copy it from beside the weights' original.")
