"""A skull-stripped head: folded cortex, white matter, ventricles, deep grey nuclei, sometimes a tumour.

The anatomy is a function of 3D position, so that any axial slice can be computed alone. Coordinates are (z,
down, right): upwards, down the image (posterior), right in the image. Their unit is the frame of about 200
mm.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import ndimage

from tfrecords_builder.deformation import smooth_noise
from tfrecords_builder.phantoms.fields import (
    SolidNoise,
    coverage,
    distance_to_zero,
    ellipsoid,
    frame_coordinates,
    keyed_rng,
    tube,
)

TISSUES = ("csf", "grey", "white", "nuclei", "pallidum", "oedema", "necrosis", "rim", "vessel")
CONTRASTS = {
    "t1w": dict(
        csf=0.14,
        grey=0.52,
        white=0.84,
        nuclei=0.63,
        pallidum=0.74,
        oedema=0.50,
        necrosis=0.28,
        rim=0.50,
        vessel=0.30,
    ),
    "t1gd": dict(
        csf=0.13,
        grey=0.46,
        white=0.66,
        nuclei=0.54,
        pallidum=0.60,
        oedema=0.42,
        necrosis=0.24,
        rim=1.00,
        vessel=1.05,
    ),
    "t2w": dict(
        csf=1.00,
        grey=0.52,
        white=0.33,
        nuclei=0.42,
        pallidum=0.26,
        oedema=0.74,
        necrosis=0.90,
        rim=0.58,
        vessel=0.24,
    ),
}
# Mean height of slice 0, and distance of neighbouring slices, in frames.
LOWEST, SPACING = -0.035, 0.019
_NOISE = 0.012
_HALF_AXES = (0.33, 0.42, 0.345)


@dataclasses.dataclass(frozen=True)
class Head:
    """One subject's anatomy. Lengths in frames.

    Attributes:
        axes: half axes of the brain, (z, down, right).
        tilt: in-plane rotation of the head, radians.
        lowest: height of slice 0.
        ventricle: relative width of the ventricles, which grows with age.
        sulcus: half width of a sulcus.
        cortex: thickness of the cortical ribbon.
        tumour: centre (z, down, right), or None.
        tumour_radius: radius of the enhancing rim.
        oedema_width: width of the oedema around the rim.
        folds, shift_down, shift_right, depth: solid noise that folds the cortex, bends the anatomy, and sets
            the depth of each sulcus (and the outline of the tumour).
    """

    axes: tuple[float, float, float]
    tilt: float
    lowest: float
    ventricle: float
    sulcus: float
    cortex: float
    tumour: tuple[float, float, float] | None
    tumour_radius: float
    oedema_width: float
    folds: SolidNoise
    shift_down: SolidNoise
    shift_right: SolidNoise
    depth: SolidNoise


def random_head(seed: int, subject: str) -> Head:
    """The subject's anatomy, the same for every contrast."""
    rng = keyed_rng(seed, "brain", subject)
    side = rng.choice([-1.0, 1.0])
    centre = (rng.uniform(0.0, 0.11), rng.uniform(-0.2, 0.2), side * rng.uniform(0.12, 0.2))
    z, down, right = _HALF_AXES
    return Head(
        axes=(z * rng.uniform(0.95, 1.04), down * rng.uniform(0.95, 1.04), right * rng.uniform(0.95, 1.04)),
        tilt=math.radians(rng.normal(0, 2.5)),
        lowest=LOWEST + rng.uniform(-0.01, 0.015),
        ventricle=rng.uniform(0.75, 1.35),
        sulcus=rng.uniform(0.003, 0.006),
        cortex=rng.uniform(0.0155, 0.019),
        tumour=centre if rng.uniform() < 0.65 else None,
        tumour_radius=rng.uniform(0.035, 0.065),
        oedema_width=rng.uniform(0.03, 0.08),
        folds=SolidNoise(rng, 0.029),
        shift_down=SolidNoise(rng, 0.12),
        shift_right=SolidNoise(rng, 0.12),
        depth=SolidNoise(rng, 0.07),
    )


def tissue_fractions(head: Head, slice_index: int, shape: tuple[int, int]) -> np.ndarray:
    """Share of each tissue in each pixel; the shares add up to 1 inside the head and to 0 outside.

    Returns:
        float32 (tissues, height, width), in the order of `TISSUES`.
    """
    z = head.lowest + SPACING * slice_index
    pixel = 1.0 / min(shape)
    points = _head_coordinates(head, z, shape)
    layers = {}
    brain = _envelope(head, points)
    pial = _pial_distance(head, points, brain, pixel)
    ventricles = _ventricles(head, points)
    nuclei, pallidum = _deep_grey(points)
    layers["csf"] = coverage(brain + 0.006, pixel)
    layers["grey"] = coverage(pial, pixel)
    layers["white"] = coverage(pial - head.cortex, pixel)
    layers["nuclei"] = coverage(nuclei, 2 * pixel)
    layers["pallidum"] = coverage(pallidum, 2 * pixel)
    _overlay_tumour(head, points, layers, pixel)
    layers["ventricle"] = coverage(ventricles, pixel)
    layers["vessel"] = _vessels(head, points, brain, pial, ventricles, pixel)
    return _composite(layers)


