"""Weights files: writes and reads the `.h5` format of Keras and voxelmorph."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import h5py
import keras
import numpy as np

from tfmetareg._compat import vxm
from tfmetareg.errors import UserError
from tfmetareg.files import published
from tfmetareg.models.registry import Architecture, RegistrationModel, registered
from tfmetareg.models.weights_file import read_weights_file, remember_as_sound

# Classes of voxelmorph whose layers are a VxmDense's, and what their arguments are where none were given.
_DENSE = ("VxmDense", "VxmDenseSemiSupervisedSeg")
_DEFAULTS = {"int_steps": 7, "int_resolution": 2, "svf_resolution": 1}


class _StoredNetwork(NamedTuple):
    """The network in a weights file.

    Attributes:
        layers: weights by layer, in the network's order; a VxmDense's have the names that they have in
            one called vxm_dense.
        architecture: as the file names it, or as its VxmDense implies; None where neither tells.
        kind: Keras' class name of the network; empty where it was not stored.
        arguments: the arguments of that class; empty where they were not stored.
    """

    layers: dict[str, list[np.ndarray]]
    architecture: Optional[Architecture]
    kind: str
    arguments: dict[str, Any]


def save_weights(model: RegistrationModel, path: Union[str, os.PathLike]) -> None:
    """Writes a network's weights as `.h5`, together with its name and options.

    `vxm.networks.VxmDense.load(path)` reads the file if the network is a VxmDense. A file that stands there
    already is replaced as a whole.

    >>> import tempfile
    >>> from tfmetareg.models.registry import build_model
    >>> model = build_model("vxm_dense", (32, 32), features=[[4, 4], [4, 4, 4]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(model, f"{folder}/model.h5")
    ...     print(describe(f"{folder}/model.h5").name)
    vxm_dense

    Args:
        model: the network.
        path: file to write; its name should end in `.h5`.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    if not all(np.isfinite(value).all() for layer in layers.values() for value in layer.get_weights()):
        raise UserError(f"{path}: not written, the weights are not finite; lower the learning rate.")
    with published(path) as temporary:
        with h5py.File(temporary, "w", locking=False) as file:  # Some disks have no locks.
            file.attrs.update(backend="tensorflow", keras_version=keras.__version__)
            if model.architecture:
                file.attrs["tfmetareg"] = json.dumps(dataclasses.asdict(model.architecture))
            if isinstance(model.network, vxm.networks.VxmDense):
                configuration = {"class_name": "VxmDense", "config": model.network.get_config()}
                file.attrs["model_config"] = json.dumps(configuration)
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = [name.encode() for name in layers]
            for name, layer in layers.items():
                weights = _distinct([weight.name for weight in layer.weights])
                group.create_group(name).attrs["weight_names"] = [weight.encode() for weight in weights]
                for weight, value in zip(weights, layer.get_weights()):
                    group[name][weight] = value
        remember_as_sound(temporary)  # Renaming keeps the inode.


def load_weights(model: RegistrationModel, path: Union[str, os.PathLike]) -> None:
    """Loads the weights of an `.h5` file into the same network: all of them, or none.

    The file may be of this project, or written by `save` or `save_weights` of Keras or voxelmorph.

    >>> import tempfile
    >>> from tfmetareg.models.registry import build_model
    >>> first, second = (build_model("vxm_dense", (32, 32), features=[[4, 4], [4, 4, 4]]) for _ in range(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(first, f"{folder}/model.h5")
    ...     load_weights(second, f"{folder}/model.h5")
    >>> all((one == other).all() for one, other in zip(first.get_weights(), second.get_weights()))
    True

    Args:
        model: receives the weights; it may be built for another image size than the file's network.
        path: the file.

    Raises:
        UserError: no such file, not a weights file, or a file of another network; the message then lists
            the layers that differ.

    Warns:
        UserWarning: the layers fit, but the file's network uses them otherwise: as a velocity field, for
            instance.
    """
    stored = _read(Path(path))
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    expected = {name: [tuple(weight.shape) for weight in layer.weights] for name, layer in layers.items()}
    stored_shapes = {name: [value.shape for value in values] for name, values in stored.layers.items()}
    if expected != stored_shapes:
        raise UserError(f"{path}: not weights of this network.\n{_differences(expected, stored_shapes)}")
    broken = [
        name
        for name, values in stored.layers.items()
        if not all(np.isfinite(value).all() for value in values)
    ]
    if broken:
        raise UserError(f"{path}: weights of {', '.join(broken)} are not finite; the file is damaged.")
    if stored.architecture and model.architecture and stored.architecture != model.architecture:
        warnings.warn(
            f"{path}: trained as {stored.architecture}; used here as {model.architecture}: "
            "a start for training, but registered with it as it is, images will be off.",
            stacklevel=2,
        )
    if stored.arguments.get("fill_value") is not None:
        warnings.warn(
            f"{path}: its `fill_value` ({stored.arguments['fill_value']}) is not used: what lies outside the "
            "moving image has the value of the image's border here.",
            stacklevel=2,
        )
    for name, layer in layers.items():
        layer.set_weights(stored.layers[name])


def describe(path: Union[str, os.PathLike]) -> Architecture:
    """Returns the name and options of the network in a weights file.

    A file of this project names them. For a file of voxelmorph, the features are read from the layers, and
    the integration of the field from the stored arguments of the class. `save_weights` of Keras stores no
    arguments: the field is then assumed to be a displacement, with a warning.

    >>> import tempfile
    >>> from tfmetareg.models.registry import build_model
    >>> model = build_model("vxm_dense", (32, 32), features=[[4, 4], [4, 4, 4]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(model, f"{folder}/model.h5")
    ...     architecture = describe(f"{folder}/model.h5")
    >>> architecture.name, architecture.options["features"]
    ('vxm_dense', [[4, 4], [4, 4, 4]])

    Raises:
        UserError: no such file, not a weights file, or neither a registered network nor a 2D VxmDense.
    """
    stored = _read(Path(path))
    architecture = stored.architecture
    if not architecture and not stored.kind:
        architecture = _displacement_network(stored.layers)
        if architecture:
            warnings.warn(
                f"{path}: does not say whether its field is integrated, as voxelmorph's is by default; taken "
                "for a displacement. Give `model.name`: vxm_dense for that, vxm_diffeomorphic if it is a "
                "velocity.",
                stacklevel=2,
            )
    if architecture and architecture.name not in registered():
        raise UserError(
            f"{path}: holds the network {architecture.name}, which is not registered; "
            "name the file that registers it with `model.module`."
        )
    if not architecture:
        kind = stored.kind or f"the layers {', '.join(stored.layers)}"
        raise UserError(
            f"{path}: holds {kind:.200}, neither a network that says what it is nor a 2D VxmDense "
            "for one-channel images with a field of their size; name the network that it is for with "
            "`model.name`."
        )
    return architecture


def _dense_network(layers: dict[str, list[np.ndarray]], arguments: dict[str, Any]) -> Optional[Architecture]:
    """The registered network equal to a VxmDense with these layers and arguments; None if there is none."""
    network = _displacement_network(layers)
    arguments = {**_DEFAULTS, **arguments}
    # Older names of the same arguments, which voxelmorph 0.2 still takes.
    arguments["int_resolution"] = arguments.get("int_downsize") or arguments["int_resolution"]
    arguments["svf_resolution"] = 2 if arguments.get("unet_half_res") else arguments["svf_resolution"]
    integration = {name: int(arguments[name]) for name in _DEFAULTS}
    if network and integration["int_steps"]:
        return Architecture("vxm_diffeomorphic", {**network.options, **integration})
    return network if integration["svf_resolution"] == 1 else None


def _displacement_network(layers: dict[str, list[np.ndarray]]) -> Optional[Architecture]:
    """The vxm_dense with these layers; None if they are not those of a 2D VxmDense for two images."""
    kernels = {name.replace("vxm_dense_unet_", ""): values[0] for name, values in layers.items()}
    encoder = [kernel for name, kernel in kernels.items() if name.startswith("enc_conv")]
    decoder = [kernel for name, kernel in kernels.items() if name.startswith("dec_")]
    if not encoder or any(kernel.ndim != 4 for kernel in kernels.values()) or encoder[0].shape[2] != 2:
        return None
    options = {
        "features": [[kernel.shape[-1] for kernel in part] for part in (encoder, decoder)],
        "convolutions_per_level": sum(name.startswith("enc_conv_0_") for name in kernels),
        "use_probs": "vxm_dense_log_sigma" in layers,
    }
    return Architecture("vxm_dense", options)


def _read(path: Path) -> _StoredNetwork:
    """The file's content.

    Raises:
        UserError: no such file, or not a weights file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; train one, or name another.")
    try:
        content = read_weights_file(path)
        kind, arguments = content.keras_class or ("", {})
        if content.architecture:
            return _StoredNetwork(content.layers, Architecture(*content.architecture), kind, arguments)
        layers = _named_as_usual(content.layers)
        architecture = _dense_network(layers, arguments) if kind in _DENSE else None
        return _StoredNetwork(layers, architecture, kind, arguments)
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise UserError(f"{path}: not a readable .h5 weights file ({error}).") from None


def _named_as_usual(layers: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Renames the layers of a VxmDense that has a name of its own to those of one called vxm_dense."""
    prefixes = [name[: -len("_unet_enc_conv_0_0")] for name in layers if name.endswith("_unet_enc_conv_0_0")]
    if len(prefixes) != 1 or f"{prefixes[0]}_flow" not in layers:
        return layers
    return {re.sub(f"^{re.escape(prefixes[0])}_", "vxm_dense_", name): layers[name] for name in layers}


def _distinct(names: list[str]) -> list[str]:
    """The names, each with its number before it if they are not distinct."""
    return names if len(set(names)) == len(names) else [f"{index}/{name}" for index, name in enumerate(names)]


def _differences(expected: dict[str, list[tuple]], stored: dict[str, list[tuple]]) -> str:
    """A table: layer, shapes in this network, shapes in the file."""

    def shapes(values: Optional[list[tuple]]) -> str:
        return "-" if values is None else " ".join("x".join(map(str, shape)) for shape in values)

    names = [name for name in {**expected, **stored} if expected.get(name) != stored.get(name)]
    rows = [("layer", "this network", "file")]
    rows += [(name, shapes(expected.get(name)), shapes(stored.get(name))) for name in names]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )
