"""Small records and a small network that the tests share."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfmetareg  # noqa: F401, I001 - before TensorFlow, as the command line does it

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfmetareg.data.records import Records
from tfmetareg.models.registry import build_model
from tfmetareg.types import ImagePair
from tfrecords_builder.build import build
from tfmetareg.imaging.preprocessing import Preprocessing
from tfrecords_builder.sources.base import SourceTask

SIZE = 32
FEATURES = [[4, 4], [4, 4, 4]]
# Marked `slow`: what trains, traces large graphs, builds many records or starts processes.
SLOW = (
    "conformance/",
    "e2e/",
    "packaging/",
    "unit/benchmarks/test_build_scale.py",
    "unit/tfmetareg/data/test_augmentation.py",
    "unit/tfmetareg/data/test_tasks.py",
    "unit/tfmetareg/evaluation/test_evaluator.py",
    "unit/tfmetareg/models/",
    "unit/tfmetareg/modes/",
    "unit/tfmetareg/registration/test_network.py",
    "unit/tfmetareg/serving/",
    "unit/tfmetareg/test_api.py",
    "unit/tfmetareg/test_start_up.py",
    "unit/tfmetareg/training/test_loop.py",
    "unit/tfmetareg/training/test_reptile.py",
    "unit/tfrecords_builder/test_broken_input.py",
    "unit/tfrecords_builder/test_build.py",
    "unit/tfrecords_builder/test_decathlon.py",
    "unit/tfrecords_builder/test_inspection.py",
    "unit/tfrecords_builder/test_phantoms.py",
    "unit/tfrecords_builder/test_restart.py",
    "unit/tfrecords_builder/test_synthetic.py",
)
# Marked `long`, too: whole comparisons, kills of builds, round trips through every format, the wheel, the
# notebook, the benchmark's processes. A few tests of other files have the mark themselves.
LONG = (
    "e2e/test_benchmarks.py",
    "e2e/test_label_evaluation.py",
    "e2e/test_notebook.py",
    "e2e/test_one_run.py",
    "e2e/test_register_labels.py",
    "e2e/test_register_landmarks.py",
    "e2e/test_reproduce.py",
    "e2e/test_round_trip.py",
    "e2e/test_study.py",
    "packaging/",
    "unit/tfrecords_builder/test_restart.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    if missing := [place for place in (*SLOW, *LONG) if not (tests / place).exists()]:
        raise pytest.UsageError(f"{__file__}: SLOW or LONG names {', '.join(missing)}, which is not there.")
    for item in items:
        place = item.path.relative_to(tests).as_posix()
        for mark, places in (("slow", SLOW), ("long", LONG)):
            if place.startswith(places):
                item.add_marker(mark)


def _seed() -> None:
    tf.keras.utils.set_random_seed(0)


# What a test draws does not hang on the tests before it: fresh weights are the same in every run.
seeded_module = pytest.fixture(_seed, scope="module", autouse=True)


@pytest.fixture(autouse=True)
def seeded_test():
    _seed()
    yield
    _seed()  # For the module's fixtures that the next test makes.


def texture(rng: np.random.Generator, smoothness: float, size: int = SIZE) -> np.ndarray:
    """A smooth random image, float64 (size, size)."""
    return ndimage.gaussian_filter(rng.normal(size=(size, size)), smoothness, mode="wrap")


def shifted_pair(seed: int, split: str, smoothness: float, shift=(1, 2)) -> ImagePair:
    """moving(p + shift) = fixed(p) on a torus; landmarks say so exactly."""
    fixed = texture(np.random.default_rng(seed), smoothness)
    points = np.array([[8, 9], [20, 12], [15, 22]], np.float32)
    return ImagePair(
        key=f"{split}-{seed}",
        subject=f"{split}-{seed // 2}",
        moving=np.roll(fixed, shift, axis=(0, 1)),
        fixed=fixed,
        moving_landmarks=points + np.float32(shift),
        fixed_landmarks=points,
        split=split,
    )


def source_task(name: str, role: str, smoothness: float, counts: dict[str, int]) -> SourceTask:
    """A task of shifted textures; each seed is used once."""
    pairs = [
        shifted_pair(1000 * index + number, split, smoothness)
        for index, (split, count) in enumerate(counts.items())
        for number in range(count)
    ]
    return SourceTask(name, role, "texture", pairs)


@pytest.fixture(scope="session")
def records_root(tmp_path_factory):
    """Records of three source tasks (6 train, 2 test pairs) and a target (8 finetune, 3 test), 32 x 32."""
    root = tmp_path_factory.mktemp("records")
    sources = [
        source_task(f"task_{letter}", "source", 1.5 + index, {"train": 6, "test": 2})
        for index, letter in enumerate("abc")
    ]
    target = source_task("target", "target", 2.0, {"finetune": 8, "test": 3})
    build(
        [*sources, target], root, preprocessing=Preprocessing((SIZE, SIZE)), shards=2, say=lambda line: None
    )
    return root


@pytest.fixture
def records(records_root):
    """The small records, opened."""
    return Records(records_root)


@pytest.fixture
def small_model():
    """Makes a small network; the same seed gives the same weights, with displacements well above zero."""

    def make(seed: int = 0) -> tf.keras.Model:
        tf.keras.utils.set_random_seed(seed)
        model = build_model("vxm_dense", (SIZE, SIZE), features=FEATURES)
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            variable.assign_add(rng.normal(0, 0.05, variable.shape).astype(np.float32))
        return model

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TFMETAREG_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder}; set TFMETAREG_REAL_DATA to run this test")
    return folder