def brain_slice(
    seed: int, subject: str, head: Head, slice_index: int, contrast: str, shape: tuple[int, int]
) -> np.ndarray:
    """One axial slice as scanned, with partial volume, bias field and Rician noise.

    Args:
        seed: seed of the data set.
        subject: name of the subject.
        head: the subject's anatomy, `random_head(seed, subject)`.
        slice_index: 0 is the lowest slice; neighbours are `SPACING` frames apart.
        contrast: a key of `CONTRASTS`.
        shape: (height, width).

    Returns:
        float32 (height, width), about 0 to 1, 0 outside the head.
    """
    fractions = tissue_fractions(head, slice_index, shape)
    values = np.array([CONTRASTS[contrast][tissue] for tissue in TISSUES], np.float32)
    image = ndimage.gaussian_filter(np.einsum("t,trc->rc", values, fractions), 0.0035 * min(shape))
    # No tissue is quite uniform; its variation continues in the next slice.
    image *= 1.0 + 0.03 * head.depth.on_pixels(head.lowest + SPACING * slice_index + 0.25, shape)
    bias = smooth_noise(shape, keyed_rng(seed, "bias", subject, contrast), smoothness_px=0.4 * min(shape))
    rng = keyed_rng(seed, "brain noise", subject, contrast, slice_index)
    real, imaginary = _NOISE * rng.standard_normal((2, *shape), np.float32)
    scanned = np.hypot(image * np.exp(0.08 * bias) + real, imaginary)
    return np.where(fractions.sum(axis=0) > 0.5, scanned, 0.0).astype(np.float32)


def _head_coordinates(head: Head, z: float, shape: tuple[int, int]) -> tuple:
    """(z, down, right) of each pixel in the head's own, slightly bent axes."""
    down, right = frame_coordinates(shape)
    cosine, sine = math.cos(head.tilt), math.sin(head.tilt)
    down, right = cosine * down - sine * right, sine * down + cosine * right
    bent_down = down + 0.007 * head.shift_down.on_pixels(z, shape)
    return (z, bent_down, right + 0.007 * head.shift_right.on_pixels(z, shape))


def _envelope(head: Head, points: tuple) -> np.ndarray:
    """Depth below the brain's outer surface, positive inside; the brain is narrower at the front."""
    z, down, right = points
    backwards = down / head.axes[1]
    narrowing = 1.0 - 0.14 * np.clip(-backwards, 0, 1) ** 2 - 0.06 * np.clip(backwards, 0, 1)
    return ellipsoid((z, down, right / narrowing), (0, 0, 0), head.axes) * 1.1


def _pial_distance(head: Head, points: tuple, brain: np.ndarray, pixel: float) -> np.ndarray:
    """Signed distance to the nearest pial surface, positive in tissue, negative in the fluid of a sulcus."""
    fissures = [_longitudinal_fissure(points), _sylvian_fissures(head, points)]
    # Sulci are wider where they open at the surface.
    half_width = head.sulcus + 0.005 * np.clip(1 - brain / 0.035, 0, 1)
    nearest = np.minimum.reduce([_sulci(head, points, brain, pixel), *fissures]) - half_width
    return np.minimum(brain - 0.004, nearest)


def _sulci(head: Head, points: tuple, brain: np.ndarray, pixel: float) -> np.ndarray:
    """Distance to the sulci: sheets where the fold noise is zero, down to a varying depth."""
    z, down, right = points
    # Stretching the noise along the radius makes the sulci perpendicular to the surface.
    radius = np.clip(np.sqrt((down / head.axes[1]) ** 2 + (right / head.axes[2]) ** 2), 0.3, None)
    stretch = radius**-0.45
    sheet = distance_to_zero(head.folds(z, down * stretch, right * stretch), pixel)
    depth = 0.115 + 0.035 * head.depth.on_pixels(z, down.shape)
    return np.hypot(sheet, np.maximum(0.0, brain - depth))


def _longitudinal_fissure(points: tuple) -> np.ndarray:
    """Distance to the sheet between the hemispheres; the corpus callosum and the thalami bridge it."""
    z, down, right = points
    bridge = ellipsoid((z, down), (0.0, 0.0), (0.125, 0.2))
    return np.hypot(right, np.maximum(0.0, bridge))


