"""The only importer of voxelmorph, neurite and tensorflow_addons.

Gives them what they expect from their surroundings: the TensorFlow backend,
`inspect.getargspec` (gone in Python 3.11, called by neurite 0.2), and an
import without tensorflow_addons' end-of-life notice.
"""

from __future__ import annotations

import inspect
import os
import warnings

os.environ["VXM_BACKEND"] = "tensorflow"
os.environ["NEURITE_BACKEND"] = "tensorflow"


def _getargspec(function):
    """The four values that neurite 0.2 unpacks from `inspect.getargspec`."""
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
