"""The network as an ONNX file, computed by ONNX Runtime."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.unit.tfmetareg.serving.conftest import displacing_network, scan
from tfmetareg.errors import UserError
from tfmetareg.serving import onnx


def test_onnx_runtime_computes_the_same_at_any_size(tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed: the extra `onnx`")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra `onnx`")
    model = displacing_network()
    onnx.save(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    for shape in [(64, 64), (50, 37), (7, 5)]:
        moving, fixed = (np.stack([scan(shape, seed), scan(shape, seed + 9)])[..., None] for seed in (0, 1))
        warped, displacement = model([moving, fixed])
        found = dict(zip(names, session.run(None, {"moving": moving, "fixed": fixed})))
        np.testing.assert_allclose(found["warped"], warped, atol=1e-4)
        np.testing.assert_allclose(found["displacement"], displacement, atol=1e-4)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match="needs tf2onnx"):
        onnx.save(None, tmp_path / "model.onnx")
