"""Writes a network as a SavedModel with its signatures and warm-up requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.serving.signatures import INPUTS, build_signatures
from tfmetareg.serving.warmup import Example, write_warmup


def save(
    model: RegistrationModel,
    preprocessing: Optional[Preprocessing],
    folder: Path,
    *,
    name: str,
    example: Example,
) -> None:
    """Writes the SavedModel folder; plain TensorFlow loads it.

    Args:
        model: in float32.
        preprocessing: as `build_signatures`.
        folder: does not exist yet.
        name: of the model, for the warm-up requests.
        example: a pair that these ask to register.
    """
    module = tf.Module()
    module.weights = model.weights
    signatures = build_signatures(model, preprocessing)
    # Without the traces of Python, a message of the graph is its sentence and little else.
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    tf.saved_model.save(module, os.fspath(folder), signatures=signatures, options=options)
    _publish_shapes(folder)
    write_warmup(folder, name, example, list(signatures))


def _publish_shapes(folder: Path) -> None:
    """Tells clients the shapes of the inputs, of which the graph itself knows nothing."""
    path = folder / "saved_model.pb"
    content = SavedModel.FromString(path.read_bytes())
    meta_graph = content.meta_graphs[0]
    objects = meta_graph.object_graph_def
    wrappers = _children(objects, objects.nodes[0])["signatures"]
    for name, node in _children(objects, wrappers).items():
        function = objects.concrete_functions[node.bare_concrete_function.concrete_function_name]
        keywords = function.canonicalized_input_signature.tuple_value.values[1].dict_value.fields
        for key, spec in INPUTS[name].items():
            shape = spec.shape.as_proto()
            meta_graph.signature_def[name].inputs[key].tensor_shape.CopyFrom(shape)
            keywords[key].tensor_spec_value.shape.CopyFrom(shape)
    path.write_bytes(content.SerializeToString(deterministic=True))
    # Optional, and of the file as it was.
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _children(objects, node) -> dict:
    """Nodes of the object graph by the names that their parent has for them."""
    return {child.local_name: objects.nodes[child.node_id] for child in node.children}
