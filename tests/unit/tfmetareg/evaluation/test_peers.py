"""The peers on a pair whose displacement is known, and on scans of the target domain."""

from __future__ import annotations

import csv
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit.tfmetareg.conftest import vessels
from tfmetareg.data.records import examples
from tfmetareg.errors import UserError
from tfmetareg.evaluation import peers
from tfmetareg.evaluation.evaluator import Evaluator
from tfmetareg.evaluation.peers import PEERS, peer
from tfmetareg.geometry.affine import points_to_moving, resample
from tfmetareg.geometry.warp import displace_points, warp
from tfmetareg.training.losses import registration_loss
from tfmetareg.types import PairBatch

PACKAGES = {"elastix": "itk", "syn": "ants"}


@pytest.fixture(params=PEERS)
def register(request):
    """Each peer; skipped where it is not installed."""
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed: pip install -e '.[peers]'")
    return peer(request.param)


def batch(*images: np.ndarray) -> PairBatch:
    return PairBatch(*[tf.constant(image[None, ..., None], tf.float32) / 255 for image in images])


def test_a_turn_and_a_shift_are_found_in_rows_and_columns(register):
    """Height and width differ, and the shift is another in each: nothing can be mistaken for the other."""
    moving = vessels(3, 160)[:, :128]
    truth = np.float32([[1, -0.03, 4], [0.03, 1, -7]])
    pair = batch(moving, resample(moving, truth))
    warped, displacement = register(pair)
    assert displacement.shape == (1, 160, 128, 2) and displacement.dtype == tf.float32
    points = np.random.default_rng(0).uniform(30, 98, (40, 2)).astype(np.float32)
    carried = displace_points(points[None], displacement)[0].numpy()
    assert np.linalg.norm(points - points_to_moving(points, truth), axis=1).mean() > 5
    assert np.linalg.norm(carried - points_to_moving(points, truth), axis=1).mean() < 0.5
    np.testing.assert_array_equal(warped, warp(pair.moving, displacement))


def test_repeat_scans_of_an_eye_come_together(register, real_data):
    root = real_data / "octa_scp"
    with open(root / "pairs.csv", encoding="utf-8") as stream:
        row = [row for row in csv.DictReader(stream) if row["split"] == "test"][8]
    pair = batch(*[np.asarray(Image.open(root / row[name])) for name in PairBatch._fields])
    moving, fixed = (landmarks(root / row[f"{name}_landmarks"]) for name in PairBatch._fields)
    carried = displace_points(fixed[None], register(pair)[1])[0].numpy()
    assert np.linalg.norm(fixed - moving, axis=1).mean() > 10
    assert np.linalg.norm(carried - moving, axis=1).mean() < 1.5


def landmarks(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)[:, ::-1]


def test_images_without_content_stay_in_their_place(register):
    nothing = np.zeros((64, 64), np.uint8)
    np.testing.assert_array_equal(register(batch(nothing, nothing))[1], np.zeros((1, 64, 64, 2)))


def test_a_peer_that_gives_up_leaves_the_pair_and_says_so(monkeypatch, capsys):
    def find(moving, fixed):
        raise RuntimeError("no\nway")

    monkeypatch.setitem(peers._PEERS, "elastix", ("itk-elastix", lambda: find))
    image = vessels(3)
    displacement = peer("elastix")(batch(image, image))[1]
    np.testing.assert_array_equal(displacement, np.zeros((1, 64, 64, 2)))
    assert capsys.readouterr().err == "note: elastix gives up on a pair: no way\n"


def test_a_peer_that_fails_names_the_pair(monkeypatch, records):
    def find(moving, fixed):
        raise TypeError("no such\nargument")

    monkeypatch.setitem(peers._PEERS, "elastix", ("itk-elastix", lambda: find))
    pairs = examples(records, "target", "test")
    first = next(iter(pairs))["key"].numpy().decode()
    with pytest.raises(UserError, match=rf"^{first}: elastix fails with TypeError: no such argument$"):
        Evaluator(peer("elastix"), pairs, registration_loss, compiled=False)


def test_itk_without_elastix_is_elastix_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", types.ModuleType("itk"))
    with pytest.raises(UserError, match="`elastix` needs the package itk-elastix"):
        peer("elastix")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_is_not_installed_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(UserError, match=rf"`{name}` needs the package .*pip install 'tfmetareg\[peers\]'"):
        peer(name)
