"""Requests that TF Serving sends to a model itself before any client may: the first of a kind is slow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from tfmetareg.serving.signatures import INPUTS

FILE = Path("assets.extra", "tf_serving_warmup_requests")


class Example(NamedTuple):
    """A pair to register.

    Attributes:
        moving, fixed: (height, width) uint8, as the records hold them.
        points: (n, 2) float32, (row, column), of the fixed image.
    """

    moving: np.ndarray
    fixed: np.ndarray
    points: np.ndarray


def synthetic_example(image_shape: tuple[int, int]) -> Example:
    """A smooth random texture and the same shifted by (1, 2) pixels: shows nobody's images."""
    noise = np.random.default_rng(0).normal(size=image_shape)
    texture = ndimage.gaussian_filter(noise, 2, mode="wrap")
    fixed = np.uint8(np.rint(255 * (texture - texture.min()) / np.ptp(texture)))
    height, width = image_shape
    points = np.float32([[height / 3, width / 3], [height / 2, width / 2], [height / 3, width / 2]])
    return Example(np.roll(fixed, (1, 2), axis=(0, 1)), fixed, points)


def predict_request(model: str, signature: str, inputs: dict[str, np.ndarray]) -> PredictRequest:
    """The request of that model and signature; the inputs are converted to the published types."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        proto = tf.make_tensor_proto(value, dtype=INPUTS[signature][name].dtype)
        request.inputs[name].CopyFrom(proto)
    return request


def write_warmup(folder: Path, model: str, example: Example, signatures: Sequence[str]) -> None:
    """Writes the warm-up file of a SavedModel folder, a request for each signature."""
    path = folder / FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            request = predict_request(model, signature, _inputs(example, signature))
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())


def _inputs(example: Example, signature: str) -> dict[str, np.ndarray]:
    pair = {"moving": example.moving, "fixed": example.fixed}
    if signature == "register_png":
        encoded = {name: tf.io.encode_png(image[..., None]).numpy() for name, image in pair.items()}
        return {name: np.array([file], object) for name, file in encoded.items()}
    inputs = {name: image[None, ..., None] / np.float32(255) for name, image in pair.items()}
    return {**inputs, "fixed_points": example.points[None]} if signature == "register_points" else inputs
