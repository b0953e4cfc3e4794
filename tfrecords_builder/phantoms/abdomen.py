"""An upper abdomen in Hounsfield units: body wall, spine, ribs, the solid organs, stomach, bowel, vessels.

The anatomy is a function of 3D position, so that any axial slice can be computed alone. Coordinates are (z,
down, right): upwards, down the image (posterior), right in the image (the patient's left). Their unit is the
frame of about 400 mm.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from tfrecords_builder.deformation import smooth_noise
from tfrecords_builder.phantoms.fields import (
    SolidNoise,
    coverage,
    ellipsoid,
    frame_coordinates,
    keyed_rng,
    tube,
)

HOUNSFIELD: dict[str, float] = dict(
    air=-1000,
    table=-350,
    fat=-105,
    muscle=58,
    liver=112,
    portal=165,
    spleen=122,
    cortex=190,
    medulla=150,
    pelvis=-60,
    aorta=185,
    cava=150,
    pancreas=88,
    bowel=55,
    content=18,
    gas=-930,
    spongy=190,
    compact=620,
    canal=30,
    lung=-850,
)
# Height of slice 0, and distance of neighbouring slices, in frames.
HIGHEST, SPACING = 0.13, 0.0165
_NOISE = 11.0


@dataclasses.dataclass(frozen=True)
class Trunk:
    """One subject's anatomy. Lengths in frames.

    Attributes:
        size: scale of the whole body.
        girth: half axes of the skin (down, right).
        fat: thickness of the subcutaneous fat at the sides.
        highest: height of slice 0.
        enhancement: strength of the contrast agent.
        shift: by organ, its position relative to the mean one, (3,).
        gas_level: coordinate down the image of the stomach's border between gas and fluid.
        bend_down, bend_right, texture, gut: solid noise that bends outlines, mottles tissue and folds the
            bowel.
    """

    size: float
    girth: tuple[float, float]
    fat: float
    highest: float
    enhancement: float
    shift: dict[str, np.ndarray]
    gas_level: float
    bend_down: SolidNoise
    bend_right: SolidNoise
    texture: SolidNoise
    gut: SolidNoise


def random_trunk(seed: int, subject: str) -> Trunk:
    """The subject's anatomy."""
    rng = keyed_rng(seed, "abdomen", subject)
    organs = ("liver", "spleen", "stomach", "kidney_right", "kidney_left", "pancreas")
    return Trunk(
        size=rng.uniform(0.92, 1.04),
        girth=(rng.uniform(0.265, 0.305), rng.uniform(0.385, 0.43)),
        fat=rng.uniform(0.012, 0.035),
        highest=HIGHEST + rng.uniform(-0.02, 0.02),
        enhancement=rng.uniform(0.8, 1.2),
        shift={organ: rng.normal(0, 0.009, 3) for organ in organs},
        gas_level=rng.uniform(-0.15, -0.11),
        bend_down=SolidNoise(rng, 0.13),
        bend_right=SolidNoise(rng, 0.13),
        texture=SolidNoise(rng, 0.03),
        gut=SolidNoise(rng, 0.03),
    )


def abdomen_slice(
    seed: int, subject: str, trunk: Trunk, slice_index: int, shape: tuple[int, int]
) -> np.ndarray:
    """One axial slice as scanned.

    Args:
        seed: seed of the data set.
        subject: name of the subject.
        trunk: the subject's anatomy, `random_trunk(seed, subject)`.
        slice_index: 0 is the highest slice; neighbours are `SPACING` frames apart.
        shape: (height, width).

    Returns:
        float32 (height, width), Hounsfield units, at least -1000.
    """
    image, body = anatomy(trunk, slice_index, shape)
    frame = min(shape)
    image = ndimage.gaussian_filter(image, 0.0035 * frame)
    rng = keyed_rng(seed, "abdomen noise", subject, slice_index)
    # The reconstruction filter correlates the noise; there is little noise where nothing absorbs.
    grain = smooth_noise(shape, rng, smoothness_px=max(0.6, 0.006 * frame))
    return np.maximum(image + _NOISE * grain * body, HOUNSFIELD["air"]).astype(np.float32)


