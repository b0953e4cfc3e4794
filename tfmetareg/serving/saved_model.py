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
from tfmetareg.serving.warmup import WarmupPair, write_warmup


def save(
    model: RegistrationModel,
    preprocessing: Optional[Preprocessing],
    folder: Path,
    *,
    name: str,
    warmup_pair: WarmupPair,
) -> None:
    """Writes a SavedModel folder, which plain TensorFlow can load.

    Args:
        model: network in float32.
        preprocessing: as for `build_signatures`.
        folder: folder to make.
        name: name of the served model, for the warm-up requests.
        warmup_pair: pair to register in the warm-up requests.
    """
    module = tf.Module()
    module.weights = model.weights
    signatures = build_signatures(model, preprocessing)
    # Without Python stack traces, an error message from the graph is little more than its sentence.
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    tf.saved_model.save(module, os.fspath(folder), signatures=signatures, options=options)
    _publish_shapes(folder)
    write_warmup(folder, name, warmup_pair, list(signatures))


def _publish_shapes(folder: Path) -> None:
    """Writes the input shapes into the signatures for clients; the graph itself must not know them."""
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
    # Optional; it describes the file before this change.
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _children(objects, node) -> dict:
    """Children of a node in the object graph, by name."""
    return {child.local_name: objects.nodes[child.node_id] for child in node.children}
