"""Random scenes: maps of labels, without grey levels, in one of several kinds of geometry.

A scene says what lies where; `appearance` gives it grey levels. All images of a synthetic task show scenes of
one style.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Callable, NamedTuple, Optional

import numpy as np

from tfrecords_builder.deformation import smooth_noise
from tfrecords_builder.phantoms import abdomen, brain, retina
from tfrecords_builder.phantoms.fields import coverage, distance_to_zero, frame_coordinates

# Hounsfield units between the labels of the abdomen: air, lung, fat, fluid, muscle, organs, vessels, bone.
_HOUNSFIELD_STEPS = (-500, -150, -20, 40, 85, 118, 140, 175, 260)
# Brightness between the labels of the choroid.
_CHOROID_STEPS = (0.17, 0.25, 0.33, 0.41)
_MOST_BLOBS = 60


class Scene(NamedTuple):
    """What lies where.

    Attributes:
        labels: uint8 (height, width), 0 outside the body, if there is one, and 1 to `SceneStyle.labels`
            inside.
        threads: float32 (height, width) in [0, 1], share of each pixel that thin tubes cover, with the last
            label; None without tubes.
    """

    labels: np.ndarray
    threads: Optional[np.ndarray]


@dataclasses.dataclass(frozen=True)
class SceneStyle:
    """What the scenes of a task have in common. Lengths in frames, the image's shorter side.

    Attributes:
        kind: a key of `KINDS`.
        labels: number of labels apart from the background.
        scale: size of the structures.
        detail: strength of finer structures relative to the coarse ones.
        bend: how far noise bends layers and sheets.
        angle: direction of layers and sheets, radians.
        thread: radius of thin tubes that cross the scene; 0 for none.
        body: half axes of the body's outline; None where the scene fills the image.
        shell: thickness of a shell around the body; 0 for none.
    """

    kind: str
    labels: int
    scale: float
    detail: float
    bend: float
    angle: float
    thread: float
    body: Optional[tuple[float, float]]
    shell: float


def random_style(rng: np.random.Generator, *, least_labels: int = 2) -> SceneStyle:
    """Draws what the scenes of a task have in common.

    >>> random_style(np.random.default_rng(0)).kind in KINDS
    True

    Args:
        rng: source of randomness.
        least_labels: least number of labels apart from the background, at most 8.
    """
    kind = str(rng.choice(list(KINDS), p=[kind.share for kind in KINDS.values()]))
    labels = KINDS[kind].labels or int(rng.integers(max(least_labels, KINDS[kind].fewest), 9))
    outlined = KINDS[kind].fills_image and rng.uniform() < 0.4
    threaded = kind == "tubes" or (KINDS[kind].fills_image and rng.uniform() < 0.25)
    return SceneStyle(
        kind=kind,
        labels=labels,
        scale=float(np.exp(rng.uniform(math.log(0.035), math.log(0.16)))),
        detail=float(rng.choice([0.0, rng.uniform(0.1, 0.5)])),
        bend=float(rng.uniform(0.02, 0.12)),
        angle=float(rng.uniform(0, math.pi)),
        thread=float(rng.uniform(0.004, 0.016)) if threaded else 0.0,
        body=(float(rng.uniform(0.32, 0.46)), float(rng.uniform(0.32, 0.46))) if outlined else None,
        shell=float(rng.uniform(0.01, 0.05)) if outlined and rng.uniform() < 0.5 else 0.0,
    )


def draw_scene(style: SceneStyle, rng: np.random.Generator, shape: tuple[int, int], border: int) -> Scene:
    """Draws a scene.

    >>> rng = np.random.default_rng(0)
    >>> draw_scene(random_style(rng), rng, (64, 64), border=10).labels.shape
    (84, 84)

    Args:
        style: of the task's scenes.
        rng: source of randomness.
        shape: (height, width) of the image.
        border: pixels of the scene beyond each side of the image, which a motion moves into it.
    """
    canvas, frame = (shape[0] + 2 * border, shape[1] + 2 * border), float(min(shape))
    kind = KINDS[style.kind]
    if not kind.fills_image:
        labels = np.pad(kind.draw(style, rng, shape, frame), border)
        return Scene(labels.astype(np.uint8), None)
    labels = 1 + kind.draw(style, rng, canvas, frame)
    threads = _threads(style, rng, canvas, frame) if style.thread else None
    if style.body is not None:
        depth = _depth(style.body, rng, canvas, frame)
        labels[depth < style.shell] = style.labels
        labels[depth < 0] = 0
        if threads is not None:
            threads = threads * (depth > style.shell)
    return Scene(labels.astype(np.uint8), threads)


def _depth(
    half_axes: tuple[float, float], rng: np.random.Generator, canvas: tuple[int, int], frame: float
) -> np.ndarray:
    """Depth below the outline of a body, frames: an ellipse with a bumpy edge, near the middle."""
    down, right = (axis * min(canvas) / frame for axis in frame_coordinates(canvas))
    middle = rng.uniform(-0.03, 0.03, 2)
    size = rng.uniform(0.9, 1.05)
    bumps = 0.10 * smooth_noise(canvas, rng, smoothness_px=0.15 * frame)
    radius = np.hypot((down - middle[0]) / half_axes[0], (right - middle[1]) / half_axes[1])
    return (size * (1 + bumps) - radius) * min(half_axes)


def _threads(
    style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float
) -> np.ndarray:
    """Thin tubes along the zeros of smooth noise, wide ones over narrow ones."""
    covered = np.zeros(canvas, np.float32)
    for size in (1.0, 0.5):
        field = smooth_noise(canvas, rng, smoothness_px=max(2.0, size * 1.5 * style.scale * frame))
        width = size * style.thread * np.exp(0.4 * smooth_noise(canvas, rng, smoothness_px=0.15 * frame))
        line = coverage(width - distance_to_zero(field, 1 / frame), 1 / frame)
        gaps = np.clip(1.5 + 2 * smooth_noise(canvas, rng, smoothness_px=0.1 * frame), 0, 1)
        covered = np.maximum(covered, line * gaps)
    return covered.astype(np.float32)


def _mixed_noise(
    style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float
) -> np.ndarray:
    """Noise of the style's scale, with finer detail."""
    noise = smooth_noise(canvas, rng, smoothness_px=max(1.5, style.scale * frame))
    if style.detail:
        fine = smooth_noise(canvas, rng, smoothness_px=max(1.0, 0.3 * style.scale * frame))
        noise += style.detail * fine
    return noise


