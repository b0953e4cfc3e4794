"""One small network as a SavedModel, and images for it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.models.registry import RegistrationModel, build_model
from tfmetareg.serving.saved_model import save
from tfmetareg.serving.warmup import WarmupPair

FEATURES = [[4, 4], [4, 4, 4]]


class Served(NamedTuple):
    """A network, the SavedModel folder made of it, and what plain TensorFlow loads from there."""

    model: RegistrationModel
    folder: Path
    signatures: dict
    preprocessing: Preprocessing


def scan(shape, seed: int = 0) -> np.ndarray:
    """A smooth texture, float32 in [0, 1]."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.float32((image - image.min()) / np.ptp(image))


def encoded(image: np.ndarray, dtype=np.uint8) -> bytes:
    """A PNG file of an image in [0, 1], (height, width) or (height, width, channels)."""
    array = np.rint(image * np.iinfo(dtype).max).astype(dtype)
    return tf.io.encode_png(array if array.ndim == 3 else array[..., None]).numpy()


def displacing_network() -> RegistrationModel:
    """A small network that displaces by some pixels."""
    model = build_model("vxm_dense", (32, 32), features=FEATURES)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(tf.random.stateless_normal(variable.shape, [9, index], stddev=0.25))
    return model


@pytest.fixture(scope="package")
def served(tmp_path_factory) -> Served:
    model = displacing_network()
    folder = tmp_path_factory.mktemp("export") / "1"
    preprocessing = Preprocessing((48, 40))
    points = np.float32([[3, 4], [20, 30]])
    images = [np.uint8(255 * scan((48, 40), seed)) for seed in range(2)]
    save(model, preprocessing, folder, name="tiny", warmup_pair=WarmupPair(*images, points))
    return Served(model, folder, tf.saved_model.load(str(folder)).signatures, preprocessing)
