"""Reads what an `.h5` weights file holds, without trusting it.

Some damaged files crash the HDF5 library or keep it busy for ever. A file that this process has not
written itself is therefore read first by a second Python process, which runs this very file as a script;
hence it imports nothing but h5py and NumPy.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

if __name__ == "__main__":
    sys.path[:] = sys.argv[2:]  # The parent's: this process starts without `site`, which saves time.

import h5py
import numpy as np

_MOST_SECONDS_TO_READ = 60
_STARTED, _FINISHED = b"started\n", b"finished\n"
# The most that deflate, the densest of HDF5's own compressions, can shrink data.
_MOST_COMPRESSION = 1032

# SHA-256 of the weights that come with the package.
SHIPPED_DIGESTS = frozenset({"148b72fb4334720c1660662d953833a8266ed1994ac8abe59149efdfdb9e697c"})
# Whether files could be read, by device, inode, modification time and size.
_known: dict[tuple[int, ...], bool] = {}


class WeightsContent(NamedTuple):
    """What a weights file holds.

    Attributes:
        layers: arrays by layer name, in the network's order; layers without weights are left out.
        architecture: name and options in this project's registry; None in files of other programs.
        keras_class: Keras' class name of the network and its arguments; None where they were not stored.
    """

    layers: dict[str, list[np.ndarray]]
    architecture: Optional[tuple[str, dict[str, Any]]]
    keras_class: Optional[tuple[str, dict[str, Any]]]


def read_weights_file(path: Path) -> WeightsContent:
    """Reads a file of this project, of voxelmorph or of Keras.

    Raises:
        OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError: it is not a
            weights file, or damaged.
    """
    if not _can_be_read(path):
        raise ValueError("it is damaged: reading it ends the program")
    return _read(path)


def remember_as_sound(path: Path) -> None:
    """Spares a file that this process has just written the check by a second process."""
    _known[_version(path)] = True


def _version(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _can_be_read(path: Path) -> bool:
    """Whether reading the file ends, with its content or with an exception; checked once per version."""
    version = _version(path)
    if version not in _known:
        shipped = hashlib.sha256(path.read_bytes()).hexdigest() in SHIPPED_DIGESTS
        _known[version] = shipped or _ends_in_second_process(path)
    return _known[version]


def _ends_in_second_process(path: Path) -> bool:
    """Reads the file in a second process; true, too, where none can be started.

    What the process prints decides, not its exit status: a program that ignores SIGCHLD gets no status.
    """
    command = [sys.executable, "-I", "-S", __file__, os.fspath(path.absolute()), *filter(None, sys.path)]
    try:
        output = subprocess.run(
            command,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_MOST_SECONDS_TO_READ,
        ).stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    except OSError:
        return True
    return output != _STARTED


def _read(path: Path) -> WeightsContent:
    with h5py.File(path, "r", locking=False) as file:  # Some disks have no locks; files are published whole.
        architecture = _named(file.attrs, "tfmetareg", "name", "options")
        keras_class = _named(file.attrs, "model_config", "class_name", "config")
        if _has(file, "layers") and "layer_names" not in file.attrs:
            datasets = _datasets_by_number(_item(file, "layers"))
        else:
            datasets = _datasets_by_name(
                _item(file, "model_weights") if _has(file, "model_weights") else file
            )
        _check_sizes(datasets, path.stat().st_size)
        layers = {
            name: [np.asarray(dataset[()], np.float32) for dataset in weights]
            for name, weights in datasets.items()
        }
    return WeightsContent(layers, architecture, keras_class)


def _named(
    attributes: h5py.AttributeManager, key: str, name: str, options: str
) -> Optional[tuple[str, dict[str, Any]]]:
    """The name and options that a JSON object among the attributes holds; None where there is none."""
    if key not in attributes:
        return None
    stored = json.loads(attributes[key])
    if not isinstance(stored[name], str) or not isinstance(stored[options], dict):
        raise ValueError(f"its attribute {key} is not a network's")
    return stored[name], stored[options]


def _datasets_by_name(group: h5py.Group) -> dict[str, list[h5py.Dataset]]:
    """Each layer's datasets, in the format that lists the names of layers and weights."""
    layers = {name: _item(group, name) for name in _text(group.attrs["layer_names"])}
    names = {name: _text(layer.attrs["weight_names"]) for name, layer in layers.items()}
    return {
        name: [_dataset(layers[name], weight) for weight in weights]
        for name, weights in names.items()
        if weights
    }


def _datasets_by_number(group: h5py.Group) -> dict[str, list[h5py.Dataset]]:
    """A VxmDense's datasets, in the format that Keras writes where a file's name ends in .weights.h5.

    It names layers by class and number, conv2d_4 for instance. The first convolution that takes more
    features than the one before gives has a skip connection: it begins the second level of the decoder.
    """
    numbers = {name: int((re.findall(r"\d+$", name.replace("conv2d", "")) or [0])[0]) for name in group}
    layers = [_item(group, f"{name}/vars") for name in sorted(numbers, key=lambda name: numbers[name])]
    datasets = [
        [_dataset(layer, str(index)) for index in range(len(layer))] for layer in layers if len(layer)
    ]
    kernels = [layer[0].shape for layer in datasets]
    joins = [place for place in range(1, len(kernels)) if kernels[place][-2] != kernels[place - 1][-1]]
    levels = joins[0] - 1 if joins else 0
    names = [f"unet_enc_conv_{level}_0" for level in range(levels)]
    names += [f"unet_dec_conv_{level}_0" for level in reversed(range(levels))]
    names += [f"unet_dec_final_conv_{index}" for index in range(len(datasets) - len(names) - 1)]
    return {f"vxm_dense_{name}": layer for name, layer in zip([*names, "flow"], datasets)}


def _text(names: np.ndarray) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _has(group: h5py.Group, name: str) -> bool:
    """Whether the group has an entry of that name; does not follow it, as `in` would."""
    return group.id.links.exists(name.encode())


def _item(group: h5py.Group, path: str) -> Any:
    """The group or dataset at a path below a group, reached without soft or external links."""
    for name in path.split("/"):
        if not isinstance(group, h5py.Group) or not _has(group, name):
            raise KeyError(f"it lacks {path}")
        if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{path} is a link, and links are not followed; copy what it leads to")
        group = group[name]
    return group


def _dataset(group: h5py.Group, path: str) -> h5py.Dataset:
    """The dataset at a path below a group: numbers that lie in this file."""
    dataset = _item(group, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype.kind not in "fiub":
        raise ValueError(f"{path} is not an array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{path} lies in another file, which is not read; copy it into this one")
    return dataset


def _check_sizes(datasets: dict[str, list[h5py.Dataset]], file_size: int) -> None:
    """Refuses arrays that claim more memory than a file of this size can hold."""
    weights = [dataset for layer in datasets.values() for dataset in layer]
    least = sum(
        math.prod(dataset.shape) * dataset.dtype.itemsize / (_MOST_COMPRESSION if dataset.compression else 1)
        for dataset in weights
    )
    if least > file_size:
        raise ValueError(f"its arrays claim more than its {file_size} bytes can hold")


def _main() -> None:
    """Reads the file that the first argument names, and tells on stdout that this has begun and ended."""
    os.write(1, _STARTED)
    try:
        _read(Path(sys.argv[1]))
    except Exception:  # noqa: BLE001 - the parent process meets it too, and reports it
        pass
    os.write(1, _FINISHED)


if __name__ == "__main__":
    _main()