def _regions(
    style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float
) -> np.ndarray:
    """The label whose noise is strongest: rounded regions that meet in triple points."""
    return np.argmax([_mixed_noise(style, rng, canvas, frame) for _ in range(style.labels)], axis=0)


def _tubes(style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float) -> np.ndarray:
    """Wide regions of all but the last label, which is that of the threads across them."""
    wide = dataclasses.replace(style, labels=style.labels - 1, scale=2.5 * style.scale)
    return _regions(wide, rng, canvas, frame)


def _texture(
    style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float
) -> np.ndarray:
    """Bands between equally frequent values of one noise: nested contours without objects."""
    noise = _mixed_noise(dataclasses.replace(style, scale=0.7 * style.scale), rng, canvas, frame)
    return np.digitize(noise, np.quantile(noise, np.arange(1, style.labels) / style.labels))


def _blobs(style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float) -> np.ndarray:
    """Ellipses, some with a nucleus of another label, on a ground of label 0."""
    labels = np.zeros(canvas, int)
    mean = 0.6 * style.scale * frame
    count = min(_MOST_BLOBS, int(rng.uniform(0.3, 0.9) * labels.size / (math.pi * mean**2)) + 3)
    for centre in rng.uniform(0, 1, (count, 2)) * canvas:
        radii = np.maximum(1.2, mean * np.exp(0.35 * rng.standard_normal(2)))
        angle, label = rng.uniform(0, math.pi), int(rng.integers(1, style.labels))
        _paint_ellipse(labels, centre, radii, angle, label)
        if style.detail and style.labels > 2:
            _paint_ellipse(labels, centre, 0.45 * radii, angle, 1 + label % (style.labels - 1))
    return labels


def _paint_ellipse(
    labels: np.ndarray, centre: np.ndarray, radii: np.ndarray, angle: float, label: int
) -> None:
    """Sets the pixels of an ellipse; centre and half axes in pixels."""
    reach = math.ceil(radii.max())
    low = np.maximum(0, centre.astype(int) - reach)
    high = np.minimum(labels.shape, centre.astype(int) + reach + 2)
    rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
    down, right = rows - centre[0], columns - centre[1]
    along = (math.cos(angle) * down + math.sin(angle) * right) / radii[0]
    across = (math.cos(angle) * right - math.sin(angle) * down) / radii[1]
    labels[low[0] : high[0], low[1] : high[1]][along**2 + across**2 < 1] = label


