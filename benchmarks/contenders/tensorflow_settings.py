"""What the TensorFlow contenders say of themselves."""

from __future__ import annotations

from importlib import metadata
from typing import Any


def about(*packages: str) -> dict[str, Any]:
    """Versions of the packages, and whether TensorFlow's oneDNN kernels are on."""
    from tensorflow.python.util import _pywrap_util_port

    return {
        "versions": {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy", *packages)},
        "onednn": bool(_pywrap_util_port.IsMklEnabled()),
    }
