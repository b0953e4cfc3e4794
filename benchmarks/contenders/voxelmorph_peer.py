"""What both voxelmorph 0.2 peers share: the import, and the constants of the tutorials."""

from __future__ import annotations

import inspect
import os
from types import ModuleType

LEARNING_RATE = 1e-4
OUTER_RATE = 1.0
SMOOTHNESS_WEIGHT = 1.0


def import_voxelmorph(backend: str) -> ModuleType:
    """voxelmorph with the backend "tensorflow" or "pytorch"."""
    os.environ["VXM_BACKEND"] = os.environ["NEURITE_BACKEND"] = backend
    if not hasattr(inspect, "getargspec"):  # Gone in Python 3.11.
        inspect.getargspec = lambda function: inspect.getfullargspec(function)[:4]
    import voxelmorph

    return voxelmorph
