"""Affine alignment of a pair, for shifts and turns that are beyond a deformable network's reach.

An alignment is a (2, 3) matrix [A | t], (row, column), in pixels: the point p of the fixed image lies at
A p + t in the moving one. Registration is SimpleITK's, by correlation at several resolutions. It starts from
where the images are and from the highest peaks of the phase correlation (windowed, and with the moving image
turned a little either way); whichever start ends in the best agreement is refined. Large images are
averaged down first, which takes a fraction of the time; a few last steps on the images as they are give the
tenth of a pixel back that this costs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from scipy import fft, ndimage

from tfmetareg.types import no_alignment

KINDS = ("none", "rigid", "affine")

_ANGLES = (0, -8, 8, -4, 4)
_STARTS = 3
# Standard deviations, as shares of the height: of what is smoothed away before images are compared, and of
# the slow changes of brightness that say nothing about the place.
_FINE, _COARSE = 0.006, 0.04
_MIN_OVERLAP = 0.3
# What images must agree by, at least, to be moved. The best of many alignments agrees somewhat by chance:
# unrelated textures come to 0.3 (more if blobs are wider than `_COARSE`, for then there are only a few),
# repeat scans of an eye to 0.55 and more. Little overlap lowers that, so it is nearer to the former.
_MIN_AGREEMENT = 0.35
# The starts are searched from at about this height, at least: with less, the vessels of a retina are gone and
# what is left misleads. Images are smoothed by as many pixels as they are shrunk by.
_SEARCH_HEIGHT = 80
# The heights, at least, at which an alignment is found and at which a shift is looked for.
_HEIGHT, _PROBE_HEIGHT = 160, 200
# The optimizer's steps, first and last length in pixels and how many at most: when looking for the place, and
# on the images as they are, from what was found on averaged ones.
_SEARCH, _POLISH = (2.0, 0.05, 60), (0.5, 0.05, 10)
# At about so many of their pixels, in a regular pattern, larger images are compared while it works.
_SAMPLES = 16_000
_MIN_SIDE = 32


def align(moving: np.ndarray, fixed: np.ndarray, kind: str = "affine") -> np.ndarray:
    """Finds the alignment of two images of one shape.

    Depends on the images alone: no randomness, one thread.

    Args:
        moving, fixed: (height, width), any real dtype.
        kind: "rigid" (shift and rotation, in pixels), "affine", or "none".

    Returns:
        float32 (2, 3). The identity where nothing agrees better than the images as they are, or no more
        than unrelated ones do by chance.
    """
    if kind == "none" or min(fixed.shape) < _MIN_SIDE:
        return no_alignment()
    factor = max(1, min(fixed.shape) // _HEIGHT)
    images = _shrunk(moving, factor), _shrunk(fixed, factor)
    bands = tuple(map(_band, images))
    coarse = max(1, len(images[1]) // _SEARCH_HEIGHT)
    found = [_refine(*images, start, "rigid", [coarse]) for start in _starts(*images)]
    best = max(found, key=lambda alignment: _agreement(*bands, alignment))
    levels = sorted({(coarse + 1) // 2, 1}, reverse=True)
    candidates = [no_alignment(), _refine(*images, best, kind, levels), best]
    agreements = [_agreement(*bands, alignment) for alignment in candidates]
    if max(agreements) < _MIN_AGREEMENT:
        return no_alignment()
    chosen = int(np.argmax(agreements))
    alignment = _enlarged(candidates[chosen], factor)
    if factor > 1 and chosen > 0:
        whole = (image.astype(np.float32) for image in (moving, fixed))
        alignment = _refine(*whole, alignment, kind, [1], _POLISH)
    return alignment.astype(np.float32)


def likely_shift(moving: np.ndarray, fixed: np.ndarray) -> float:
    """How far apart two images of one shape lie at least, in pixels, by the peak of their phase correlation.

    Takes a fraction of the time of `align`, and is that much coarser. 0 where the images agree no better when
    shifted, or no more than unrelated ones do by chance.
    """
    factor = max(1, min(fixed.shape) // _PROBE_HEIGHT)
    small = _shrunk(moving, factor), _shrunk(fixed, factor)
    if min(small[0].shape) < _MIN_SIDE:
        return 0.0
    _, alignment = _phase_peak(*small, 0)
    if agreement(*small, alignment) < max(_MIN_AGREEMENT, agreement(*small, no_alignment())):
        return 0.0
    return factor * max(0.0, float(np.linalg.norm(alignment[:, 2])) - 1)


def agreement(moving: np.ndarray, fixed: np.ndarray, alignment: np.ndarray) -> float:
    """Correlation of the images' middle frequencies where they overlap, times the overlap's square root.

    The square root of the overlap weighs as its number of pixels does in the significance of a correlation:
    a small corner that happens to agree does not win.
    """
    return _agreement(_band(moving), _band(fixed), alignment)


def _shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels, float32; rows and columns that fill no square are left out."""
    rows, columns = (side // factor for side in image.shape)
    squares = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    return squares.mean(axis=(1, 3), dtype=np.float32)


def _enlarged(alignment: np.ndarray, factor: int) -> np.ndarray:
    """An alignment of images that `_shrunk` made, in the pixels of those that it made them from."""
    matrix, shift = alignment[:, :2], alignment[:, 2]
    centre = np.full(2, (factor - 1) / 2)  # Of a square, from its first pixel.
    return np.column_stack([matrix, factor * shift + centre - matrix @ centre]).astype(np.float32)


def _agreement(moving: np.ndarray, fixed: np.ndarray, alignment: np.ndarray) -> float:
    """`agreement` of images of which nothing but their middle frequencies is left."""
    matrix, shift = alignment[:, :2], alignment[:, 2]
    carried = ndimage.affine_transform(moving, matrix, shift, order=1, cval=np.nan)
    overlap = ~np.isnan(carried)
    if overlap.mean() < _MIN_OVERLAP:
        return -1.0
    first, second = carried[overlap], fixed[overlap]
    first, second = first - first.mean(), second - second.mean()
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norm * np.sqrt(overlap.mean())) if norm else -1.0


