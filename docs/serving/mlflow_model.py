"""An exported model for `mlflow models serve`; needs mlflow and TensorFlow, and nothing of this project.

python mlflow_model.py runs/mine/export/tfmetareg/1 runs/mine/mlflow
mlflow models serve --model-uri runs/mine/mlflow --env-manager local --port 8080
"""

from __future__ import annotations

import base64
import sys

import mlflow
import numpy as np
import tensorflow as tf
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST


class Registration(mlflow.pyfunc.PythonModel):
    """Answers TF Serving's `{"inputs": ...}`; mlflow drops the name of the signature, the inputs tell it."""

    def load_context(self, context) -> None:
        self._signatures = tf.saved_model.load(context.artifacts["saved_model"]).signatures

    def predict(self, context, model_input):
        signature = self._signatures[_signature(model_input)]
        specs = signature.structured_input_signature[1]
        try:
            tensors = {name: _tensor(value, specs[name].dtype) for name, value in model_input.items()}
            outputs = signature(**tensors)
        except (tf.errors.InvalidArgumentError, KeyError, TypeError, ValueError) as error:
            raise MlflowException(str(error), BAD_REQUEST) from None
        return {name: _plain(value.numpy()) for name, value in outputs.items()}


def _signature(inputs: dict) -> str:
    if "fixed_points" in inputs:
        return "register_points"
    first = np.ravel(inputs.get("moving", [0.0]))[:1]
    return "register_png" if len(first) and isinstance(first[0], dict) else "serving_default"


def _tensor(value, dtype: tf.DType) -> tf.Tensor:
    if dtype == tf.string:
        value = [base64.b64decode(file["b64"]) for file in value]
    return tf.constant(value, dtype)


def _plain(value: np.ndarray):
    if value.dtype == object:
        return [{"b64": base64.b64encode(file).decode()} for file in value]
    return value.tolist()


mlflow.models.set_model(Registration())

if __name__ == "__main__":
    saved_model, output = sys.argv[1:]
    mlflow.pyfunc.save_model(output, python_model=__file__, artifacts={"saved_model": saved_model})
