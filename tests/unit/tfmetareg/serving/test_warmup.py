"""The warm-up requests: read back as TF Serving reads them, and answered."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tests.unit.tfmetareg.serving.conftest import scan
from tfmetareg.serving.signatures import INPUTS
from tfmetareg.serving.warmup import FILE


def test_every_signature_answers_its_request(served):
    assert str(FILE) == "assets.extra/tf_serving_warmup_requests"
    written = tf.data.TFRecordDataset(str(served.folder / FILE)).as_numpy_iterator()
    requests = [PredictionLog.FromString(record).predict_log.request for record in written]
    assert {request.model_spec.signature_name for request in requests} == set(INPUTS)
    for request in requests:
        assert request.model_spec.name == "tiny"
        signature = request.model_spec.signature_name
        tensors = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        for name, spec in INPUTS[signature].items():
            assert tensors[name].dtype == spec.dtype
            assert spec.shape.is_compatible_with(tensors[name].shape)
        assert served.signatures[signature](**tensors)
    images = {name: tf.make_ndarray(requests[0].inputs[name]) for name in ("moving", "fixed")}
    for seed, image in enumerate(images.values()):
        np.testing.assert_allclose(image[0, ..., 0], np.uint8(255 * scan((48, 40), seed)) / 255, atol=1e-6)
