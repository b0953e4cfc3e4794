"""Adaptation by the similarity, and from the start, that fit the pair."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.unit.tfmetareg.registration.test_similarity import FIRST, SECOND, shown, tissue
from tfmetareg.models.registry import build_model
from tfmetareg.registration.adaptation import FittingAdaptation
from tfmetareg.registration.network import Registrar, reset_to_identity
from tfmetareg.registration.similarity import AUTOMATIC, Similarities
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import gradient_step
from tfmetareg.types import PairBatch

PAIRS = {
    "like": (np.roll(shown(tissue(1), FIRST, 1), 1, axis=0), shown(tissue(1), FIRST)),
    "unlike": (np.roll(shown(tissue(1), SECOND, 1), 1, axis=0), shown(tissue(1), FIRST)),
}


FEATURES = [[4, 4], [4, 4, 4]]


@pytest.fixture(scope="module")
def automatic():
    """Steps on a pair, from a network whose displacement is about that large everywhere; compiled once."""
    model = build_model("vxm_dense", (32, 32), features=FEATURES)
    weights = model.get_weights()
    register, adapt = Registrar(model), FittingAdaptation(model, registration_loss, AUTOMATIC, 1e-3)

    def steps(pair, displacement: float = 0.0, count: int = 2):
        model.set_weights([*weights[:-1], np.float32([displacement, 0.0])])
        return adapt([pair], [pair] * count, register)

    return steps


def test_the_contrast_of_the_pair_decides_on_the_similarity(automatic):
    assert automatic(PAIRS["like"]).similarity == "ncc"
    assert automatic(PAIRS["unlike"]).similarity == "mind"
    assert automatic(PAIRS["like"], count=0) is None


def test_a_network_that_misleads_begins_with_no_displacement_and_one_that_helps_as_it_is(automatic):
    # The images lie one pixel apart: a displacement of 1 fits them, one of -4 does not.
    lost, found = (automatic(PAIRS["unlike"], size) for size in (-4.0, 1.0))
    assert (lost.start, found.start) == ("identity", "network")
    assert found.first < lost.first
    assert automatic(PAIRS["like"], -4.0).start == "network"


def test_a_similarity_by_name_is_taken_whatever_the_contrast():
    model = build_model("vxm_dense", (32, 32), features=FEATURES)
    adapt = FittingAdaptation(model, registration_loss, Similarities("mind", "mind"), 1e-3)
    moving, fixed = pair = PAIRS["like"]
    outcome = adapt([pair], [pair], Registrar(model))
    # At the first step the network moves nothing yet.
    images = [np.float32(image)[None, ..., None] / 255 for image in (moving, fixed)]
    still = np.zeros((1, *fixed.shape, 2), np.float32)
    expected = registration_loss(PairBatch(*images), images[0], still, similarity="mind").total
    assert outcome.similarity == "mind"
    assert outcome.first == pytest.approx(float(expected), abs=2e-3)


@pytest.mark.parametrize("name", ["vxm_diffeomorphic", "cascade", "affine_deformable"])
def test_every_network_can_begin_with_no_displacement_and_learn_from_there(name):
    model = build_model(name, (32, 32), features=FEATURES)
    model.set_weights([value + 0.05 for value in model.get_weights()])
    pair = PairBatch(*(np.float32(image[None, 32:64, 32:64, None]) / 255 for image in PAIRS["unlike"]))

    def longest() -> float:
        return float(np.abs(model([pair.moving, pair.fixed])[1]).max())

    assert longest() > 0.01
    reset_to_identity(model)
    assert longest() < 1e-6
    optimizer = build_optimizer("adam", 1e-3, model.trainable_variables)
    gradient_step(model, optimizer, functools.partial(registration_loss, similarity="mind"), pair)
    assert longest() > 1e-4
