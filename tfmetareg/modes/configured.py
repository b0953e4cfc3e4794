"""The network, the loss and TensorFlow itself as a configuration says."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Optional

import tensorflow as tf

from tfmetareg.config import Config, LossOptions, ModelOptions
from tfmetareg.device import accelerator, set_precision
from tfmetareg.models.build import build_network, resolve_network
from tfmetareg.models.registry import Architecture, RegistrationModel
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.steps import LossFn


def resolve_options(options: ModelOptions, weights: Optional[Path]) -> ModelOptions:
    """Fills in the options that are empty, from a weights file or with the network's defaults.

    Args:
        options: the section `model`.
        weights: file that training or registration starts from, if any.

    Raises:
        UserError: see `resolve_network`.
    """
    network = _resolved(options, weights)
    others = dict(network.options)
    features = others.pop("features", [])
    return dataclasses.replace(options, name=network.name, features=features, options=others)


def build_configured(
    options: ModelOptions, image_shape: tuple[int, int], weights: Optional[Path] = None
) -> RegistrationModel:
    """Builds the configured network.

    Args:
        options: the section `model`.
        image_shape: (height, width) in pixels.
        weights: file to load; fresh weights without one.

    Raises:
        UserError: see `resolve_network`; or the file does not fit.
    """
    network = _resolved(options, weights)
    return build_network(network, image_shape, precision=options.precision, weights=weights)


def _resolved(options: ModelOptions, weights: Optional[Path]) -> Architecture:
    return resolve_network(
        weights, name=options.name, features=options.features, options=options.options, module=options.module
    )


@functools.cache
def loss_function(options: LossOptions) -> LossFn:
    """Eq. (1) with the configured window, weight and similarity; the same object for the same options."""
    return functools.partial(registration_loss, **dataclasses.asdict(options))


def configure_tensorflow(config: Config) -> None:
    """Sets seed, determinism and precision of all operations; to be called before the first of them."""
    # The seed fixes the order of the data too: tf.data mixes the global seed into that of each stream.
    tf.keras.utils.set_random_seed(config.seed)
    # On a GPU, XLA has no deterministic gradient of max pooling and would refuse to train.
    if config.deterministic and not accelerator():
        tf.config.experimental.enable_op_determinism()
    set_precision(config.model.precision)
