"""Meta-learned registration of medical images.

    import tfmetareg

    registration = tfmetareg.register("moving.png", "fixed.png")
    registration.warped, registration.displacement
    registration.to_moving(points), registration.warp(labels, interpolation="nearest")
    registration.save("result")

Everything named here is loaded on first use: importing the package takes no time and no TensorFlow.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from tfmetareg.environment import check_numpy

__version__ = "0.2.0"

# Read when TensorFlow is imported: import this package first. oneDNN's kernels, which TensorFlow leaves off
# on CPUs without AVX512, halve the time of a training step there. TensorFlow's notices (missing CUDA, fusion
# passes that gave up) would bury what matters here.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# SimpleITK's transforms are HDF5 files, which HDF5 locks; some disks have no locks. Ours are published whole.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

# What users call, and where it is defined.
_EXPORTS = {
    "register": "tfmetareg.api",
    "adapt": "tfmetareg.api",
    "Registration": "tfmetareg.api",
    "TrainedNetwork": "tfmetareg.registration.weights",
    "load_network": "tfmetareg.registration.weights",
    "load_model": "tfmetareg.models.build",
    "build_model": "tfmetareg.models.registry",
    "register_model": "tfmetareg.models.registry",
    "load_weights": "tfmetareg.models.weights",
    "save_weights": "tfmetareg.models.weights",
    "read_field": "tfmetareg.imaging.field_files",
    "read_landmarks": "tfmetareg.imaging.landmarks",
    "Records": "tfmetareg.data.records",
    "UserError": "tfmetareg.errors",
}
__all__ = [
    "Records",
    "Registration",
    "TrainedNetwork",
    "UserError",
    "__version__",
    "adapt",
    "build_model",
    "load_model",
    "load_network",
    "load_weights",
    "read_field",
    "read_landmarks",
    "register",
    "register_model",
    "save_weights",
]

if TYPE_CHECKING:
    from tfmetareg.api import Registration, adapt, register
    from tfmetareg.data.records import Records
    from tfmetareg.errors import UserError
    from tfmetareg.imaging.field_files import read_field
    from tfmetareg.imaging.landmarks import read_landmarks
    from tfmetareg.models.build import load_model
    from tfmetareg.models.registry import build_model, register_model
    from tfmetareg.models.weights import load_weights, save_weights
    from tfmetareg.registration.weights import TrainedNetwork, load_network


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tfmetareg' has no attribute {name!r}")
    check_numpy()
    from tfmetareg.loading import uncollected

    with uncollected():
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
