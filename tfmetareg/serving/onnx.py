"""The network as an ONNX file."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.models.registry import RegistrationModel

_OPSET = 17


def save(model: RegistrationModel, path: Path) -> None:
    """Writes moving, fixed (batch, height, width, 1) -> warped, displacement, without the checks.

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
    """Stays one operation, ONNX's own Mod: what tf2onnx makes of it is wrong for negative integers.

    It has renamed the node by now, but put it among operations that only TensorFlow knows.
    """
    node.domain = ""
