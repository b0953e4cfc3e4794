"""voxelmorph's .h5 files, in and out."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any, Optional, Union

import h5py
import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published
from tfmetareg.models.registry import RegistrationModel

# Options of VxmDense that leave the layers as they are and change what the last one means.
_DECISIVE = ("int_steps", "svf_resolution", "use_probs")


def save_weights(model: RegistrationModel, path: Union[str, os.PathLike]) -> None:
    """Publishes the network as `.h5` with its configuration: `vxm.networks.VxmDense.load(path)` reads it.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    if not all(np.isfinite(value).all() for value in model.network.get_weights()):
        raise UserError(f"{path}: not written, the weights are not finite; lower the learning rate.")
    with published(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
        model.network.save(temporary, save_format="h5", include_optimizer=False)


def load_weights(model: RegistrationModel, path: Union[str, os.PathLike]) -> None:
    """Reads an `.h5` that `save` or `save_weights` of a voxelmorph network wrote, all of it or nothing.

    Args:
        model: receives the weights; the image size of the file does not matter.
        path: the file.

    Raises:
        UserError: no such file, not a weights file, or a file of another
            network; the message holds the table of layers that differ.

    Warns where the layers fit but meant something else, a velocity field for instance.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; train one, or name another.")
    try:
        stored, options = _stored_layers(path), _stored_options(path)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable .h5 weights file ({error}).") from None
    own = model.network.get_config()
    for name in _DECISIVE:
        if name in options and options[name] != own.get(name):
            warnings.warn(
                f"{path}: trained with {name}={options[name]}, used here with {name}={own.get(name)}: "
                "a start for training, but registered with it as it is, images will be off.",
                stacklevel=2,
            )
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    expected = {name: [tuple(weight.shape) for weight in layer.weights] for name, layer in layers.items()}
    found = {name: [value.shape for value in values] for name, values in stored.items()}
    if expected != found:
        raise UserError(f"{path}: not weights of this network.\n{_differences(expected, found)}")
    broken = [
        name for name, values in stored.items() if not all(np.isfinite(value).all() for value in values)
    ]
    if broken:
        raise UserError(f"{path}: weights of {', '.join(broken)} are not finite; the file is damaged.")
    for name, layer in layers.items():
        layer.set_weights(stored[name])


def _stored_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Weights by layer name; layers without weights are left out."""
    with h5py.File(path, "r") as file:
        group = file["model_weights"] if "model_weights" in file else file
        names = {name: group[name].attrs["weight_names"] for name in _text(group.attrs["layer_names"])}
        return {
            name: [np.asarray(group[name][weight]) for weight in _text(weights)]
            for name, weights in names.items()
            if len(weights)
        }


def _stored_options(path: Path) -> dict[str, Any]:
    """The network's constructor arguments, where the file holds them (`save`, not `save_weights`)."""
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["model_config"])["config"] if "model_config" in file.attrs else {}


def _text(names: np.ndarray) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _differences(expected: dict[str, list[tuple]], found: dict[str, list[tuple]]) -> str:
    """A table: layer, shapes in this network, shapes in the file."""

    def shapes(values: Optional[list[tuple]]) -> str:
        return "-" if values is None else " ".join("x".join(map(str, shape)) for shape in values)

    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    rows = [("layer", "this network", "file")]
    rows += [(name, shapes(expected.get(name)), shapes(found.get(name))) for name in names]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )
