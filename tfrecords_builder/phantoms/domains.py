"""Random imaging domains: what is seen, how it looks, how it moves; and the pairs of images of a domain."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Optional

import numpy as np
from scipy import ndimage

from tfrecords_builder.deformation import pull_points, smooth_noise
from tfrecords_builder.phantoms.appearance import (
    Palette,
    Scanner,
    field_of_view,
    noise_free,
    other_palette,
    paint,
    random_palette,
    random_scanner,
    record,
)
from tfrecords_builder.phantoms.fields import keyed_rng
from tfrecords_builder.phantoms.motion import Motion, draw_displacement, random_motion
from tfrecords_builder.phantoms.scenes import Scene, SceneStyle, draw_scene, random_style

# Share of the domains that show moving and fixed in different contrasts.
CONTRAST_SHARE = 0.25
# Width of the scene beyond the image, in frames: what a motion brings into the image.
_BORDER = 0.2
# Landmarks: nodes per axis of the lattice, and least distance from the image's border in frames.
_LATTICE, _MARGIN = 7, 0.06


@dataclasses.dataclass(frozen=True)
class Domain:
    """A random imaging domain.

    Attributes:
        style: geometry of its scenes.
        motion: between the two images of a pair.
        scanner: how both are recorded.
        moving, fixed: contrasts of the two images; one and the same unless `two_contrasts`.
        mottle: smoothness of the tissues' own variation, frames.
        shared_mottle: whether both images show the same variation.
        drift: standard deviation of the change of a label's grey level from image to image.
        lesions: share of the pairs that show a lesion in one image only.
    """

    style: SceneStyle
    motion: Motion
    scanner: Scanner
    moving: Palette
    fixed: Palette
    mottle: float
    shared_mottle: bool
    drift: float
    lesions: float

    @property
    def two_contrasts(self) -> bool:
        """Whether moving and fixed images show the scene in different contrasts."""
        return self.moving is not self.fixed


class DomainPair(NamedTuple):
    """A pair of a domain.

    Attributes:
        moving, fixed: float32 (height, width) in [0, 1].
        moving_like_fixed: the moving image in the contrast of the fixed one and without noise, where the
            domain has two contrasts.
        displacement: float32 (height, width, 2), pixels, (row, column): the point y of `moving` is the point
            y + displacement(y) of `fixed`.
        content: bool (height, width), where `fixed` shows the body inside the field of view.
    """

    moving: np.ndarray
    fixed: np.ndarray
    moving_like_fixed: Optional[np.ndarray]
    displacement: np.ndarray
    content: np.ndarray


def random_domain(seed: int, number: int) -> Domain:
    """The domain with a number; it depends on nothing else.

    >>> random_domain(0, 7).style == random_domain(0, 7).style
    True

    Args:
        seed: seed of the data set, at least 0.
        number: at least 0.
    """
    rng = keyed_rng(seed, "domain", number)
    two_contrasts = rng.uniform() < CONTRAST_SHARE
    style = random_style(rng, least_labels=4 if two_contrasts else 2)
    fixed = random_palette(rng, style.labels)
    return Domain(
        style=style,
        motion=random_motion(rng),
        scanner=random_scanner(rng),
        moving=other_palette(fixed, rng) if two_contrasts else fixed,
        fixed=fixed,
        mottle=float(np.exp(rng.uniform(math.log(0.008), math.log(0.06)))),
        shared_mottle=bool(rng.uniform() < 0.7),
        drift=float(rng.choice([0.0, rng.uniform(0.01, 0.05)])),
        lesions=float(rng.choice([0.0, 0.5], p=[0.85, 0.15])),
    )


def draw_pair(domain: Domain, rng: np.random.Generator, shape: tuple[int, int]) -> DomainPair:
    """Draws a scene of the domain, moves it, and records it before and after.

    >>> draw_pair(random_domain(0, 3), np.random.default_rng(1), (64, 64)).moving.shape
    (64, 64)

    Args:
        domain: of the task.
        rng: source of randomness.
        shape: (height, width) of the images.
    """
    border = math.ceil(_BORDER * max(shape))
    scene = draw_scene(domain.style, rng, shape, border)
    displacement = draw_displacement(domain.motion, rng, shape)
    scenes = _with_lesion(scene, domain, rng, min(shape))
    mottles = _mottles(domain, rng, scene.labels.shape, min(shape))
    view = field_of_view(domain.scanner, shape)
    background = (scene.labels == 0).astype(np.float32)
    outside = [_cropped(background, border)] * 2
    if background.any():
        outside[0] = _moved(background, displacement, order=1)

    def scan(index: int, palette: Palette, mottle: np.ndarray, scanner: Scanner) -> np.ndarray:
        image = paint(scenes[index], palette, mottle)
        image = _cropped(image, border) if index else _moved(image, displacement, order=3)
        # Cubic interpolation rings beside the outline, which shows on an even background.
        image = np.where(outside[index] < 1, image, palette.greys[0])
        return record(image, scanner, rng, outside[index], view)

    moving = scan(0, _drifted(domain.moving, domain.drift, rng), mottles[0], domain.scanner)
    fixed = scan(1, _drifted(domain.fixed, domain.drift, rng), mottles[1], domain.scanner)
    like_fixed = None
    if domain.two_contrasts:
        like_fixed = scan(0, domain.fixed, mottles[1], noise_free(domain.scanner))
    return DomainPair(moving, fixed, like_fixed, displacement, (outside[1] < 0.5) & (view > 0.5))


def _mottles(
    domain: Domain, rng: np.random.Generator, canvas: tuple[int, ...], frame: int
) -> list[np.ndarray]:
    """The tissues' own variation in the moving and in the fixed image, (height, width) of the canvas."""
    smoothness = max(0.8, domain.mottle * frame)
    first = smooth_noise(canvas, rng, smoothness_px=smoothness)
    return [first, first if domain.shared_mottle else smooth_noise(canvas, rng, smoothness_px=smoothness)]


def _cropped(canvas: np.ndarray, border: int) -> np.ndarray:
    return canvas[border:-border, border:-border]


def _moved(canvas: np.ndarray, displacement: np.ndarray, *, order: int) -> np.ndarray:
    """The middle of a canvas, `canvas(y + displacement(y))`, with interpolation of an order.

    The displacement need only cover the image, which takes a third of the time of one for the canvas.
    """
    border = (np.array(canvas.shape) - displacement.shape[:2]) // 2
    where = np.indices(displacement.shape[:2], dtype=np.float64) + border[:, None, None]
    where += np.moveaxis(displacement, -1, 0)
    return ndimage.map_coordinates(canvas, where, order=order, mode="nearest", output=np.float32)


def _drifted(palette: Palette, drift: float, rng: np.random.Generator) -> Palette:
    """The palette of one image: all grey levels but the background's change a little."""
    change = drift * rng.standard_normal(len(palette.greys)).astype(np.float32)
    change[0] = 0
    return palette._replace(greys=palette.greys + change)


def _with_lesion(scene: Scene, domain: Domain, rng: np.random.Generator, frame: int) -> tuple[Scene, Scene]:
    """The scene as the moving and as the fixed image show it: in some pairs one of them has a lesion."""
    if rng.uniform() >= domain.lesions:
        return scene, scene
    canvas = scene.labels.shape
    centre, radius = rng.uniform(0.3, 0.7, 2) * canvas, rng.uniform(0.04, 0.1) * frame
    rows, columns = np.indices(canvas, dtype=np.float32)
    bumps = 1 + 0.2 * smooth_noise(canvas, rng, smoothness_px=0.05 * frame)
    inside = np.hypot(rows - centre[0], columns - centre[1]) < radius * bumps
    label = rng.integers(1, domain.style.labels + 1)
    labels = np.where(inside & (scene.labels > 0), label, scene.labels).astype(np.uint8)
    changed = scene._replace(labels=labels)
    return (changed, scene) if rng.uniform() < 0.5 else (scene, changed)


def landmarks(pair: DomainPair) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of a pair on a lattice over its content.

    Returns:
        moving and fixed landmarks, float32 (n, 2) each, pixels, (row, column): of the lattice, the points
        that lie on the body, in the field of view, and well inside both images. n may be 0.
    """
    shape = pair.fixed.shape
    rows, columns = (np.linspace(0.1, 0.9, _LATTICE) * (side - 1) for side in shape)
    fixed = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)
    moving = pull_points(fixed, pair.displacement, iterations=20)
    margin = _MARGIN * min(shape)
    upper = np.array(shape) - 1 - margin
    inside = np.all((moving >= margin) & (moving <= upper) & (fixed >= margin) & (fixed <= upper), axis=1)
    nearest = np.rint(fixed).astype(int)
    inside &= pair.content[nearest[:, 0], nearest[:, 1]]
    return moving[inside], fixed[inside]
