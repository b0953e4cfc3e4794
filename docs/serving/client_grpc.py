"""Registers two PNG files through TF Serving's gRPC interface; needs tensorflow-serving-api.

python client_grpc.py moving.png fixed.png warped.png --server localhost:8500
"""

from __future__ import annotations

import argparse
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

# The library's limit of 4 MiB is less than the images of a batch.
_LARGEST = 256 * 2**20


def png_request(model: str, moving: bytes, fixed: bytes) -> PredictRequest:
    """Asks to register a pair of PNG files."""
    return _request(model, "register_png", moving=[moving], fixed=[fixed])


def image_request(
    model: str, moving: np.ndarray, fixed: np.ndarray, fixed_points: np.ndarray | None = None
) -> PredictRequest:
    """Asks to register images, and to carry points.

    Args:
        model: its name on the server.
        moving, fixed: (batch, height, width, 1) float32 in [0, 1].
        fixed_points: (batch, n, 2) float32, (row, column), pixels.
    """
    inputs = {"moving": np.float32(moving), "fixed": np.float32(fixed)}
    if fixed_points is None:
        return _request(model, "serving_default", **inputs)
    return _request(model, "register_points", **inputs, fixed_points=np.float32(fixed_points))


def _request(model: str, signature: str, **inputs) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def predict(server: str, request: PredictRequest, seconds: float = 60.0) -> dict[str, np.ndarray]:
    """The outputs of the server's answer.

    Raises:
        grpc.RpcError: INVALID_ARGUMENT with the model's sentence, or the server is not there.
    """
    options = [(f"grpc.max_{way}_message_length", _LARGEST) for way in ("send", "receive")]
    with grpc.insecure_channel(server, options) as channel:
        response: PredictResponse = PredictionServiceStub(channel).Predict(request, timeout=seconds)
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("moving", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("warped", type=Path)
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--model", default="tfmetareg")
    arguments = parser.parse_args()
    request = png_request(arguments.model, arguments.moving.read_bytes(), arguments.fixed.read_bytes())
    try:
        outputs = predict(arguments.server, request)
    except grpc.RpcError as error:
        raise SystemExit(f"{error.code().name}: {error.details()}") from None
    arguments.warped.write_bytes(outputs["warped_bytes"][0])


if __name__ == "__main__":
    main()
