"""Writes weights as a SavedModel that TF Serving, or plain TensorFlow, loads without this project."""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

from tfmetareg.config import Config
from tfmetareg.files import published
from tfmetareg.models.registry import RegistrationModel, build_model
from tfmetareg.models.weights import load_weights
from tfmetareg.runs.run import find_weights


def run(config: Config, workdir: Path) -> Path:
    """Exports `config.export.weights` to `<workdir>/export/<name>/<next version>/`; returns that folder."""
    path = find_weights(workdir, config.export.weights)
    # It takes any size: the one it is built at leaves no trace. It may run anywhere: hence float32.
    options = config.model
    model = build_model(options.name, (64, 64), features=options.features, precision="float32")
    load_weights(model, path)
    folder = Path(workdir) / "export" / config.export.name
    target = folder / str(_next_version(folder))
    with published(target) as temporary:
        _save(model, temporary)
    print(f"Exported {path} to {target}", file=sys.stderr)
    return target


def _next_version(folder: Path) -> int:
    versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()]
    return max(versions, default=0) + 1


def _save(model: RegistrationModel, folder: Path) -> None:
    """Saves the variables and one explicit signature.

    Keras's own default signature would fix the image size and, for a
    voxelmorph network, return an inner field.
    """
    signature = [tf.TensorSpec((None, None, None, 1), tf.float32, name=name) for name in ("moving", "fixed")]

    @tf.function(input_signature=signature)
    def register(moving: tf.Tensor, fixed: tf.Tensor) -> dict[str, tf.Tensor]:
        warped, displacement = model([moving, fixed], training=False)
        return {"warped": warped, "displacement": displacement}

    module = tf.Module()
    module.weights = model.weights
    module.register = register
    tf.saved_model.save(module, str(folder), signatures={"serving_default": register})
