"""Records with an alignment, and real images, that several tests share."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy import ndimage

from tfmetareg.data.records import Records
from tfmetareg.geometry.affine import points_to_moving, resample
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.types import ImagePair
from tfrecords_builder.build import build
from tfrecords_builder.sources.base import SourceTask

SIDE = 64
# What lies at p in the fixed image lies at A p + t in the moving one: a turn of 5 degrees, and a shift.
TRUTH = np.array([[0.9962, -0.0872, 8.5], [0.0872, 0.9962, -9.0]], np.float32)


def vessels(seed: int, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side): thin random lines, which give a narrow basin as vessels do."""
    lines = np.abs(ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 3))
    return np.uint8(255 * np.exp(-((lines / lines.std() / 0.3) ** 2)))


def turned_pair(seed: int, split: str) -> ImagePair:
    """moving(TRUTH(p)) = fixed(p); landmarks say so exactly."""
    moving = vessels(seed)
    points = np.array([[20, 25], [40, 22], [33, 44]], np.float32)
    return ImagePair(
        key=f"{split}-{seed}",
        subject=f"{split}-{seed}",
        moving=moving,
        fixed=resample(moving, TRUTH),
        moving_landmarks=points_to_moving(points, TRUTH),
        fixed_landmarks=points,
        split=split,
    )


@pytest.fixture(scope="session")
def turned_roots(tmp_path_factory):
    """Records of one target (2 finetune, 3 test pairs), 64 x 64, by `--align`: "none" and "affine"."""
    pairs = [turned_pair(seed, "finetune" if seed < 2 else "test") for seed in range(5)]
    roots = {}
    for align in ("none", "affine"):
        roots[align] = tmp_path_factory.mktemp(f"turned-{align}")
        preprocessing = Preprocessing((SIDE, SIDE), intensity="none", align=align)
        task = SourceTask("turned", "target", "vessels", pairs)
        build([task], roots[align], preprocessing=preprocessing, shards=2, say=lambda line: None)
    return roots


@pytest.fixture
def turned(turned_roots):
    """The turned pairs with their alignments, opened."""
    return Records(turned_roots["affine"])


@pytest.fixture
def little_room() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Makes a context in which no file grows beyond 20 000 bytes, as on a disk that is nearly full."""

    @contextlib.contextmanager
    def limited() -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
