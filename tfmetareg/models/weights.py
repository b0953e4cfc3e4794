"""Weights files: `.h5` as Keras and voxelmorph write and read it, in and out."""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import json
import os
import re
import signal
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

# Classes of voxelmorph whose layers are a VxmDense's, and what their arguments are where none were given.
_DENSE = ("VxmDense", "VxmDenseSemiSupervisedSeg")
_DEFAULTS = {"int_steps": 7, "int_resolution": 2, "svf_resolution": 1}

_MOST_SECONDS_TO_READ = 60


class _Stored(NamedTuple):
    """What a weights file holds.

    Attributes:
        layers: weights by layer, in the network's order; where they are a VxmDense's, under the names
            that one called vxm_dense gives them.
        told: network that the file itself says to hold; None where it does not say, or holds another kind.
        kind: Keras' class of the network, and its arguments; empty where they were not stored.
    """

    layers: dict[str, list[np.ndarray]]
    told: Optional[Architecture]
    kind: str
    arguments: dict[str, Any]


def save_weights(model: RegistrationModel, path: Union[str, os.PathLike]) -> None:
    """Publishes the network as `.h5` with what it was built from.

    `vxm.networks.VxmDense.load(path)` reads the file of a network that is a VxmDense.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    if not all(np.isfinite(value).all() for layer in layers.values() for value in layer.get_weights()):
        raise UserError(f"{path}: not written, the weights are not finite; lower the learning rate.")
    with published(path) as temporary, h5py.File(temporary, "w") as file:
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


def load_weights(model: RegistrationModel, path: Union[str, os.PathLike]) -> None:
    """Reads an `.h5` of the same network, all of it or nothing.

    It may come from here, or from `save` or `save_weights` of Keras and voxelmorph.

    Args:
        model: receives the weights; the image size of the file does not matter.
        path: the file.

    Raises:
        UserError: no such file, not a weights file, or a file of another
            network; the message holds the table of layers that differ.

    Warns where the layers fit but meant something else, a velocity field for instance.
    """
    stored = _read(Path(path))
    layers = {layer.name: layer for layer in model.network.layers if layer.weights}
    expected = {name: [tuple(weight.shape) for weight in layer.weights] for name, layer in layers.items()}
    found = {name: [value.shape for value in values] for name, values in stored.layers.items()}
    if expected != found:
        raise UserError(f"{path}: not weights of this network.\n{_differences(expected, found)}")
    broken = [
        name
        for name, values in stored.layers.items()
        if not all(np.isfinite(value).all() for value in values)
    ]
    if broken:
        raise UserError(f"{path}: weights of {', '.join(broken)} are not finite; the file is damaged.")
    if stored.told and model.architecture and stored.told != model.architecture:
        warnings.warn(
            f"{path}: trained as {stored.told}; used here as {model.architecture}: "
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
    """The network that a weights file holds.

    Files of this project say so. Of voxelmorph's, the features are read from the
    layers, and how the field is integrated from the stored arguments; where
    `save_weights` of Keras stored none, the field is taken for a displacement, with a warning.

    Raises:
        UserError: no such file, not a weights file, or neither a registered
            network nor a 2D VxmDense.
    """
    stored = _read(Path(path))
    told = stored.told
    if not told and not stored.kind:
        told = _displacement_network(stored.layers)
        if told:
            warnings.warn(
                f"{path}: does not say whether its field is integrated, as voxelmorph's is by default; taken "
                "for a displacement. Give `model.name`: vxm_dense for that, vxm_diffeomorphic if it is a "
                "velocity.",
                stacklevel=2,
            )
    if told and told.name not in registered():
        raise UserError(
            f"{path}: holds the network {told.name}, which is not registered; "
            "name the file that registers it with `model.module`."
        )
    if not told:
        kind = stored.kind or f"the layers {', '.join(stored.layers)}"
        raise UserError(
            f"{path}: holds {kind:.200}, neither a network that says what it is nor a 2D VxmDense "
            "for one-channel images with a field of their size; name the network that it is for with "
            "`model.name`."
        )
    return told


def _dense_network(layers: dict[str, list[np.ndarray]], arguments: dict[str, Any]) -> Optional[Architecture]:
    """The VxmDense that has these layers and was given these arguments; None where no network here is it."""
    network = _displacement_network(layers)
    arguments = {**_DEFAULTS, **arguments}
    # Names of before, which still work in voxelmorph 0.2.
    arguments["int_resolution"] = arguments.get("int_downsize") or arguments["int_resolution"]
    arguments["svf_resolution"] = 2 if arguments.get("unet_half_res") else arguments["svf_resolution"]
    integration = {name: int(arguments[name]) for name in _DEFAULTS}
    if network and integration["int_steps"]:
        return Architecture("vxm_diffeomorphic", {**network.options, **integration})
    return network if integration["svf_resolution"] == 1 else None


def _displacement_network(layers: dict[str, list[np.ndarray]]) -> Optional[Architecture]:
    """The VxmDense for pairs of images that has these layers, as far as they tell; None where none has."""
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


def _read(path: Path) -> _Stored:
    """The file's content.

    Raises:
        UserError: no such file, or not a weights file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; train one, or name another.")
    try:
        if not _can_be_read(path):
            raise ValueError("it is damaged: reading it ends the program")
        return _content(path)
    except (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise UserError(f"{path}: not a readable .h5 weights file ({error}).") from None


def _can_be_read(path: Path) -> bool:
    """Whether reading ends, in an error or not: some damage crashes h5py or keeps it busy for ever.

    Tried in a fork, which holds the same memory and takes a fraction of a second; once for a file as it is.
    """
    status = path.stat()
    return _try_to_read(path, status.st_ino, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=128)
def _try_to_read(path: Path, *_version: int) -> bool:
    child = os.fork()
    if not child:
        try:
            faulthandler.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_MOST_SECONDS_TO_READ)
            _content(path)
        finally:
            os._exit(0)
    return os.WIFEXITED(os.waitpid(child, 0)[1])


