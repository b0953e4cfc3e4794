"""Builds a network from options, from a weights file, or from both."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from tfmetareg.errors import UserError
from tfmetareg.models.registry import (
    Architecture,
    RegistrationModel,
    build_model,
    checked_options,
    import_networks,
    options_of,
)
from tfmetareg.models.weights import describe, load_weights

DEFAULT_NETWORK = "vxm_dense"


def resolve_network(
    weights: Optional[Path] = None,
    *,
    name: str = "",
    features: Sequence[Sequence[int]] = (),
    options: Optional[dict[str, Any]] = None,
    module: str = "",
) -> Architecture:
    """Resolves a network's name and options: as given, else as in the weights file, else the default.

    If the weights file changes the result, a line on stderr says so.

    Args:
        weights: file that training or registration starts from, if any.
        name: name in the registry; empty for the weights file's network, or else vxm_dense.
        features: U-Net features, [encoder, decoder].
        options: other options of the network.
        module: Python file or dotted name of a module that registers further networks.

    Raises:
        UserError: the module cannot be imported, the file holds no known network, or the network has no
            such option.
    """
    if module:
        import_networks(module)
    given = {**(options or {}), **({"features": features} if features else {})}
    stored = _stored_network(weights, name)
    resolved_name = name or stored.name
    shared = {key: value for key, value in stored.options.items() if key in options_of(resolved_name)}
    resolved = Architecture(resolved_name, checked_options(resolved_name, {**shared, **given}))
    unaided = Architecture(name or DEFAULT_NETWORK, checked_options(resolved_name, given))
    if resolved != unaided:
        print(f"Network as in {weights}: {stored}", file=sys.stderr)
    resolved.options.pop("precision", None)
    return resolved


def _stored_network(weights: Optional[Path], name: str) -> Architecture:
    """The network in the file; the named one, or the default, without a file that names its network."""
    if weights and weights.is_file():
        try:
            with warnings.catch_warnings():
                if name:  # The file need not name its network then.
                    warnings.simplefilter("ignore", UserWarning)
                return describe(weights)
        except UserError:
            if not name:
                raise
    return Architecture(name or DEFAULT_NETWORK, {})


def build_network(
    architecture: Architecture,
    image_shape: tuple[int, int] = (64, 64),
    *,
    precision: str = "float32",
    weights: Optional[Path] = None,
) -> RegistrationModel:
    """Builds a network by its name and options, with weights from a file or newly initialised ones.

    Args:
        architecture: from `resolve_network` or `describe`.
        image_shape: (height, width) to build at; other sizes work too.
        precision: "float32", "mixed_bfloat16" and so on, for networks with such an option.
        weights: file to load, if any.

    Raises:
        UserError: as for `build_model` and `load_weights`.
    """
    options = dict(architecture.options)
    if "precision" in options_of(architecture.name):
        options["precision"] = precision
    model = build_model(architecture.name, image_shape, **options)
    if weights:
        load_weights(model, weights)
    return model


def load_model(
    path: Union[str, os.PathLike], *, image_shape: tuple[int, int] = (64, 64), precision: str = "float32"
) -> RegistrationModel:
    """Builds the network in a weights file, with its weights.

    >>> import tempfile
    >>> from tfmetareg.models.weights import save_weights
    >>> model = build_model("vxm_dense", (32, 32), features=[[4, 4], [4, 4, 4]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(model, f"{folder}/model.h5")
    ...     loaded = load_model(f"{folder}/model.h5")
    >>> loaded.architecture == model.architecture
    True

    Args:
        path: `.h5` file of this project or of voxelmorph.
        image_shape: (height, width) to build at; other sizes work too.
        precision: as for `build_network`.

    Raises:
        UserError: as for `describe` and `load_weights`.
    """
    return build_network(describe(path), image_shape, precision=precision, weights=Path(path))
