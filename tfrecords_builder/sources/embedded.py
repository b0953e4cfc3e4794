"""The embedded data: six procedural registration tasks, made from a seed, without any download.

They stand in for the tasks of Park et al. (2021): five source tasks and superficial OCTA as the target. Brain
and abdomen pairs are adjacent slices of one 3D phantom; retinal pairs are repeat scans of one eye. Every pair
follows from (seed, task, split, its index) alone, whatever the order in which pairs are made; only how far
the two scans of a retina are apart depends on the number of pairs in the split too.
"""

from __future__ import annotations

import functools
import math
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
from tfrecords_builder.sources.base import Lazy, Option, Part, Request, SourceTask, source

# The paper's landmark distance before registration, 10.07 +- 3.99 px of 400, as shares of the width.
DISTANCE_MEAN, DISTANCE_DEVIATION = 10.07 / 400, 3.99 / 400
MOST_LANDMARKS = 30
PAIRS_PER_SUBJECT = 10
PAIRS_PER_EYE = 2
_MARGIN = 0.04
# Standard deviation of the beam, as a share of the width: with it, images decorrelate over one pixel of 128
# as real scans do.
_BEAM = 0.0055
_BORDER = 0.10

SliceAt = Callable[[int], np.ndarray]


class _Scans(NamedTuple):
    """The pairs of one eye: its split and name, each pair's number and mean distance in pixels."""

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
    share: float = 1.0,
    seed: int = 0,
) -> list[SourceTask]:
    """The six tasks; images are made as their pairs are iterated.

    Args:
        image_size: (height, width) in pixels; anatomy scales with the shorter side, distances with the width.
        source_pairs, source_test_pairs: pairs in the "train" and the "test" split of each source task.
        target_finetune, target_test: pairs in the "finetune" and the "test" split of the target task.
        share: of these numbers that is made, rounded up.
        seed: of everything random, not negative.

    Returns:
        brain_t1w, brain_t1gd, brain_t2w, abdomen_ct, octa_choroid (sources) and octa_scp (target). Landmarks
        are on a lattice in octa_choroid, at vessel junctions in octa_scp; the others have none. Images are
        float32 in about [0, 1], for CT in Hounsfield units.
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
    for name, role, modality, whole, make in makers:
        splits = {split: math.ceil(share * count) for split, count in whole.items()}
        pairs = Lazy(make(tuple(image_size), splits, seed), sum(splits.values()))
        tasks.append(SourceTask(name, role, modality, pairs))
    return tasks


def _brain(shape: tuple[int, int], splits: dict[str, int], seed: int, contrast: str) -> list[Part]:
    """Adjacent slices of skull-stripped heads; the three contrasts show the same heads."""
    return _subjects("brain", splits, functools.partial(_head_slices, seed, contrast, shape))


def _head_slices(seed: int, contrast: str, shape: tuple[int, int], subject: str) -> SliceAt:
    head = brain.random_head(seed, subject)
    return lambda index: brain.brain_slice(seed, subject, head, index, contrast, shape)


def _abdomen(shape: tuple[int, int], splits: dict[str, int], seed: int) -> list[Part]:
    """Adjacent slices of abdomens, Hounsfield units."""
    return _subjects("abdomen", splits, functools.partial(_trunk_slices, seed, shape))


def _trunk_slices(seed: int, shape: tuple[int, int], subject: str) -> SliceAt:
    trunk = abdomen.random_trunk(seed, subject)
    return lambda index: abdomen.abdomen_slice(seed, subject, trunk, index, shape)


def _subjects(prefix: str, splits: dict[str, int], cut: Callable[[str], SliceAt]) -> list[Part]:
    """A part for each subject, of `PAIRS_PER_SUBJECT` pairs or what is left of the split's count."""
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
    """`count` pairs of slices i and i + 1."""
    slice_at = cut(subject)
    fixed = slice_at(0)
    for index in range(count):
        moving, fixed = fixed, slice_at(index + 1)
        yield ImagePair(f"{subject}-{index:02d}", subject, moving, fixed, split=split)