def _height(style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float) -> np.ndarray:
    """Coordinate across layers, bent by noise; frames."""
    rows, columns = np.indices(canvas, dtype=np.float32)
    angle = style.angle + rng.normal(0, 0.1)
    straight = (math.sin(angle) * rows + math.cos(angle) * columns) / frame
    coarse = smooth_noise(canvas, rng, smoothness_px=0.2 * frame)
    fine = smooth_noise(canvas, rng, smoothness_px=max(1.5, 0.5 * style.scale * frame))
    return straight + style.bend * coarse + 0.15 * style.detail * style.scale * fine


def _layers(style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float) -> np.ndarray:
    """Layers of unequal thickness across the image, as in a section through skin or retina."""
    height = _height(style, rng, canvas, frame)
    low, high = np.quantile(height, [0.02, 0.98])
    count = max(style.labels, int(rng.uniform(0.6, 1.4) * (high - low) / style.scale))
    order = rng.permutation(np.arange(count + 1) % style.labels)
    return order[np.digitize(height, np.sort(rng.uniform(low, high, count)))]


def _sheets(style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float) -> np.ndarray:
    """Parallel sheets at a nearly constant distance, as in muscle or folded membranes."""
    phase = _height(style, rng, canvas, frame) / (1.5 * style.scale)
    return np.floor(style.labels * (phase - np.floor(phase))).astype(int) % style.labels


def _brain(style: SceneStyle, rng: np.random.Generator, shape: tuple[int, int], frame: float) -> np.ndarray:
    """Tissues of a random slice of a head."""
    subject = str(rng.integers(2**31))
    head = brain.random_head(int(rng.integers(2**31)), subject)
    fractions = brain.tissue_fractions(head, int(rng.integers(0, 10)), shape)
    outside = 1 - fractions.sum(axis=0, keepdims=True)
    return np.argmax(np.concatenate([outside, fractions]), axis=0)


def _abdomen(style: SceneStyle, rng: np.random.Generator, shape: tuple[int, int], frame: float) -> np.ndarray:
    """Tissues of a random slice of a trunk, told apart by their Hounsfield units."""
    trunk = abdomen.random_trunk(int(rng.integers(2**31)), str(rng.integers(2**31)))
    hounsfield, _ = abdomen.anatomy(trunk, int(rng.integers(0, 12)), shape)
    return np.digitize(hounsfield, _HOUNSFIELD_STEPS)


def _choroid(
    style: SceneStyle, rng: np.random.Generator, canvas: tuple[int, int], frame: float
) -> np.ndarray:
    """Thick vessels that cross in several layers."""
    return np.digitize(retina.choroidal_bed(canvas, rng, frame), _CHOROID_STEPS)


Draw = Callable[[SceneStyle, np.random.Generator, tuple[int, int], float], np.ndarray]


class Kind(NamedTuple):
    """A kind of geometry.

    Attributes:
        draw: function (style, rng, (height, width), pixels in a frame) to the labels of the pixels from 0.
        share: share of the tasks.
        fills_image: whether it continues beyond the image's border; else label 0 is the background around a
            body inside the image.
        fewest: least number of labels.
        labels: number of labels where it is fixed, else 0.
    """

    draw: Draw
    share: float
    fills_image: bool = True
    fewest: int = 2
    labels: int = 0


KINDS: dict[str, Kind] = {
    "regions": Kind(_regions, 0.24),
    "blobs": Kind(_blobs, 0.14),
    "tubes": Kind(_tubes, 0.18, fewest=3),
    "layers": Kind(_layers, 0.12),
    "sheets": Kind(_sheets, 0.07),
    "texture": Kind(_texture, 0.09),
    "brain": Kind(_brain, 0.06, fills_image=False, labels=len(brain.TISSUES)),
    "abdomen": Kind(_abdomen, 0.06, fills_image=False, labels=len(_HOUNSFIELD_STEPS)),
    "choroid": Kind(_choroid, 0.04, labels=len(_CHOROID_STEPS) + 1),
}
