"""The embedded data: six procedural registration tasks, generated from a seed, without any download.

They stand in for the tasks of Park et al. (2021): five source tasks, and superficial OCTA as the target.
Brain and abdomen pairs are adjacent slices of one 3D phantom; retinal pairs are repeat scans of one eye. A
pair depends only on the seed, the task, the split and its index, not on the order in which pairs are made.
The one exception: the distance between two scans of a retina also depends on the number of pairs in the
split.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Callable, NamedTuple

import numpy as np
from scipy import ndimage, stats

from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair
from tfrecords_builder import deformation
from tfrecords_builder.phantoms import abdomen, brain, retina
from tfrecords_builder.phantoms.fields import keyed_rng
from tfrecords_builder.sources import base
from tfrecords_builder.sources.base import LazyPairs, Option, Partition, Request, SourceTask, source

# Landmark distance before registration in the paper, 10.07 +- 3.99 px of 400, as shares of the width.
DISTANCE_MEAN, DISTANCE_DEVIATION = 10.07 / 400, 3.99 / 400
MOST_LANDMARKS = 30
PAIRS_PER_SUBJECT = 10
PAIRS_PER_EYE = 2
_MARGIN = 0.04
# Standard deviation of the beam, as a share of the shorter side. With it, the images' correlation falls over
# one pixel of 128 as that of real scans does.
_BEAM = 0.0055
_BORDER = 0.10

SliceAt = Callable[[int], np.ndarray]


class _EyePairs(NamedTuple):
    """The pairs of one eye; for each pair its number and mean landmark distance in pixels."""

    split: str
    subject: str
    distances: tuple[tuple[int, float], ...]


def embedded_tasks(
    *,
    image_size: tuple[int, int] = (128, 128),
    source_pairs: int = 200,
    source_test_pairs: int = 20,
    target_finetune: int = 294,
    target_test: int = 74,
    seed: int = 0,
) -> list[SourceTask]:
    """The six tasks; their images are made as the pairs are iterated.

    >>> tasks = embedded_tasks(image_size=(48, 48), source_pairs=1, target_finetune=1)
    >>> [task.name for task in tasks]
    ['brain_t1w', 'brain_t1gd', 'brain_t2w', 'abdomen_ct', 'octa_choroid', 'octa_scp']
    >>> next(iter(tasks[0].pairs)).fixed.shape
    (48, 48)

    Args:
        image_size: (height, width) in pixels; anatomy scales with the shorter side, distances with the width.
        source_pairs, source_test_pairs: number of pairs in the "train" and "test" splits of each source task.
        target_finetune, target_test: number of pairs in the "finetune" and "test" splits of the target task.
        seed: seed of everything random, at least 0.

    Returns:
        brain_t1w, brain_t1gd, brain_t2w, abdomen_ct, octa_choroid (sources) and octa_scp (target). Landmarks
        lie on a lattice in octa_choroid and at vessel junctions in octa_scp; the other tasks have none.
        Images are float32, about 0 to 1; those of abdomen_ct are in Hounsfield units.

    Raises:
        UserError: an image size that the anatomy does not fit.
    """
    if min(image_size) < 32 or max(image_size) > 2 * min(image_size):
        raise UserError(
            f"--image-size ({image_size[0]} {image_size[1]}) must be at least 32 for embedded tasks, "
            "and neither side more than twice the other: the anatomy would not fit."
        )
    sources = {"train": source_pairs, "test": source_test_pairs}
    target = {"finetune": target_finetune, "test": target_test}
    makers: list[tuple[str, str, str, dict[str, int], Callable]] = [
        ("brain_t1w", "source", "MRI T1w", sources, functools.partial(_brain, contrast="t1w")),
        ("brain_t1gd", "source", "MRI T1Gd", sources, functools.partial(_brain, contrast="t1gd")),
        ("brain_t2w", "source", "MRI T2w", sources, functools.partial(_brain, contrast="t2w")),
        ("abdomen_ct", "source", "CT", sources, _abdomen),
        ("octa_choroid", "source", "OCTA", sources, _choroid),
        ("octa_scp", "target", "OCTA", target, _plexus),
    ]
    tasks = []
    for name, role, modality, splits, make in makers:
        pairs = LazyPairs(make(tuple(image_size), splits, seed), sum(splits.values()))
        tasks.append(SourceTask(name, role, modality, pairs))
    return tasks


def _brain(shape: tuple[int, int], splits: dict[str, int], seed: int, contrast: str) -> list[Partition]:
    """Adjacent slices of skull-stripped heads; the three contrasts show the same heads."""
    return _subjects("brain", splits, functools.partial(_head_slices, seed, contrast, shape))


def _head_slices(seed: int, contrast: str, shape: tuple[int, int], subject: str) -> SliceAt:
    head = brain.random_head(seed, subject)
    return lambda index: brain.brain_slice(seed, subject, head, index, contrast, shape)


def _abdomen(shape: tuple[int, int], splits: dict[str, int], seed: int) -> list[Partition]:
    """Adjacent slices of abdomens, Hounsfield units."""
    return _subjects("abdomen", splits, functools.partial(_trunk_slices, seed, shape))


def _trunk_slices(seed: int, shape: tuple[int, int], subject: str) -> SliceAt:
    trunk = abdomen.random_trunk(seed, subject)
    return lambda index: abdomen.abdomen_slice(seed, subject, trunk, index, shape)


def _subjects(prefix: str, splits: dict[str, int], cut: Callable[[str], SliceAt]) -> list[Partition]:
    """A partition per subject of `PAIRS_PER_SUBJECT` pairs; the last subject of a split may have fewer."""
    return [
        functools.partial(
            _adjacent_slices,
            f"{prefix}-{split}-{first // PAIRS_PER_SUBJECT:03d}",
            split,
            min(PAIRS_PER_SUBJECT, count - first),
            cut,
        )
        for split, count in splits.items()
        for first in range(0, count, PAIRS_PER_SUBJECT)
    ]


def _adjacent_slices(
    subject: str, split: str, count: int, cut: Callable[[str], SliceAt]
) -> Iterator[ImagePair]:
    """Yields `count` pairs of slices i and i + 1."""
    slice_at = cut(subject)
    fixed = slice_at(0)
    for index in range(count):
        moving, fixed = fixed, slice_at(index + 1)
        yield ImagePair(f"{subject}-{index:02d}", subject, moving, fixed, split=split)


def _choroid(shape: tuple[int, int], splits: dict[str, int], seed: int) -> list[Partition]:
    """Repeat scans of choroidal vessel beds, with exact landmarks on a lattice."""
    return [
        functools.partial(_choroid_pairs, shape, seed, eye)
        for eye in _eyes("choroid", splits, shape[1], seed)
    ]


def _choroid_pairs(shape: tuple[int, int], seed: int, eye: _EyePairs) -> Iterator[ImagePair]:
    canvas, frame = _canvas_shape(shape), float(min(shape))
    bed, grain = _bed(seed, eye.subject, shape)
    for number, distance in eye.distances:
        rng = keyed_rng(seed, "scan", eye.subject, number)
        motion = _motion(canvas, rng, shape[1])
        motion, moving_landmarks = _scaled_motion(motion, _lattice(shape), shape, distance)
        fixed_landmarks = deformation.carry_points(moving_landmarks, motion)
        scans = []
        for displacement in (motion, np.zeros_like(motion)):
            own = retina.capillaries(canvas, rng, frame)
            flow = retina.replace_flow(grain, own, rng, share=0.25, patch_px=0.05 * frame)
            scan = deformation.warp(bed * (0.8 + 0.35 * flow), displacement)
            scans.append(_scan(_crop(scan, shape), rng))
        yield _scan_pair(eye, number, scans, (moving_landmarks, fixed_landmarks), shape)


def _plexus(shape: tuple[int, int], splits: dict[str, int], seed: int) -> list[Partition]:
    """Repeat scans of superficial plexuses, with exact landmarks at vessel junctions."""
    return [
        functools.partial(_plexus_pairs, shape, seed, eye) for eye in _eyes("scp", splits, shape[1], seed)
    ]


def _plexus_pairs(shape: tuple[int, int], seed: int, eye: _EyePairs) -> Iterator[ImagePair]:
    for number, distance in eye.distances:
        yield plexus_pair(shape, seed, eye.split, number, eye.subject, distance)[0]


def plexus_pair(
    shape: tuple[int, int], seed: int, split: str, number: int, subject: str, distance: float
) -> tuple[ImagePair, np.ndarray]:
    """One pair of the target task, and the displacement v that made its moving image.

    Returns:
        The pair, and v on the moving grid, (height, width, 2), pixels: before noise, moving(y) = fixed(y +
        v(y)).
    """
    eye = _eye(seed, subject, shape)
    rng = keyed_rng(seed, "scan", subject, number)
    motion = _motion(eye.canvas, rng, shape[1])
    motion, moving_landmarks = _scaled_motion(motion, eye.junctions, shape, distance)
    fixed_landmarks = deformation.carry_points(moving_landmarks, motion)
    scans = []
    for displacement in (motion, np.zeros_like(motion)):
        own = retina.capillaries(eye.canvas, rng, eye.frame)
        mesh = retina.replace_flow(eye.mesh, own, rng, share=0.3, patch_px=0.05 * eye.frame)
        image = retina.superficial_plexus(eye.vessels, mesh, eye.distance, eye.faz)
        scans.append(_scan(_crop(deformation.warp(image, displacement), shape), rng))
    of_eye = _EyePairs(split, subject, ())
    pair = _scan_pair(of_eye, number, scans, (moving_landmarks, fixed_landmarks), shape)
    return pair, _crop(motion, shape)


def _scan_pair(
    eye: _EyePairs,
    number: int,
    scans: list[np.ndarray],
    landmarks: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
) -> ImagePair:
    """The pair of two scans and their landmarks; moving first, landmarks given on the canvas."""
    border = np.float32(_border(shape))
    moving, fixed = scans
    moving_landmarks, fixed_landmarks = (points - border for points in landmarks)
    return ImagePair(
        f"{eye.subject}-{number:03d}",
        eye.subject,
        moving,
        fixed,
        moving_landmarks,
        fixed_landmarks,
        split=eye.split,
    )


def _bed(seed: int, subject: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The choroid's vessels and the fine grain over them, shared by all scans of an eye; float32 canvases."""
    rng = keyed_rng(seed, "bed", subject)
    canvas, frame = _canvas_shape(shape), float(min(shape))
    return retina.choroidal_bed(canvas, rng, frame), retina.capillaries(canvas, rng, frame)