def _content(path: Path) -> _Stored:
    with h5py.File(path, "r") as file:
        ours = _named(file.attrs, "tfmetareg", "name", "options")
        kind, arguments = _named(file.attrs, "model_config", "class_name", "config") or ("", {})
        layers = _stored_layers(file)
    if ours:
        return _Stored(layers, Architecture(*ours), kind, arguments)
    layers = _named_as_usual(layers)
    return _Stored(layers, _dense_network(layers, arguments) if kind in _DENSE else None, kind, arguments)


def _named(
    attributes: h5py.AttributeManager, key: str, name: str, options: str
) -> Optional[tuple[str, dict]]:
    """The name and options that a JSON object among the attributes holds; None where there is none."""
    if key not in attributes:
        return None
    told = json.loads(attributes[key])
    if not isinstance(told[name], str) or not isinstance(told[options], dict):
        raise ValueError(f"its attribute {key} is not a network's")
    return told[name], told[options]


def _stored_layers(file: h5py.File) -> dict[str, list[np.ndarray]]:
    """Weights by layer name; layers without weights are left out."""
    if "layers" in file and "layer_names" not in file.attrs:
        return _unnamed_layers(file["layers"])
    group = file["model_weights"] if "model_weights" in file else file
    names = {name: group[name].attrs["weight_names"] for name in _text(group.attrs["layer_names"])}
    return {
        name: [np.asarray(group[name][weight][()], np.float32) for weight in _text(weights)]
        for name, weights in names.items()
        if len(weights)
    }


def _unnamed_layers(group: h5py.Group) -> dict[str, list[np.ndarray]]:
    """A VxmDense's layers, out of the format that Keras writes where a name ends in .weights.h5.

    It names layers by class and number, conv2d_4 for instance. The first convolution that takes more
    than the one before gives has a skip: it begins the second level of the decoder.
    """
    numbers = {name: int((re.findall(r"\d+$", name.replace("conv2d", "")) or [0])[0]) for name in group}
    values = [group[name]["vars"] for name in sorted(numbers, key=numbers.get) if len(group[name]["vars"])]
    weights = [
        [np.asarray(part[str(index)][()], np.float32) for index in range(len(part))] for part in values
    ]
    kernels = [layer[0].shape for layer in weights]
    joins = [place for place in range(1, len(kernels)) if kernels[place][-2] != kernels[place - 1][-1]]
    levels = joins[0] - 1 if joins else 0
    names = [f"unet_enc_conv_{level}_0" for level in range(levels)]
    names += [f"unet_dec_conv_{level}_0" for level in reversed(range(levels))]
    names += [f"unet_dec_final_conv_{index}" for index in range(len(weights) - len(names) - 1)]
    return {f"vxm_dense_{name}": layer for name, layer in zip([*names, "flow"], weights)}


def _named_as_usual(layers: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Layers of a VxmDense that was given a name of its own, under the names they have without."""
    prefixes = [name[: -len("_unet_enc_conv_0_0")] for name in layers if name.endswith("_unet_enc_conv_0_0")]
    if len(prefixes) != 1 or f"{prefixes[0]}_flow" not in layers:
        return layers
    return {re.sub(f"^{re.escape(prefixes[0])}_", "vxm_dense_", name): layers[name] for name in layers}


def _distinct(names: list[str]) -> list[str]:
    """The names, numbered where they are not distinct."""
    return names if len(set(names)) == len(names) else [f"{index}/{name}" for index, name in enumerate(names)]


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
