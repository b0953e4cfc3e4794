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
# From Python 3.10 on, `X | Y` is an object of a type of its own.
_UNIONS = (Union, getattr(types, "UnionType", Union))


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Name and options of a network: enough to build it again.

    Attributes:
        name: name in the registry.
        options: options of the builder as JSON types, without `precision`, which changes neither layers nor
            their meaning.
    """

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join([self.name, *[f"{name} {value}" for name, value in self.options.items()]])


class Layers(tf.keras.Model):
    """Holds a network's layers, for builders whose own functions compute with the weights."""

    def __init__(self, name: str, layers: Iterable[tf.keras.layers.Layer]):
        """
        Args:
            name: name of the network.
            layers: built layers with distinct names.
        """
        super().__init__(name=name)
        self.parts = list(layers)


class RegistrationModel(tf.keras.Model):
    """G(M, F) and the spatial transformer: `warped, displacement = model([moving, fixed])`.

    Takes images of any height and width from 2 pixels on: they are padded with zeros to a multiple of the
    network's stride, and the displacement is cropped back.

    Attributes:
        architecture: name and options that `build_model` built it from; None if it was built otherwise.
        halo: receptive-field radius in pixels, rounded up to a multiple of `stride`: the displacement at a
            point depends on no pixel farther away than this. None if it is unbounded or unknown.
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
            network: holds the weights that are written to and read from .h5 files.
            field: [moving, fixed] -> displacement in pixels, float32, for any size that is a multiple of
                `stride`; computes with the weights of `network`.
            stride: factor between the finest and the coarsest resolution of the network, in pixels.
            inverse_field: like `field`, but the inverse displacement, on the moving grid; None if the
                network's fields have no inverse.
        """
        super().__init__(name=network.name)
        self.network = network
        # AutoGraph would take seconds to convert them, and they need no conversion.
        self.field = tf.autograph.experimental.do_not_convert(field)
        self.inverse_field = inverse_field and tf.autograph.experimental.do_not_convert(inverse_field)
        self.stride = stride

    def call(self, inputs: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Registers moving onto fixed.

        Args:
            inputs: moving and fixed, (batch, height, width, 1) float32 in [0, 1] each.

        Returns:
            warped (batch, height, width, 1) and displacement (batch, height, width, 2) in pixels,
            (row, column), on the fixed grid.
        """
        displacement = self._at_any_size(self.field, inputs)
        return warp(inputs[0], displacement), displacement

    def inverse(self, inputs: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Registers fixed onto moving, by the inverse of the field that `call` returns for the same images.

        Args:
            inputs: moving and fixed, as for `call`.

        Returns:
            fixed warped onto moving, and the inverse displacement on the moving grid: a point p of moving
            lies at p + inverse(p) in fixed.

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
    """Decorator that registers a builder `(image_shape, *, **options) -> RegistrationModel` under a name.

    The builder's options are its keyword-only arguments, with type annotations and defaults. Options called
    `features` and `precision` receive the configuration's `model.features` and `model.precision`.

    >>> @register_model("still")
    ... def still(image_shape, *, precision: str = "float32") -> RegistrationModel:
    ...     def field(images):
    ...         return tf.zeros_like(tf.concat(images, -1))  # No pixel moves.
    ...
    ...     return RegistrationModel(Layers("still", []), field, stride=1)
    >>> build_model("still", (8, 8)).architecture.name
    'still'
    >>> _BUILDERS.pop("still") is still  # Leaves the registry as it was.
    True

    Args:
        name: name in the registry, the value of `model.name`.

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
    """Names of the registered networks, in alphabetical order."""
    return sorted(_BUILDERS)


def options_of(name: str) -> dict[str, Any]:
    """A network's options with their defaults; `inspect.Parameter.empty` for an option without a default.

    Raises:
        UserError: no network of that name.
    """
    if name not in _BUILDERS:
        raise UserError(f"`model.name` must be one of {', '.join(registered())}; got {name}.")
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def build_model(name: str, image_shape: tuple[int, int], **options: Any) -> RegistrationModel:
    """Builds a registered network with newly initialised weights.

    >>> model = build_model("vxm_dense", (32, 32), features=[[4, 4], [4, 4, 4]])
    >>> moving, fixed = tf.random.uniform((2, 1, 48, 40, 1))
    >>> warped, displacement = model([moving, fixed])
    >>> warped.shape, displacement.shape
    (TensorShape([1, 48, 40, 1]), TensorShape([1, 48, 40, 2]))

    Args:
        name: name in the registry.
        image_shape: (height, width) to train at; other sizes work too.
        **options: options of the builder.

    Raises:
        UserError: no network has that name, or an option is unknown, of another type or out of range.
    """
    chosen = checked_options(name, options)
    kinds = typing.get_type_hints(_BUILDERS[name])
    given = {key: _of_type(value, kinds.get(key, Any)) for key, value in options.items()}
    model = _BUILDERS[name](image_shape, **given)
    chosen.pop("precision", None)
    model.architecture = Architecture(name, chosen)
    return model


def checked_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a network as JSON types: the given values, and defaults for the rest.

    Raises:
        UserError: no such network, or an option is unknown, missing or of another type.
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
    """Imports a module that registers networks.

    Args:
        module: path of a .py file, or dotted name of a module on the import path.

    Raises:
        UserError: the module cannot be imported, or registers no network.
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
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses in the file look it up there.
    spec.loader.exec_module(module)
    return module


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value fits an annotation: a plain type, a sequence of such, Literal, Optional or a union."""
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
        # A sequence without type arguments may hold anything.
        return not arguments or (
            len(arguments) == len(value) and all(_fits(*both) for both in zip(value, arguments))
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else origin)


def _of_type(value: Any, kind: Any) -> Any:
    """The value, with a list from JSON or YAML made a tuple where the annotation is a tuple."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in _UNIONS:
        return _of_type(value, next(argument for argument in arguments if _fits(value, argument)))
    return tuple(value) if origin is tuple else value


def _size(images: tf.Tensor) -> tuple[Any, Any]:
    """Height and width: ints if the graph knows them, else int32 tensors."""
    static, dynamic = images.shape, tf.shape(images)
    return tuple(dynamic[axis] if static[axis] is None else static[axis] for axis in (1, 2))


def _pad_to_multiple(images: tf.Tensor, stride: int) -> tf.Tensor:
    """Zeros below and to the right, up to the next multiple of `stride`."""
    height, width = _size(images)
    below, right = -height % stride, -width % stride
    if isinstance(below, int) and isinstance(right, int) and below == right == 0:
        return images
    return tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