class _Eye(NamedTuple):
    """The tissue that all scans of one retina share, on a canvas wider than a scan by a border on each side.

    Attributes:
        canvas: (height, width) of the canvas.
        frame: pixels in a frame.
        vessels, mesh, distance: float32 canvases, see `retina`.
        faz: radius of the avascular zone, frames.
        junctions: float32 (k, 2), (row, column) on the canvas, pixels, the most visible first.
    """

    canvas: tuple[int, int]
    frame: float
    vessels: np.ndarray
    mesh: np.ndarray
    distance: np.ndarray
    faz: float
    junctions: np.ndarray


@functools.lru_cache(maxsize=1)  # Pairs of one eye are made in a row; the vessel tree takes longest.
def _eye(seed: int, subject: str, shape: tuple[int, int]) -> _Eye:
    rng = keyed_rng(seed, "eye", subject)
    canvas, frame = _canvas_shape(shape), float(min(shape))
    middle = (np.array(canvas) - 1) / 2
    origin = middle + 0.04 * frame * rng.uniform(-1, 1, 2)
    height, width = (float(side) for side in (middle + 0.04 * frame) / frame)
    tree = _rich_tree(rng, (height, width))
    return _Eye(
        canvas,
        frame,
        retina.draw_vessels(tree, canvas, frame, tuple(origin)),
        retina.capillaries(canvas, rng, frame),
        retina.foveal_distance(canvas, rng, frame, tuple(origin)),
        tree.faz,
        (tree.junctions * frame + origin).astype(np.float32),
    )


