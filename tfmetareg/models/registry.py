"""Registration networks by name."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Optional, Union

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp

FieldFn = Callable[[list[tf.Tensor]], tf.Tensor]

_BUILDERS: dict[str, Callable[..., RegistrationModel]] = {}

_SEQUENCES = (list, tuple, collections.abc.Sequence)
# `X | Y` has a type of its own, from Python 3.10 on.
_UNIONS = (Union, getattr(types, "UnionType", Union))


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a network is built from again, with the same layers and the same meaning.

    Attributes:
        name: in the registry.
        options: the builder's, in JSON's types; `precision`, which changes
            neither, is not among them.
    """

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join([self.name, *[f"{name} {value}" for name, value in self.options.items()]])


class Layers(tf.keras.Model):
    """Owner of a network's layers, for builders that compute with the weights themselves."""

    def __init__(self, name: str, layers: Iterable[tf.keras.layers.Layer]):
        """
        Args:
            name: of the network.
            layers: built, each with a name of its own.
        """
        super().__init__(name=name)
        self.parts = list(layers)


class RegistrationModel(tf.keras.Model):
    """G(M, F) and the spatial transformer: `warped, displacement = model([moving, fixed])`.

    Takes images of any height and width from 2 pixels on: they are padded with zeros to the
    network's stride, and the displacement is cropped back.

    Attributes:
        architecture: what `build_model` built it from; None where it did not.
        halo: beyond so many pixels from a point, a multiple of `stride`, nothing has a part in its
            displacement; None where that is not known.
    """

    architecture: Optional[Architecture] = None
    halo: Optional[int] = None

    def __init__(
        self,
        network: tf.keras.Model,
        field: FieldFn,
        stride: int,
        *,
        inverse_field: Optional[FieldFn] = None,
    ):
        """
        Args:
            network: owner of the weights, written to and read from .h5 files.
            field: [moving, fixed] -> displacement in pixels, float32, for any size
                that is a multiple of `stride`; computes with the weights of `network`.
            stride: factor between the finest and the coarsest level of the network.
            inverse_field: like `field`, the inverse displacement, on the moving grid;
                only from networks whose fields have one.
        """
        super().__init__(name=network.name)
        self.network = network
        # Converting them would take seconds.
        self.field = tf.autograph.experimental.do_not_convert(field)
        self.inverse_field = inverse_field and tf.autograph.experimental.do_not_convert(inverse_field)
        self.stride = stride

    def call(self, inputs: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Registers moving onto fixed.

        Args:
            inputs: moving, fixed; (batch, height, width, 1) float32 in [0, 1].

        Returns:
            warped (batch, height, width, 1) and displacement
            (batch, height, width, 2), pixels, (row, column), on the fixed grid.
        """
        displacement = self._at_any_size(self.field, inputs)
        return warp(inputs[0], displacement), displacement

    def inverse(self, inputs: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Registers fixed onto moving, by the inverse of the field that `call` gives for the same images.

        Args:
            inputs: moving, fixed, as for `call`.

        Returns:
            fixed warped onto moving, and the inverse displacement on the moving
            grid: a point p of moving lies at p + inverse(p) in fixed.

        Raises:
            UserError: the network's fields have no inverse.
        """
        if self.inverse_field is None:
            raise UserError(f"{self.name}: its fields have no inverse; vxm_diffeomorphic's have one.")
        displacement = self._at_any_size(self.inverse_field, inputs)
        return warp(inputs[1], displacement), displacement

    def _at_any_size(self, field: FieldFn, inputs: list[tf.Tensor]) -> tf.Tensor:
        height, width = _size(inputs[1])
        return field([_pad_to_multiple(image, self.stride) for image in inputs])[:, :height, :width]


def register_model(name: str) -> Callable:
    """Decorator that puts a builder `(image_shape, *, **options) -> RegistrationModel` in the registry.

    The options are keyword arguments with types and defaults; those called
    `features` and `precision` are handed `model.features` and `model.precision`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(builder: Callable[..., RegistrationModel]) -> Callable[..., RegistrationModel]:
        if name in _BUILDERS:
            raise ValueError(f"model `{name}` is registered already.")
        _BUILDERS[name] = builder
        return builder

    return decorate


def registered() -> list[str]:
    """Names in the registry."""
    return sorted(_BUILDERS)


def options_of(name: str) -> dict[str, Any]:
    """A network's options and their defaults, `inspect.Parameter.empty` where one has none.

    Raises:
        UserError: no network of that name.
    """
    if name not in _BUILDERS:
        raise UserError(f"`model.name` must be one of {', '.join(registered())}; got {name}.")
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def build_model(name: str, image_shape: tuple[int, int], **options: Any) -> RegistrationModel:
    """Builds a registered network with fresh weights.

    Args:
        name: name in the registry.
        image_shape: (height, width) to train at; other sizes work too.
        **options: the builder's own.

    Raises:
        UserError: no network of that name, or an option that it does not take,
            of another type or out of range.
    """
    chosen = checked_options(name, options)
    kinds = typing.get_type_hints(_BUILDERS[name])
    given = {key: _of_type(value, kinds.get(key, Any)) for key, value in options.items()}
    model = _BUILDERS[name](image_shape, **given)
    chosen.pop("precision", None)
    model.architecture = Architecture(name, chosen)
    return model


def checked_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a network in JSON's types: those given, and the others' defaults.

    Raises:
        UserError: no such network, an unknown or a missing option, or one of another type.
    """
    known = options_of(name)
    kinds = typing.get_type_hints(_BUILDERS[name])
    chosen = {**known, **options}
    for key, value in chosen.items():
        if key not in known:
            raise UserError(f"`{key}` is not an option of {name}; it takes {', '.join(known)}.")
        if value is inspect.Parameter.empty:
            raise UserError(f"{name} needs a value for its option `{key}`.")
        if not _fits(value, kinds.get(key, Any)):
            rule = re.sub(r"<class '(\w+)'>|[\w.]+\.(?=\w)", r"\1", str(kinds[key]))
            raise UserError(f"`{key}` ({value!r}) of {name} must be of type {rule}.")
    return json.loads(json.dumps(chosen))


@functools.cache
def import_networks(module: str) -> None:
    """Imports a module whose networks register themselves.

    Args:
        module: path of a .py file, or the dotted name of a module that Python finds.

    Raises:
        UserError: it cannot be imported, or registers nothing.
    """
    try:
        imported = _import_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"`model.module` ({module}) cannot be imported: {reason}") from None
    owners = [f"{builder.__module__}." for builder in _BUILDERS.values()]
    if not any(owner.startswith(f"{imported.__name__}.") for owner in owners):
        raise UserError(
            f"`model.module` ({module}) registers no network; put @register_model(...) before its builder."
        )


