"""Imports voxelmorph, neurite and tensorflow_addons; no other module does.

Before that, it selects their TensorFlow backend and restores `inspect.getargspec`, which neurite 0.2 calls
and Python 3.11 has removed. It silences tensorflow_addons' end-of-life notice.
"""

from __future__ import annotations

import inspect
import os
import warnings

os.environ["VXM_BACKEND"] = "tensorflow"
os.environ["NEURITE_BACKEND"] = "tensorflow"


def _getargspec(function):
    """`inspect.getargspec`: the four values that neurite 0.2 unpacks."""
    spec = inspect.getfullargspec(function)
    return spec.args, spec.varargs, spec.varkw, spec.defaults


if not hasattr(inspect, "getargspec"):
    inspect.getargspec = _getargspec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import neurite as ne
    import tensorflow_addons as tfa
    import voxelmorph as vxm

__all__ = ["ne", "tfa", "vxm"]