def _rich_tree(rng: np.random.Generator, extent: tuple[float, float]) -> retina.VesselTree:
    """A vessel tree with enough junctions in the middle; after ten trees the one that has most."""
    trees: list[tuple[int, retina.VesselTree]] = []
    while len(trees) < 10 and not (trees and trees[-1][0] >= MOST_LANDMARKS):
        tree = retina.grow_vessels(rng, extent)
        trees.append((int(np.sum(np.all(np.abs(tree.junctions) < 0.38, axis=1))), tree))
    return max(trees, key=lambda counted: counted[0])[1]


def _eyes(prefix: str, splits: dict[str, int], width: int, seed: int) -> Iterator[_EyePairs]:
    """Yields the eyes of a task; the landmark distances of a split depend on its number of pairs."""
    for split, count in splits.items():
        distances = width * scan_distances(count, keyed_rng(seed, "distances", prefix, split))
        for first in range(0, count, PAIRS_PER_EYE):
            numbers = range(first, min(first + PAIRS_PER_EYE, count))
            subject = f"{prefix}-{split}-{first // PAIRS_PER_EYE:03d}"
            yield _EyePairs(split, subject, tuple((number, float(distances[number])) for number in numbers))


def scan_distances(count: int, rng: np.random.Generator) -> np.ndarray:
    """Mean landmark distances of `count` pairs, as shares of the width, in random order.

    They are quantiles of a gamma distribution instead of draws from it, so that every set of more than one
    pair has exactly the paper's mean and standard deviation.

    >>> import numpy as np
    >>> distances = scan_distances(20, np.random.default_rng(0))
    >>> round(400 * float(distances.mean()), 2), round(400 * float(distances.std()), 2)
    (10.07, 3.99)

    Args:
        count: number of pairs.
        rng: source of randomness for the order.

    Returns:
        float64 (count,).
    """
    if count < 2:
        return np.full(count, DISTANCE_MEAN)
    form = (DISTANCE_MEAN / DISTANCE_DEVIATION) ** 2
    quantiles = stats.gamma.ppf((np.arange(count) + 0.5) / count, form)
    standard = (quantiles - quantiles.mean()) / quantiles.std()
    return rng.permutation(DISTANCE_MEAN + DISTANCE_DEVIATION * standard)