def anatomy(trunk: Trunk, slice_index: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free slice in Hounsfield units, and the share of each pixel inside the body."""
    z = trunk.highest - SPACING * slice_index
    pixel = 1.0 / min(shape)
    points = _body_coordinates(trunk, z, shape)
    skin = _superellipse(points, trunk.girth)
    canvas = _Canvas(shape, pixel, trunk.enhancement)
    _paint_table(canvas, shape)
    wall = _paint_wall(canvas, trunk, points, skin)
    _paint_bowel(canvas, trunk, points, wall)
    _paint_organs(canvas, trunk, points, wall)
    _paint_vessels(canvas, points)
    _paint_spine(canvas, points)
    _paint_ribs(canvas, points, wall)
    return canvas.image, coverage(skin, pixel)


class _Canvas:
    """A slice that tissues are painted on, each over the ones before."""

    def __init__(self, shape: tuple[int, int], pixel: float, enhancement: float):
        self.image = np.full(shape, HOUNSFIELD["air"], np.float32)
        self._pixel = pixel
        self._enhancement = enhancement

    def paint(self, inside: np.ndarray, tissue: str, mottle: np.ndarray | float = 0.0) -> None:
        """Paints a tissue where the signed distance `inside` is positive; `mottle` is added to its value."""
        share = coverage(inside, self._pixel)
        value = HOUNSFIELD[tissue]
        if tissue in ("liver", "portal", "spleen", "cortex", "medulla", "aorta", "cava"):
            value = 55 + (value - 55) * self._enhancement
        self.image += share * (value + mottle - self.image)


def _body_coordinates(trunk: Trunk, z: float, shape: tuple[int, int]) -> tuple:
    """(z, down, right) of each pixel, slightly bent, and scaled to the subject."""
    down, right = (axis / trunk.size for axis in frame_coordinates(shape))
    bent_down = down + 0.010 * trunk.bend_down.on_pixels(z, shape)
    return (z, bent_down, right + 0.010 * trunk.bend_right.on_pixels(z, shape))


def _superellipse(points: tuple, girth: tuple[float, float]) -> np.ndarray:
    """Depth below the skin: an ellipse with a flattened back."""
    _, down, right = points
    flattened = np.where(down > 0, down * (1 + 0.25 * (down / girth[0]) ** 2), down)
    radius = ((np.abs(flattened) / girth[0]) ** 2.3 + (np.abs(right) / girth[1]) ** 2.3) ** (1 / 2.3)
    return (1 - radius) * (girth[0] + girth[1]) / 2


def _paint_table(canvas: _Canvas, shape: tuple[int, int]) -> None:
    """The couch: a shallow trough under the back."""
    down, right = frame_coordinates(shape)
    trough = down - 0.36 + 0.35 * right**2
    canvas.paint(0.006 - np.abs(trough), "table")
    canvas.paint(0.004 - np.abs(trough - 0.06 - 0.4 * right**2), "table")


def _paint_wall(canvas: _Canvas, trunk: Trunk, points: tuple, skin: np.ndarray) -> np.ndarray:
    """Skin, subcutaneous fat, muscles of the wall and of the back; returns the depth inside the wall."""
    _, down, right = points
    canvas.paint(skin, "muscle")
    canvas.paint(skin - 0.006, "fat")
    sides, back = np.abs(right) / trunk.girth[1], np.clip(down, 0, None) / trunk.girth[0]
    inside = skin - 0.006 - trunk.fat * (0.6 + 0.5 * sides + 0.5 * back)
    canvas.paint(inside, "muscle")
    cavity = inside - 0.026
    # Layers of fat separate the muscles of the back from each other and from the wall.
    back = np.minimum(inside - 0.004, ellipsoid((down, np.abs(right)), (0.225, 0.06), (0.062, 0.062)))
    canvas.paint(np.minimum(cavity, 0.16 - down), "fat")
    canvas.paint(0.003 - np.abs(back + 0.004), "fat")
    return np.minimum(cavity, ellipsoid((down, right), (-0.06, 0), (0.30, 0.44)))


def _paint_bowel(canvas: _Canvas, trunk: Trunk, points: tuple, wall: np.ndarray) -> None:
    """Loops of bowel in front, from noise: walls, contents, gas on top; mesenteric fat in between."""
    z, down, right = points
    region = np.minimum(wall - 0.012, 0.06 - down - 0.6 * np.maximum(0, -right - 0.02))
    loops = np.minimum(region, 0.018 * (trunk.gut.on_pixels(z, down.shape) + 0.35))
    canvas.paint(loops, "bowel")
    canvas.paint(loops - 0.008, "content")
    gassy = np.minimum(loops - 0.008, 0.02 * (trunk.texture.on_pixels(z + 0.5, down.shape, zoom=0.4) - 0.2))
    canvas.paint(np.minimum(gassy, -0.03 - down), "gas")


def _paint_organs(canvas: _Canvas, trunk: Trunk, points: tuple, wall: np.ndarray) -> None:
    """Pancreas, kidneys, stomach, spleen and liver, the last on top."""
    mottle = 5 * trunk.texture.on_pixels(points[0], wall.shape)
    depth = wall - 0.004
    offset = {organ: tuple(p - s for p, s in zip(points, shift)) for organ, shift in trunk.shift.items()}
    _paint_pancreas(canvas, offset["pancreas"], mottle)
    for side, organ in ((-1, "kidney_right"), (1, "kidney_left")):
        _paint_kidney(canvas, offset[organ], side, depth)
    _paint_stomach(canvas, trunk, offset["stomach"], depth)
    spleen = ellipsoid(offset["spleen"], (0.10, 0.075, 0.275), (0.13, 0.115, 0.075))
    hilum = ellipsoid(offset["spleen"], (0.10, 0.02, 0.185), (0.2, 0.09, 0.075))
    canvas.paint(np.minimum.reduce([spleen, -hilum, depth]), "spleen", mottle)
    _paint_liver(canvas, offset["liver"], depth, mottle)


def _paint_pancreas(canvas: _Canvas, points: tuple, mottle: np.ndarray) -> None:
    """An oblique, lobulated tongue in front of the great vessels."""
    spine = np.array([[0.0, 0.0, -0.06], [0.03, -0.035, 0.02], [0.06, 0.005, 0.14]])
    canvas.paint(tube(points, spine, np.array([0.03, 0.02, 0.016])), "pancreas", 2 * mottle)


def _paint_kidney(canvas: _Canvas, points: tuple, side: int, depth: np.ndarray) -> None:
    """A bean with a bright cortex; its hilum, full of fat, faces the spine."""
    z, down, right = points
    mid = (-0.03 if side < 0 else 0.0, 0.105, 0.155)
    lateral = side * right
    bean = ellipsoid((z, down, lateral), mid, (0.125, 0.062, 0.056))
    hilum = ellipsoid((z, down, lateral), (mid[0], mid[1] - 0.012, mid[2] - 0.046), (0.05, 0.024, 0.034))
    canvas.paint(np.minimum(bean + 0.016, depth), "fat")
    bean = np.minimum(bean, depth - 0.012)
    canvas.paint(np.minimum(bean, -hilum), "cortex")
    canvas.paint(np.minimum(bean - 0.017, -hilum), "medulla")
    canvas.paint(hilum, "pelvis")


def _paint_stomach(canvas: _Canvas, trunk: Trunk, points: tuple, depth: np.ndarray) -> None:
    """A bag with a wall, fluid, and gas in front of the fluid, as the patient lies on the back."""
    curve = np.array([[0.20, 0.02, 0.19], [0.12, -0.07, 0.20], [0.05, -0.13, 0.12], [0.02, -0.12, 0.02]])
    bag = np.minimum(tube(points, curve, np.array([0.075, 0.08, 0.055, 0.03])), depth)
    canvas.paint(bag + 0.006, "fat")
    canvas.paint(bag, "bowel")
    lumen = bag - 0.010
    canvas.paint(lumen, "content")
    canvas.paint(np.minimum(lumen, trunk.gas_level - points[1]), "gas")


def _paint_liver(canvas: _Canvas, points: tuple, depth: np.ndarray, mottle: np.ndarray) -> None:
    """A right lobe that fills its side, a left lobe across the middle, and the portal tree inside."""
    z, down, right = points
    lobe = ellipsoid(points, (0.08, -0.01, -0.19), (0.20, 0.19, 0.19))
    left = ellipsoid((z, down + 0.25 * right, right), (0.13, -0.14, -0.02), (0.12, 0.07, 0.17))
    liver = np.minimum(np.maximum(lobe, left), depth)
    # The kidney, the vessels and the spine dent its visceral surface.
    dent = ellipsoid(points, (-0.03, 0.11, -0.135), (0.14, 0.085, 0.085))
    spine = ellipsoid((down, right), (0.12, 0.02), (0.15, 0.10))
    liver = np.minimum.reduce([liver, -dent, -spine])
    canvas.paint(liver + 0.004, "fat")
    canvas.paint(liver, "liver", mottle)
    canvas.paint(np.minimum(_portal_tree(points), liver - 0.012), "portal")


def _portal_tree(points: tuple) -> np.ndarray:
    """Signed distance to the larger vessels of the liver."""
    branches = (
        ([[0.04, -0.02, -0.07], [0.08, -0.02, -0.15], [0.10, 0.05, -0.24], [0.09, 0.10, -0.29]], 0.013),
        ([[0.08, -0.02, -0.15], [0.07, -0.09, -0.21], [0.05, -0.13, -0.26]], 0.010),
        ([[0.04, -0.02, -0.07], [0.12, -0.10, -0.05], [0.14, -0.15, 0.03]], 0.010),
        ([[0.20, 0.04, -0.09], [0.15, 0.00, -0.19], [0.11, -0.03, -0.29]], 0.011),
        ([[0.10, 0.05, -0.24], [0.06, 0.03, -0.30]], 0.008),
        ([[0.08, -0.02, -0.15], [0.02, 0.03, -0.24]], 0.008),
    )
    return np.maximum.reduce(
        [tube(points, np.array(nodes), np.linspace(r, 0.5 * r, len(nodes))) for nodes, r in branches]
    )


def _paint_vessels(canvas: _Canvas, points: tuple) -> None:
    """Aorta in front of the spine, vena cava on the patient's right; lower down, mesenteric vessels."""
    z, down, right = points
    canvas.paint(0.046 - np.hypot(down - 0.05, right - 0.005), "fat")
    canvas.paint(0.030 - np.hypot(down - 0.055, right - 0.022 - 0.05 * z), "aorta")
    canvas.paint(0.031 - np.hypot((down - 0.045) * 1.25, right + 0.045 + 0.05 * z), "cava")
    if z < 0.05:
        canvas.paint(0.013 - np.hypot(down + 0.015, right - 0.02), "aorta")


def _paint_spine(canvas: _Canvas, points: tuple) -> None:
    """A vertebra or disc, psoas and crura beside it, canal, arch and processes behind it."""
    z, down, right = points
    lateral = np.abs(right)
    canvas.paint(ellipsoid((down, lateral), (0.135, 0.075 - 0.1 * z), (0.042, 0.032 - 0.12 * z)), "muscle")
    # A vertebra and its disc are 0.085 frames high; the body's ends are denser and wider than its waist.
    phase = np.cos(2 * np.pi * z / 0.085)
    body = ellipsoid((down, right), (0.12, 0), (0.048 + 0.003 * phase, 0.060 + 0.004 * phase))
    lamina = np.array([[0.15, 0.043], [0.185, 0.034], [0.21, 0.0]])
    arch = tube((down, lateral), lamina, np.array([0.013, 0.011, 0.011]))
    spinous = tube((down, right), np.array([[0.205, 0.0], [0.25, 0.004]]), np.array([0.010, 0.008]))
    transverse = tube((down, lateral), np.array([[0.18, 0.035], [0.188, 0.085]]), np.array([0.009, 0.006]))
    canvas.paint(body, "compact")
    canvas.paint(body - 0.008, "spongy", 60 * phase)
    canvas.paint(0.026 - np.hypot(down - 0.180, right), "canal")
    canvas.paint(np.maximum.reduce([arch, spinous, transverse + 0.010 * (1 - phase)]), "compact")


def _paint_ribs(canvas: _Canvas, points: tuple, wall: np.ndarray) -> None:
    """Ribs, which slope down towards the front: a slice cuts each rib once, as a short oval in the wall."""
    z, down, right = points
    angle = np.arctan2(np.abs(right), down)
    height = z + 0.10 * angle + np.where(right > 0, 0.012, 0.0)
    across = (height / 0.062 - np.floor(height / 0.062) - 0.5) * 0.062
    shaft = 0.011 - np.hypot(1.6 * (wall + 0.012), 1.0 * across)
    ribs = np.minimum(shaft, np.minimum(angle - 0.55, 2.2 + 3 * z - angle) * 0.2)
    canvas.paint(ribs, "compact")
    canvas.paint(ribs - 0.006, "spongy")