def _choroid(shape: tuple[int, int], splits: dict[str, int], seed: int) -> list[Part]:
    """Repeat scans of choroidal vessel beds, with exact landmarks on a lattice."""
    return [
        functools.partial(_choroid_pairs, shape, seed, eye)
        for eye in _eyes("choroid", splits, shape[1], seed)
    ]


def _choroid_pairs(shape: tuple[int, int], seed: int, eye: _Scans) -> Iterator[ImagePair]:
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


def _plexus(shape: tuple[int, int], splits: dict[str, int], seed: int) -> list[Part]:
    """Repeat scans of superficial plexuses, with exact landmarks at vessel junctions."""
    return [
        functools.partial(_plexus_pairs, shape, seed, eye) for eye in _eyes("scp", splits, shape[1], seed)
    ]


def _plexus_pairs(shape: tuple[int, int], seed: int, eye: _Scans) -> Iterator[ImagePair]:
    for number, distance in eye.distances:
        yield plexus_pair(shape, seed, eye.split, number, eye.subject, distance)[0]


def plexus_pair(
    shape: tuple[int, int], seed: int, split: str, number: int, subject: str, distance: float
) -> tuple[ImagePair, np.ndarray]:
    """One pair of the target task, and the displacement v (height, width, 2) that made its moving image.

    `v` lives on the moving grid: before noise, moving(y) = fixed(y + v(y)).
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
    of_eye = _Scans(split, subject, ())
    pair = _scan_pair(of_eye, number, scans, (moving_landmarks, fixed_landmarks), shape)
    return pair, _crop(motion, shape)


def _scan_pair(
    eye: _Scans,
    number: int,
    scans: list[np.ndarray],
    landmarks: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
) -> ImagePair:
    """The pair of two scans, with their landmarks, those of the moving one first, on the canvas."""
    border = np.float32(_border(shape))
    own = [points - border for points in landmarks]
    return ImagePair(f"{eye.subject}-{number:03d}", eye.subject, *scans, *own, split=eye.split)


def _bed(seed: int, subject: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The choroid's vessels and the fine grain over them, shared by all scans of an eye; float32 canvases."""
    rng = keyed_rng(seed, "bed", subject)
    canvas, frame = _canvas_shape(shape), float(min(shape))
    return retina.choroidal_bed(canvas, rng, frame), retina.capillaries(canvas, rng, frame)