def _border(shape: tuple[int, int]) -> int:
    """Width in pixels of the canvas's border around the image, the tissue that a moved scan shows."""
    return int(np.ceil(_BORDER * max(shape)))


def _canvas_shape(shape: tuple[int, int]) -> tuple[int, int]:
    return (shape[0] + 2 * _border(shape), shape[1] + 2 * _border(shape))


def _crop(canvas: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    border = _border(shape)
    return canvas[border : border + shape[0], border : border + shape[1]]


def _motion(canvas: tuple[int, int], rng: np.random.Generator, width: int) -> np.ndarray:
    """Motion of the eye between two scans, not yet scaled to the pair's distance; (*canvas, 2), pixels."""
    mean = DISTANCE_MEAN * width
    return deformation.random_displacement(
        canvas,
        rng,
        rms_px=0.5 * mean,
        smoothness_px=0.15 * width,
        rotation_deg=2.5,
        translation_px=1.2 * mean,
    )


def _lattice(shape: tuple[int, int]) -> np.ndarray:
    """Lattice points, used in place of junctions; float32 (25, 2), (row, column) on the canvas."""
    rows, columns = (np.linspace(0.15, 0.85, 5) * side + _border(shape) for side in shape)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def _scaled_motion(
    motion: np.ndarray, junctions: np.ndarray, shape: tuple[int, int], distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scales the motion to a mean landmark distance of `distance` pixels.

    Returns:
        The displacement without folds, (*canvas, 2), and the moving landmarks, float32 (n, 2), on the canvas.
    """
    while True:
        scaled, points = _scale_to_distance(motion, junctions, shape, distance)
        if deformation.jacobian_determinant(scaled).min() > 0.2:
            return scaled, points
        # The scaled motion folds because it is too uneven: smooth it and scale again.
        motion = ndimage.gaussian_filter(motion, (0.06 * shape[1], 0.06 * shape[1], 0), mode="nearest")


def _scale_to_distance(
    motion: np.ndarray, junctions: np.ndarray, shape: tuple[int, int], distance: float
) -> tuple[np.ndarray, np.ndarray]:
    scale = 1.0
    chosen = np.zeros(0, int)
    for iteration in range(8):
        scaled = scale * motion
        points = deformation.pull_points(junctions, scaled)
        # The junctions inside both images depend on the scale: choose them first, then scale to them.
        if iteration < 4:
            chosen = _landmarks(junctions, points, shape)
        offset = junctions[chosen] - points[chosen]
        scale *= distance / max(float(np.hypot(offset[:, 0], offset[:, 1]).mean()), 1e-3)
    scaled = (scale * motion).astype(np.float32)
    return scaled, deformation.pull_points(junctions[chosen], scaled)


def _landmarks(fixed: np.ndarray, moving: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Indices of the landmarks: the most visible junctions well inside both images and well apart."""
    border, margin = _border(shape), _MARGIN * shape[1]
    upper = np.array(shape) - 1 - margin
    inside = np.ones(len(fixed), bool)
    for points in (fixed - border, moving - border):
        inside &= np.all((points >= margin) & (points <= upper), axis=1)
    chosen: list[int] = []
    for index in np.flatnonzero(inside):
        gaps = np.hypot(*(fixed[chosen] - fixed[index]).T)
        if len(chosen) < MOST_LANDMARKS and np.all(gaps > 0.05 * shape[1]):
            chosen.append(int(index))
    return np.array(chosen, int)


def _scan(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The recorded scan: beam blur, illumination, speckle, noise, and stripes from eye movements."""
    image = ndimage.gaussian_filter(image, _BEAM * min(image.shape))
    stripes = 1.0 + 0.05 * ndimage.gaussian_filter1d(rng.standard_normal(image.shape[0]), 0.6)
    return deformation.perturb(image * stripes[:, None], rng, noise=0.03, speckle=0.08, illumination=0.12)


def _count(flag: str, default: int, pairs: str) -> Option:
    settings = {"type": base.number(int, 0), "default": default, "metavar": "N"}
    return Option(flag, {**settings, "help": f"number of {pairs} (default: {default})"})


@source(
    "embedded",
    summary="six procedural tasks made from a seed: brain MRI, abdomen CT, choroidal and superficial OCTA",
    options=(
        _count("--source-pairs", 200, "training pairs of each source task"),
        _count("--source-test-pairs", 20, "test pairs of each source task"),
        _count("--target-finetune", 294, "fine-tuning pairs of the target task"),
        _count("--target-test", 74, "test pairs of the target task"),
    ),
    image_size=(128, 128),
    needs_input=False,
)
def _requested_tasks(request: Request) -> list[SourceTask]:
    return embedded_tasks(image_size=request.image_size, seed=request.seed, **request.options)
