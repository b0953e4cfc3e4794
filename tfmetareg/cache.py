"""What a result depends on: a digest of values, which of them changed, and files kept while none did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmetareg.files import published

# Under this name a file holds the digest of what it depends on.
DEPENDS_ON = "depends_on"


def digest(values: Any, *, length: int = 16, sort_keys: bool = True) -> str:
    """SHA-256 of JSON values, in hex.

    >>> digest({"window": 9, "smoothness_weight": 1.0}, length=8)
    '74d1540a'

    Args:
        values: whatever `json.dumps` takes.
        length: number of hex digits to keep, at most 64.
        sort_keys: whether the order of keys is left out of account.
    """
    return text_digest(json.dumps(values, sort_keys=sort_keys), length=length)


def text_digest(text: str, *, length: int = 64) -> str:
    """SHA-256 of a text in UTF-8, in hex.

    >>> text_digest("affine", length=8)
    'd18b0d44'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def as_json(values: Any) -> Any:
    """Values as JSON reads them back: tuples become lists.

    >>> as_json({"sources": ("ct", "mr")})
    {'sources': ['ct', 'mr']}
    """
    return json.loads(json.dumps(values))


def differing_names(kept: Any, wanted: Mapping[str, Any]) -> list[str]:
    """Names under which a kept JSON object does not hold the value that is wanted.

    >>> differing_names({"seed": 0, "steps": 10}, {"seed": 0, "steps": 20})
    ['steps']

    Args:
        kept: as it was read from a file.
        wanted: by name; tuples count as lists, as they do in JSON.
    """
    plain = as_json(wanted)
    return [name for name, value in plain.items() if not isinstance(kept, dict) or kept.get(name) != value]


def is_current(path: Path, depends_on: str) -> bool:
    """Whether a JSON file is there and was made from the same values.

    Args:
        path: the file, an object with a digest under `DEPENDS_ON`.
        depends_on: digest of the values as they are now.
    """
    return path.is_file() and json.loads(path.read_text()).get(DEPENDS_ON) == depends_on


def keep_arrays(
    path: Path, depends_on: str, make: Callable[[], Mapping[str, npt.NDArray[Any]]]
) -> dict[str, npt.NDArray[Any]]:
    """Arrays that are made once, and again when what they depend on changes.

    Args:
        path: .npz file in which they are kept.
        depends_on: digest of the values that decide on them.
        make: makes the arrays, by name.

    Returns:
        The arrays by name, from the file where it is there and was made from the same values.
    """
    if path.is_file():
        with np.load(path) as kept:
            if str(kept[DEPENDS_ON]) == depends_on:
                return {name: kept[name] for name in kept.files if name != DEPENDS_ON}
    arrays = dict(make())
    with published(path) as temporary:
        np.savez(temporary, **arrays, **{DEPENDS_ON: np.array(depends_on)})
    return arrays
