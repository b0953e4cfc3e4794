"""What makes a process slow to start: modules that are not used, and code that AutoGraph converts."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfmetareg import _compat
from tfmetareg.loading import uncollected
from tfmetareg.processes import available_cpus

# Each takes a noticeable part of the time to start, and none is needed to register two PNG files.
UNUSED = (
    *("IPython", "nibabel", "pydicom", "skimage.measure", "sklearn"),
    *("matplotlib.pyplot", "mpl_toolkits.axes_grid1", "scipy.spatial", "scipy.stats"),
)
REGISTERED = """
import glob, json, sys, tempfile
import tfmetareg.cli
status = tfmetareg.cli.main(["register", "moving.png", "fixed.png"])
converted = [open(file).read() for file in glob.glob(f"{tempfile.gettempdir()}/__autograph_generated_file*")]
print(json.dumps({"status": status, "modules": sorted(sys.modules), "converted": converted}))
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory) -> dict:
    """What a process holds that has registered two images."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("start")
    rng = np.random.default_rng(0)
    for name in ("moving", "fixed"):
        image = np.kron(rng.integers(0, 255, (12, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        (folder / f"{name}.png").write_bytes(tf.io.encode_png(image).numpy())
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-c", REGISTERED]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    assert (folder / "moving-to-fixed" / "grid.png").is_file()
    return json.loads(done.stdout.splitlines()[-1])


def test_registering_imports_nothing_that_it_does_not_use(registered):
    assert registered["status"] == 0
    assert "tensorflow" in registered["modules"]
    if available_cpus() > 1:  # A second process draws.
        assert "matplotlib" not in registered["modules"]
    assert {*UNUSED} & {*registered["modules"]} == set()


def test_registering_leaves_nothing_for_autograph_to_convert(registered):
    """Converting VxmDense, the equalisation and the step of registering took most of the first call."""
    assert registered["converted"] == []


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A package that counts its imports, and one that imports it in all ways."""
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "__init__.py").write_text("import os\nos.environ['HEAVY'] += '1'\n")
    (tmp_path / "heavy" / "inner.py").write_text("def twice(x):\n    return 2 * x\nclass Thing:\n    pass\n")
    (tmp_path / "user.py").write_text(
        "import heavy\nimport heavy.inner as inner\nfrom heavy import inner as other\n"
        "from heavy.inner import twice, Thing\n"
        "def use():\n    return inner.twice(1), other.twice(2), twice(3), type(Thing()).__name__\n"
        "def by_path():\n    return heavy.inner.twice(4)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HEAVY", "")
    yield
    for name in ("heavy", "heavy.inner", "user"):
        sys.modules.pop(name, None)


def test_what_is_postponed_is_imported_when_it_is_called(heavy):
    with _compat._postponed(("heavy", "heavy.inner")):
        user = importlib.import_module("user")
    assert os.environ["HEAVY"] == "" and "heavy" not in sys.modules
    assert user.use() == (2, 4, 6, "Thing")
    assert user.by_path() == 8
    assert os.environ["HEAVY"] == "1"
    assert Path(importlib.import_module("heavy").__file__).name == "__init__.py"


def test_what_is_there_already_is_not_postponed(heavy):
    there = importlib.import_module("heavy.inner")
    with _compat._postponed(("heavy", "heavy.inner")):
        user = importlib.import_module("user")
    assert user.inner is there and sys.modules["heavy.inner"] is there


def test_stand_ins_leave_when_an_import_fails(heavy):
    with pytest.raises(ImportError), _compat._postponed(("heavy",)):
        importlib.import_module("nowhere.to.be.seen")
    assert "heavy" not in sys.modules


def test_neurite_finds_what_was_postponed():
    """Whatever was imported first in this process: its principal components, and its plots."""
    principal = _compat.ne.tf.utils.vae.PCA(n_components=1).fit(np.eye(3))
    assert principal.components_.shape == (1, 3)
    assert _compat.ne.py.plot.Normalize(0, 2)(1) == 0.5
    assert _compat.vxm.py.utils.measure.label(np.eye(2, dtype=int)).max() == 1


@pytest.mark.parametrize("enabled", [True, False])
def test_collections_are_as_they_were_after_an_import(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ZeroDivisionError), uncollected():
            assert not gc.isenabled()
            1 / 0  # noqa: B018
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
