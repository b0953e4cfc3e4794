"""What a result depends on: a digest of the values, or which of them differ from those of before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(values: Any, *, length: int = 16, sort_keys: bool = True) -> str:
    """SHA-256 of JSON values, in hex.

    >>> digest({"window": 9, "smoothness_weight": 1.0}, length=8)
    'f20e6d2b'

    Args:
        values: whatever `json.dumps` takes.
        length: hex digits that are kept, at most 64.
        sort_keys: whether the order of keys is left out of account.
    """
    text = json.dumps(values, sort_keys=sort_keys)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def differing_names(kept: Any, wanted: Mapping[str, Any]) -> list[str]:
    """Names under which a kept JSON object does not hold the value that is wanted.

    >>> differing_names({"seed": 0, "steps": 10}, {"seed": 0, "steps": 20})
    ['steps']

    Args:
        kept: as it was read from a file.
        wanted: by name; tuples count as lists, as they do in JSON.
    """
    plain = json.loads(json.dumps(wanted))
    return [name for name, value in plain.items() if not isinstance(kept, dict) or kept.get(name) != value]
