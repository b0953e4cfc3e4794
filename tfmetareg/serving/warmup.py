"""Warm-up requests: TF Serving runs them before it serves clients, since the first request is slow."""

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


class WarmupPair(NamedTuple):
    """The image pair and the points in warm-up requests.

    Attributes:
        moving, fixed: (height, width) uint8, as in records.
        points: (n, 2) float32, (row, column), in the fixed image.
    """

    moving: np.ndarray
    fixed: np.ndarray
    points: np.ndarray


def synthetic_pair(image_shape: tuple[int, int]) -> WarmupPair:
    """A smooth random texture and its shift by (1, 2) pixels: publishes no one's images.

    >>> synthetic_pair((32, 48)).moving.shape
    (32, 48)
    """
    noise = np.random.default_rng(0).normal(size=image_shape)
    texture = ndimage.gaussian_filter(noise, 2, mode="wrap")
    fixed = np.rint(255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
    height, width = image_shape
    points = np.array([[height / 3, width / 3], [height / 2, width / 2], [height / 3, width / 2]], np.float32)
    return WarmupPair(np.roll(fixed, (1, 2), axis=(0, 1)), fixed, points)


def predict_request(model: str, signature: str, inputs: dict[str, np.ndarray]) -> PredictRequest:
    """Makes a predict request; inputs are converted to the signature's dtypes."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        proto = tf.make_tensor_proto(value, dtype=INPUTS[signature][name].dtype)
        request.inputs[name].CopyFrom(proto)
    return request


def write_warmup(folder: Path, model: str, pair: WarmupPair, signatures: Sequence[str]) -> None:
    """Writes the warm-up file of a SavedModel folder: one request per signature."""
    path = folder / FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            request = predict_request(model, signature, _inputs(pair, signature))
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())


def _inputs(pair: WarmupPair, signature: str) -> dict[str, np.ndarray]:
    images = {"moving": pair.moving, "fixed": pair.fixed}
    if signature == "register_png":
        encoded = {name: tf.io.encode_png(image[..., None]).numpy() for name, image in images.items()}
        return {name: np.array([file], object) for name, file in encoded.items()}
    inputs = {name: image[None, ..., None] / np.float32(255) for name, image in images.items()}
    return {**inputs, "fixed_points": pair.points[None]} if signature == "register_points" else inputs
