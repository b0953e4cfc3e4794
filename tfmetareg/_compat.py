"""Imports voxelmorph, neurite and tensorflow_addons; no other module does.

Before that, it selects their TensorFlow backend and restores `inspect.getargspec`, which neurite 0.2 calls
and Python 3.11 has removed. It silences tensorflow_addons' end-of-life notice.

neurite and voxelmorph import scikit-learn, scikit-image, pyplot and nibabel for functions of theirs that
plot, read files or reduce dimensions. Those take many times longer to import than both packages themselves,
which therefore get stand-ins that import them at the first call.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

os.environ["VXM_BACKEND"] = "tensorflow"
os.environ["NEURITE_BACKEND"] = "tensorflow"

# What neurite 0.2 and voxelmorph 0.2 import at once and use within functions alone.
_POSTPONED = (
    "matplotlib",
    "matplotlib.cm",
    "matplotlib.colors",
    "matplotlib.pyplot",
    "mpl_toolkits.axes_grid1",
    "nibabel",
    "scipy.spatial",
    "skimage.measure",
    "sklearn.decomposition",
)


class _StandIn(types.ModuleType):
    """Stands for a module, or for something in it, which is imported when it is first called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # What the import system asks of any module.
            raise AttributeError(name)
        whole = f"{self.__name__}.{name}"
        return sys.modules.get(whole) or _StandIn(whole)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        module, _, name = self.__name__.rpartition(".")
        return getattr(importlib.import_module(module), name)(*arguments, **options)


@contextlib.contextmanager
def _postponed(modules: Sequence[str]) -> Iterator[None]:
    """What the block imports gets stand-ins for these modules, but for those that are loaded already.

    Afterwards they are imported as ever.
    """
    missing = [name for name in modules if name not in sys.modules]
    sys.modules.update({name: _StandIn(name) for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _getargspec(function):
    """`inspect.getargspec`: the four values that neurite 0.2 unpacks."""
    spec = inspect.getfullargspec(function)
    return spec.args, spec.varargs, spec.varkw, spec.defaults


if not hasattr(inspect, "getargspec"):
    inspect.getargspec = _getargspec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow_addons as tfa

    with _postponed(_POSTPONED):
        import neurite as ne
        import voxelmorph as vxm

__all__ = ["ne", "tfa", "vxm"]