def _band(image: np.ndarray) -> np.ndarray:
    fine, coarse = (ndimage.gaussian_filter(image, share * len(image)) for share in (_FINE, _COARSE))
    return fine - coarse


def _starts(moving: np.ndarray, fixed: np.ndarray) -> Iterator[np.ndarray]:
    """The identity, and the highest peaks of the phase correlation."""
    yield no_alignment()
    peaks = [_phase_peak(moving, fixed, angle) for angle in _ANGLES]
    for _, alignment in sorted(peaks, key=lambda peak: -peak[0])[:_STARTS]:
        yield alignment


def _phase_peak(moving: np.ndarray, fixed: np.ndarray, degrees: float) -> tuple[float, np.ndarray]:
    """Height of the highest peak with the moving image turned by an angle, and its alignment.

    Window and smoothing (of the correlation, by the share `_FINE`) as a repeat scan needs them: without a
    window the border of the images dominates, and a deformed pair has no sharp peak.
    """
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(fixed.shape) - 1) / 2
    turned = ndimage.affine_transform(moving, matrix, centre - matrix @ centre, order=1, mode="nearest")
    product = fft.rfft2(_windowed(turned)) * np.conj(fft.rfft2(_windowed(fixed)))
    correlation = fft.irfft2(product / np.maximum(np.abs(product), 1e-9), fixed.shape)
    correlation = ndimage.gaussian_filter(correlation, _FINE * len(fixed), mode="wrap")
    place = np.array(np.unravel_index(correlation.argmax(), fixed.shape))
    shift = np.where(place > np.array(fixed.shape) / 2, place - fixed.shape, place)
    return correlation.max(), np.column_stack([matrix, centre - matrix @ centre + matrix @ shift])


def _windowed(image: np.ndarray) -> np.ndarray:
    window = np.outer(*map(np.hanning, image.shape))
    return (image - np.average(image, weights=window)) * window


def _refine(
    moving: np.ndarray,
    fixed: np.ndarray,
    start: np.ndarray,
    kind: str,
    levels: list[int],
    steps: tuple[float, float, int] = _SEARCH,
) -> np.ndarray:
    """SimpleITK's registration from `start`; `start` itself where it does not find its way.

    Lengths are in half heights from the image's centre: a step of the optimizer then means much the same
    shift at the border, whichever parameter it changes. In pixels, a step of 1 in an entry of the matrix
    would throw the image out of sight.
    """
    unit = 2 / len(fixed)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # Sums in another order give other last digits.
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    shares = [min(1.0, _SAMPLES * level**2 / fixed.size) for level in levels]
    if min(shares) < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentagePerLevel(shares, seed=1)
    first, last, most = steps
    method.SetOptimizerAsRegularStepGradientDescent(first * unit, last * unit, most)
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([float(level) for level in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(_transform(start, kind, fixed.shape, unit), inPlace=False)
    try:
        found = method.Execute(*(_centred(image, unit) for image in (fixed, moving)))
    except RuntimeError:  # The images no longer overlap, or are constant where they do.
        return start
    return _alignment(found, fixed.shape, unit)


def _centred(image: np.ndarray, unit: float) -> sitk.Image:
    centred = sitk.GetImageFromArray(image)
    centred.SetSpacing([unit, unit])
    centred.SetOrigin([-unit * (side - 1) / 2 for side in image.shape[::-1]])
    return centred


def _transform(alignment: np.ndarray, kind: str, shape: tuple[int, ...], unit: float) -> sitk.Transform:
    """The alignment as SimpleITK has it: (x, y), from the image's centre, in units."""
    centre = (np.array(shape) - 1) / 2
    matrix, shift = alignment[:, :2], alignment[:, 2]
    offset = unit * (matrix @ centre + shift - centre)
    if kind == "affine":
        return sitk.AffineTransform(matrix[::-1, ::-1].ravel().tolist(), offset[::-1].tolist())
    return sitk.Euler2DTransform((0, 0), float(np.arctan2(matrix[0, 1], matrix[0, 0])), offset[::-1].tolist())


def _alignment(transform: sitk.Transform, shape: tuple[int, ...], unit: float) -> np.ndarray:
    """Inverse of `_transform`."""
    centre = (np.array(shape) - 1) / 2
    origin, x, y = (np.array(transform.TransformPoint(point))[::-1] for point in ((0, 0), (1, 0), (0, 1)))
    matrix = np.column_stack([y - origin, x - origin])
    return np.column_stack([matrix, origin / unit + centre - matrix @ centre])


# How far apart corresponding points may be, as a share of the width, for the network to find them: measured
# with the network and the settings of this project (docs/results/real). What is farther needs `--align`.
NETWORK_REACH = 0.04