def _import_file(path: Path) -> types.ModuleType:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(str(path.resolve()), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where dataclasses look for it.
    spec.loader.exec_module(module)
    return module


def _fits(value: Any, kind: Any) -> bool:
    """Whether the value is of an annotated type: plain ones, sequences of them, Literal, Optional."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return value in arguments
    if origin in _UNIONS:
        return any(_fits(value, argument) for argument in arguments)
    if origin in _SEQUENCES:
        if not isinstance(value, (list, tuple)):
            return False
        if origin is not tuple or arguments[1:] == (...,):
            arguments = arguments[:1] * len(value)
        # Without arguments, the entries may be anything.
        return not arguments or (
            len(arguments) == len(value) and all(_fits(*both) for both in zip(value, arguments))
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else origin)


def _of_type(value: Any, kind: Any) -> Any:
    """The value that fits the type: tuples where it says so, which JSON and YAML hold as lists."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in _UNIONS:
        return _of_type(value, next(argument for argument in arguments if _fits(value, argument)))
    return tuple(value) if origin is tuple else value


def _size(images: tf.Tensor) -> tuple[Any, Any]:
    """Height and width: numbers where the graph knows them, else tensors."""
    static, dynamic = images.shape, tf.shape(images)
    return tuple(dynamic[axis] if static[axis] is None else static[axis] for axis in (1, 2))


def _pad_to_multiple(images: tf.Tensor, stride: int) -> tf.Tensor:
    """Zeros below and to the right, up to the next multiple of `stride`."""
    height, width = _size(images)
    below, right = -height % stride, -width % stride
    if isinstance(below, int) and isinstance(right, int) and below == right == 0:
        return images
    return tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