class _Eye(NamedTuple):
    """What all scans of one retina share, on a canvas wider than a scan by a border on each side.

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


@functools.lru_cache(maxsize=1)  # The pairs of an eye follow one another, and a tree takes longest to make.
def _eye(seed: int, subject: str, shape: tuple[int, int]) -> _Eye:
    rng = keyed_rng(seed, "eye", subject)
    canvas, frame = _canvas_shape(shape), float(min(shape))
    middle = (np.array(canvas) - 1) / 2
    origin = middle + 0.04 * frame * rng.uniform(-1, 1, 2)
    extent = tuple(float(side) for side in (middle + 0.04 * frame) / frame)
    tree = _rich_tree(rng, extent)
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
    """A vessel tree with junctions to spare in the middle; the richest of ten where none has enough."""
    best, most = None, -1
    for _ in range(10):
        tree = retina.grow_vessels(rng, extent)
        central = int(np.sum(np.all(np.abs(tree.junctions) < 0.38, axis=1)))
        if central > most:
            best, most = tree, central
        if most >= MOST_LANDMARKS:
            break
    return best


def _eyes(prefix: str, splits: dict[str, int], width: int, seed: int) -> Iterator[_Scans]:
    """The eyes of a task; the distances of a split follow from its count."""
    for split, count in splits.items():
        distances = width * scan_distances(count, keyed_rng(seed, "distances", prefix, split))
        for first in range(0, count, PAIRS_PER_EYE):
            numbers = range(first, min(first + PAIRS_PER_EYE, count))
            subject = f"{prefix}-{split}-{first // PAIRS_PER_EYE:03d}"
            yield _Scans(split, subject, tuple((number, float(distances[number])) for number in numbers))


def scan_distances(count: int, rng: np.random.Generator) -> np.ndarray:
    """Mean landmark distance of each of `count` pairs, as a share of the width, (count,), in random order.

    Quantiles of a gamma distribution, not draws from one: the paper's mean and standard deviation then hold
    exactly in a set of any size above one.
    """
    if count < 2:
        return np.full(count, DISTANCE_MEAN)
    form = (DISTANCE_MEAN / DISTANCE_DEVIATION) ** 2
    quantiles = stats.gamma.ppf((np.arange(count) + 0.5) / count, form)
    standard = (quantiles - quantiles.mean()) / quantiles.std()
    return rng.permutation(DISTANCE_MEAN + DISTANCE_DEVIATION * standard)


def _border(shape: tuple[int, int]) -> int:
    """Pixels by which a canvas reaches past the image on each side: a moved scan sees new tissue there."""
    return int(np.ceil(_BORDER * max(shape)))


def _canvas_shape(shape: tuple[int, int]) -> tuple[int, int]:
    return (shape[0] + 2 * _border(shape), shape[1] + 2 * _border(shape))


def _crop(canvas: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    border = _border(shape)
    return canvas[border : border + shape[0], border : border + shape[1]]


def _motion(canvas: tuple[int, int], rng: np.random.Generator, width: int) -> np.ndarray:
    """How the eye moved between two scans, before scaling to the pair's distance; (canvas, 2), pixels."""
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
    """Places over the image in lieu of junctions, float32 (25, 2), (row, column) on the canvas."""
    rows, columns = (np.linspace(0.15, 0.85, 5) * side + _border(shape) for side in shape)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def _scaled_motion(
    motion: np.ndarray, junctions: np.ndarray, shape: tuple[int, int], distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scales the motion so that its landmarks are `distance` pixels apart on average.

    Returns:
        The displacement, fold-free, (canvas, 2), and the moving landmarks, float32 (n, 2), on the canvas.
    """
    while True:
        scaled, points = _scale_to_distance(motion, junctions, shape, distance)
        if deformation.jacobian_determinant(scaled).min() > 0.2:
            return scaled, points
        # A motion that folds at this distance is too uneven: smooth it, and scale again.
        motion = ndimage.gaussian_filter(motion, (0.06 * shape[1], 0.06 * shape[1], 0), mode="nearest")


def _scale_to_distance(
    motion: np.ndarray, junctions: np.ndarray, shape: tuple[int, int], distance: float
) -> tuple[np.ndarray, np.ndarray]:
    scale, chosen = 1.0, None
    for iteration in range(8):
        scaled = scale * motion
        points = deformation.pull_points(junctions, scaled)
        # Which junctions lie inside depends on the scale: settle that first, the scale after.
        if iteration < 4 or chosen is None:
            chosen = _landmarks(junctions, points, shape)
        offset = junctions[chosen] - points[chosen]
        scale *= distance / max(float(np.hypot(offset[:, 0], offset[:, 1]).mean()), 1e-3)
    scaled = (scale * motion).astype(np.float32)
    return scaled, deformation.pull_points(junctions[chosen], scaled)


def _landmarks(fixed: np.ndarray, moving: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Indices of the landmarks: the most visible junctions well inside both images, apart from each other."""
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
    """One scan as recorded: the beam's width, illumination, speckle, noise, stripes of eye movements."""
    image = ndimage.gaussian_filter(image, _BEAM * min(image.shape))
    stripes = 1.0 + 0.05 * ndimage.gaussian_filter1d(rng.standard_normal(image.shape[0]), 0.6)
    return deformation.perturb(image * stripes[:, None], rng, noise=0.03, speckle=0.08, illumination=0.12)


def _count(flag: str, default: int, what: str) -> Option:
    settings = {"type": base.number(int, 0), "default": default, "metavar": "N"}
    return Option(flag, {**settings, "help": f"{what} (default: {default})"})


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
