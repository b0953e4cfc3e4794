"""Export to ONNX."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel

_OPSET = 17


def save(model: RegistrationModel, path: Path) -> None:
    """Writes an ONNX file with inputs moving and fixed, outputs warped and displacement.

    Unlike the SavedModel's signatures it does not check its inputs.

    Args:
        model: network in float32.
        path: file to write.

    Raises:
        UserError: tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError:
        raise UserError("`export.onnx` (true) needs tf2onnx: `pip install 'tfmetareg[onnx]'`.") from None
    specs = [tf.TensorSpec((None, None, None, 1), tf.float32, name=name) for name in ("moving", "fixed")]

    def register(moving: tf.Tensor, fixed: tf.Tensor) -> dict[str, tf.Tensor]:
        warped, displacement = model([moving, fixed], training=False)
        return {"warped": warped, "displacement": displacement}

    function = tf.function(register, input_signature=specs, autograph=False)
    tf2onnx.convert.from_function(
        function,
        specs,
        opset=_OPSET,
        custom_op_handlers={"FloorMod": (_floor_mod, ["Mod"])},
        output_path=os.fspath(path),
    )


def _floor_mod(graph, node, name, arguments):
    """Converts FloorMod to ONNX's Mod, since tf2onnx's own conversion is wrong for negative integers.

    tf2onnx has renamed the node already, but left it in the domain of TensorFlow's operations.
    """
    node.domain = ""
