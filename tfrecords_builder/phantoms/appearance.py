"""Random appearance: grey levels of a scene's labels, and the scanner that records them."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfrecords_builder.deformation import smooth_noise
from tfrecords_builder.phantoms.fields import frame_coordinates
from tfrecords_builder.phantoms.scenes import Scene

# Grey levels of the background, and the share of the tasks that have it.
_BACKGROUNDS = (("black", 0.5), ("white", 0.25), ("grey", 0.25))
VIEWS = (("full", 0.6), ("circle", 0.12), ("fan", 0.08), ("frame", 0.2))


class Palette(NamedTuple):
    """Contrast of a scene, by label from 0, the background.

    Attributes:
        greys: (labels + 1,), about 0 to 1.
        mottle: (labels + 1,), standard deviation of the tissue's own variation, which moves with it.
    """

    greys: np.ndarray
    mottle: np.ndarray


def random_palette(rng: np.random.Generator, labels: int) -> Palette:
    """Draws the contrast of scenes with so many labels apart from the background.

    >>> random_palette(np.random.default_rng(0), 3).greys.shape
    (4,)
    """
    # Evenly spread levels with jitter: no two tissues are likely to be alike, as with independent draws.
    steps = rng.permutation(labels) + rng.uniform(0.15, 0.85, labels)
    name = str(rng.choice([name for name, _ in _BACKGROUNDS], p=[share for _, share in _BACKGROUNDS]))
    background = {"black": 0.0, "white": 1.0, "grey": rng.uniform(0.2, 0.8)}[name]
    greys = np.concatenate([[background], 0.08 + 0.84 * steps / labels])
    mottle = rng.choice([0.0, 0.03, 0.08], p=[0.3, 0.4, 0.3]) * rng.uniform(0, 1, labels + 1)
    mottle[0] = 0.0
    return Palette(greys.astype(np.float32), mottle.astype(np.float32))


def other_palette(palette: Palette, rng: np.random.Generator) -> Palette:
    """Draws another contrast of the same scenes, whose grey levels do not follow those of `palette`.

    The grey levels of four labels or more correlate with those of `palette` by at most 0.5 either way.
    """
    labels = len(palette.greys) - 1
    while True:
        other = random_palette(rng, labels)
        if labels < 4 or abs(np.corrcoef(other.greys[1:], palette.greys[1:])[0, 1]) <= 0.5:
            return other


@dataclasses.dataclass(frozen=True)
class Scanner:
    """How the images of a task are recorded. Lengths in frames, the image's shorter side.

    Attributes:
        blur: standard deviation of the blur.
        bias: relative standard deviation of a smooth gain.
        bias_scale: its smoothness.
        gamma: largest natural logarithm of the exponent of the grey levels, drawn for each image.
        noise: standard deviation of additive noise.
        grain: smoothness of that noise, pixels; 0 for white noise.
        speckle: relative standard deviation of multiplicative noise.
        quiet: whether the background outside the body stays free of noise.
        view: shape of the field of view: "full", "circle", "fan" or "frame" (dark margins).
        extent: its size.
        outside: grey level outside the field of view.
    """

    blur: float
    bias: float
    bias_scale: float
    gamma: float
    noise: float
    grain: float
    speckle: float
    quiet: bool
    view: str
    extent: float
    outside: float


def random_scanner(rng: np.random.Generator) -> Scanner:
    """Draws how the images of a task are recorded.

    >>> random_scanner(np.random.default_rng(0)).view in dict(VIEWS)
    True
    """
    return Scanner(
        blur=float(rng.uniform(0.003, 0.012)),
        bias=float(rng.choice([0.0, 1.0], p=[0.3, 0.7]) * rng.uniform(0.05, 0.3)),
        bias_scale=float(rng.uniform(0.25, 0.6)),
        gamma=float(rng.uniform(0, 0.3)),
        noise=float(np.exp(rng.uniform(math.log(0.005), math.log(0.05)))),
        grain=float(rng.choice([0.0, rng.uniform(0.7, 1.5)])),
        speckle=float(rng.choice([0.0, rng.uniform(0.05, 0.2)], p=[0.6, 0.4])),
        quiet=bool(rng.uniform() < 0.5),
        view=str(rng.choice([name for name, _ in VIEWS], p=[share for _, share in VIEWS])),
        extent=float(rng.uniform()),
        outside=float(rng.choice([0.0, 1.0], p=[0.85, 0.15])),
    )


def noise_free(scanner: Scanner) -> Scanner:
    """The scanner with the same blur and field of view, but without noise and without uneven gain."""
    return dataclasses.replace(scanner, bias=0.0, gamma=0.0, noise=0.0, speckle=0.0)


def paint(scene: Scene, palette: Palette, mottle: np.ndarray) -> np.ndarray:
    """The scene in a contrast, sharp and without noise; float32 (height, width) of the scene.

    Args:
        scene: what lies where.
        palette: contrast.
        mottle: (height, width) of the scene, noise of unit standard deviation that varies the tissues.
    """
    image = palette.greys[scene.labels] + palette.mottle[scene.labels] * mottle
    if scene.threads is not None:
        image += scene.threads * (palette.greys[-1] - image)
    return image


def record(
    image: np.ndarray, scanner: Scanner, rng: np.random.Generator, outside: np.ndarray, view: np.ndarray
) -> np.ndarray:
    """The recorded image, float32 (height, width), in [0, 1].

    Args:
        image: (height, width), noise-free grey levels.
        scanner: of the task.
        rng: source of randomness, for this image alone.
        outside: (height, width), share of each pixel outside the body.
        view: float (height, width), share of each pixel inside the field of view.
    """
    shape, frame = image.shape, min(image.shape)
    seen = np.clip(ndimage.gaussian_filter(image, scanner.blur * frame), 0, 1)
    lit = seen ** math.exp(scanner.gamma * rng.uniform(-1, 1))
    if scanner.bias:
        lit *= np.exp(scanner.bias * smooth_noise(shape, rng, smoothness_px=scanner.bias_scale * frame))
    noise = scanner.speckle * lit * _noise(rng, shape, scanner.grain)
    noise += scanner.noise * _noise(rng, shape, scanner.grain)
    noisy = lit + (noise * (1 - outside) if scanner.quiet else noise)
    return np.clip(scanner.outside + view * (noisy - scanner.outside), 0, 1).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> np.ndarray:
    """Noise of unit standard deviation; white where `grain`, its smoothness in pixels, is 0."""
    if grain:
        return smooth_noise(shape, rng, smoothness_px=grain)
    return rng.standard_normal(shape, np.float32)


def field_of_view(scanner: Scanner, shape: tuple[int, int]) -> np.ndarray:
    """Share of each pixel inside the field of view, float (height, width); it does not move with a scene."""
    down, right = frame_coordinates(shape)
    pixel, extent = 1 / min(shape), scanner.extent
    if scanner.view == "circle":
        inside = 0.40 + 0.16 * extent - np.hypot(down, right)
    elif scanner.view == "fan":
        # The apex lies above the image, as that of a curved ultrasound probe.
        apex = 0.60 + 0.15 * extent
        angle = np.arctan2(np.abs(right), down + apex)
        radius = np.hypot(down + apex, right)
        inside = np.minimum.reduce([1.05 - radius + 0.1 * extent, radius - 0.18, radius * (0.65 - angle)])
    elif scanner.view == "frame":
        height, width = (side / min(shape) / 2 for side in shape)
        margin = 0.02 + 0.08 * extent
        inside = np.minimum(height - margin - np.abs(down), width - margin - np.abs(right))
    else:
        return np.ones(shape, np.float32)
    return np.clip(0.5 + inside / pixel, 0, 1)