def _sylvian_fissures(head: Head, points: tuple) -> np.ndarray:
    """Distance to the lateral fissures: from the side inwards, then along the insula; closed higher up."""
    z, down, right = points
    closing = max(0.0, z - 0.05) * 1.5
    insula = head.axes[2] * 0.62
    outwards = np.array([[0.04, head.axes[2] * 1.1], [-0.0, insula]])
    along = np.array([[-0.085, insula * 0.95], [0.0, insula], [0.06, insula * 1.02]])
    none = np.zeros(3)
    lateral = (down, np.abs(right))
    return -np.maximum(tube(lateral, outwards, none[:2]), tube(lateral, along, none)) + closing


def _ventricles(head: Head, points: tuple) -> np.ndarray:
    """Signed distance to the third and the lateral ventricles: horns, bodies arching over, and atria."""
    z, down, right = points
    centres = np.array(
        [
            [0.015, -0.165, 0.062],
            [0.035, -0.115, 0.036],
            [0.075, -0.03, 0.030],
            [0.080, 0.05, 0.042],
            [0.040, 0.125, 0.088],
            [-0.01, 0.10, 0.125],
            [0.010, 0.215, 0.085],
        ]
    )
    radii = np.array([0.008, 0.021, 0.022, 0.021, 0.027, 0.016, 0.008]) * head.ventricle
    # Flattened from the side, as the horns are slits rather than tubes.
    flat = np.array([1.0, 1.0, 1.35])
    trunk, occipital = [0, 1, 2, 3, 4, 5], [4, 6]
    lateral = (z, down, np.abs(right) * flat[2])
    horns = [tube(lateral, centres[path] * flat, radii[path]) for path in (trunk, occipital)]
    third = ellipsoid((z, down, right), (-0.03, -0.01, 0), (0.05, 0.075, 0.010 * head.ventricle))
    return np.maximum.reduce([*horns, third])


def _deep_grey(points: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances to caudate, putamen and thalamus together, and to the globus pallidus."""
    z, down, right = points
    lateral = np.abs(right)
    # Towards the back, the lentiform nucleus lies further out.
    slant = lateral - 0.35 * (down + 0.03)
    caudate = tube(
        (z, down, lateral),
        np.array([[0.015, -0.11, 0.068], [0.05, -0.05, 0.070], [0.085, 0.04, 0.078]]),
        np.array([0.026, 0.018, 0.008]),
    )
    putamen = ellipsoid((z, down, slant), (-0.005, -0.03, 0.142), (0.055, 0.085, 0.026))
    pallidum = ellipsoid((z, down, slant), (-0.012, -0.015, 0.108), (0.035, 0.05, 0.018))
    thalamus = ellipsoid((z, down - 0.3 * lateral, lateral), (0.0, 0.045, 0.050), (0.055, 0.066, 0.038))
    return np.maximum.reduce([caudate, putamen, thalamus]), pallidum


def _overlay_tumour(head: Head, points: tuple, layers: dict[str, np.ndarray], pixel: float) -> None:
    """Adds oedema (in white matter only), an enhancing rim and a necrotic core."""
    if head.tumour is None:
        return
    ragged = 0.022 * head.depth.on_pixels(points[0] + 0.5, points[1].shape)
    core = ellipsoid(points, head.tumour, (head.tumour_radius,) * 3) + ragged
    fingers = core + head.oedema_width + 0.5 * ragged
    region = np.maximum(layers["white"], coverage(core + 0.02, pixel))
    layers["oedema"] = coverage(fingers, 4 * pixel) * region
    layers["rim"] = coverage(core, pixel)
    layers["necrosis"] = coverage(core - 0.016 + 0.5 * ragged, pixel)


def _vessels(
    head: Head, points: tuple, brain: np.ndarray, pial: np.ndarray, ventricles: np.ndarray, pixel: float
) -> np.ndarray:
    """Share of vessels in each pixel: sagittal sinus, cortical veins, choroid plexus."""
    z, down, right = points
    sinus = 0.011 - np.hypot(right, np.maximum(0.0, brain - 0.008)) + np.where(brain > -0.006, 0.0, -1.0)
    veins = np.minimum(-pial + 0.002, 0.012 * (head.depth.on_pixels(z - 0.5, down.shape, zoom=2.5) - 1.1))
    atrium = ellipsoid((z, down, np.abs(right)), (0.03, 0.115, 0.09), (0.04, 0.03, 0.014))
    plexus = np.minimum(ventricles - 0.004, atrium)
    return coverage(np.maximum.reduce([sinus, veins, plexus]), pixel) * coverage(brain + 0.006, pixel)


def _composite(layers: dict[str, np.ndarray]) -> np.ndarray:
    """Stacks the layers, each over the ones before, into fractions (tissues, height, width)."""
    fractions = np.zeros((len(TISSUES), *layers["csf"].shape), np.float32)
    order = ("csf", "grey", "white", "nuclei", "pallidum", "oedema", "rim", "necrosis", "ventricle", "vessel")
    for name in order:
        if name in layers:
            inside = layers[name] * layers["csf"]
            fractions *= 1.0 - inside
            fractions[TISSUES.index("csf" if name == "ventricle" else name)] += inside
    return fractions
