"""Affine alignment of a pair, for shifts and rotations beyond a deformable network's reach.

An alignment is a (2, 3) matrix [A | t], (row, column), in pixels: the point p of the fixed image lies at A p
+ t in the moving image. SimpleITK registers the images by their correlation, at several resolutions. It
starts from the identity and from the highest peaks of the phase correlation (windowed, for several small
rotations of the moving image); the result with the best agreement is refined. Large images are first shrunk
by averaging, which takes a fraction of the time; a few last steps at full resolution regain the tenth of a
pixel that this costs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from scipy import fft, ndimage

from tfmetareg.types import no_alignment

KINDS = ("none", "rigid", "affine")
# Largest distance of corresponding points that the network can register, as a share of the width; measured
# with this project's network and settings (docs/results/real). Larger distances need `--align`.
NETWORK_REACH = 0.04

# Rotations of the moving image in degrees, and number of phase-correlation peaks, to start from.
_ANGLES = (0, -8, 8, -4, 4)
_STARTS = 3
# Band-pass filter: standard deviations of its two Gaussians, as shares of the height. Detail finer than the
# first differs between scans; changes slower than the second are differences of brightness.
_FINE, _COARSE = 0.006, 0.04
_MIN_OVERLAP = 0.3
# Least agreement of an alignment. The best of many alignments agrees somewhat by chance: unrelated textures
# reach 0.3 (more if they consist of a few blobs wider than `_COARSE`), repeat scans of an eye 0.55 and more.
# As small overlaps lower the agreement, the limit is nearer to the former.
_MIN_AGREEMENT = 0.35
# Least height of the images during the search from all starts: at lower resolution the vessels of a retina
# vanish and the rest misleads. Images are smoothed by as many pixels as they are shrunk by.
_SEARCH_HEIGHT = 80
# Least heights of the shrunk images: of `align` and of `likely_shift`.
_HEIGHT, _PROBE_HEIGHT = 160, 200
# Steps of the optimizer: first and last length in pixels, and largest number; for the search on shrunk
# images, and for the last steps at full resolution.
_SEARCH, _POLISH = (2.0, 0.05, 60), (0.5, 0.05, 10)
# Number of pixels, in a regular pattern, at which the optimizer compares larger images.
_SAMPLES = 16_000
# Smaller images are not aligned.
_MIN_SIDE = 32


def align(moving: np.ndarray, fixed: np.ndarray, kind: str = "affine") -> np.ndarray:
    """Finds the alignment of two images of one shape.

    The result depends only on the images: nothing is random, and one thread computes it.

    >>> import numpy as np
    >>> rows, columns = np.mgrid[:64, :64]
    >>> fixed = np.exp(-((rows - 30) ** 2 + (columns - 34) ** 2) / 40) + (abs(rows - columns) < 3)
    >>> moving = np.roll(fixed, (6, -4), axis=(0, 1))
    >>> np.round(align(moving, fixed, "rigid")[:, 2]).tolist()
    [6.0, -4.0]

    Args:
        moving, fixed: (height, width), any real dtype.
        kind: "rigid" (rotation and shift, in pixels), "affine", or "none".

    Returns:
        float32 (2, 3). The identity if no alignment improves the agreement, or if the best agreement is
        no better than chance.
    """
    if kind == "none" or min(fixed.shape) < _MIN_SIDE:
        return no_alignment()
    factor = max(1, min(fixed.shape) // _HEIGHT)
    images = _shrunk(moving, factor), _shrunk(fixed, factor)
    bands = _band(images[0]), _band(images[1])
    coarse = max(1, len(images[1]) // _SEARCH_HEIGHT)
    rough = [_refine(*images, start, "rigid", [coarse]) for start in _starts(*images)]
    best = max(rough, key=lambda alignment: _agreement(*bands, alignment))
    levels = sorted({(coarse + 1) // 2, 1}, reverse=True)
    candidates = [no_alignment(), _refine(*images, best, kind, levels), best]
    agreements = [_agreement(*bands, alignment) for alignment in candidates]
    if max(agreements) < _MIN_AGREEMENT:
        return no_alignment()
    chosen = int(np.argmax(agreements))
    alignment = _enlarged(candidates[chosen], factor)
    if factor > 1 and chosen > 0:
        whole = moving.astype(np.float32), fixed.astype(np.float32)
        alignment = _refine(*whole, alignment, kind, [1], _POLISH)
    return alignment.astype(np.float32)


def likely_shift(moving: np.ndarray, fixed: np.ndarray) -> float:
    """Lower bound of the shift between two images of one shape, by the peak of their phase correlation.

    Faster than `align`, and less exact.

    Args:
        moving, fixed: (height, width), any real dtype.

    Returns:
        Length of the shift in pixels; 0 if shifting does not improve the agreement, or if the agreement is no
        better than chance.
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
    """Correlation of the images' middle frequencies where they overlap, times the square root of the overlap.

    As in the significance of a correlation, the square root of the number of pixels is the weight: it keeps a
    small corner that agrees by chance from winning.

    Args:
        moving, fixed: (height, width), any real dtype.
        alignment: (2, 3).

    Returns:
        At most 1; -1 for an overlap that is too small, and for constant images.
    """
    return _agreement(_band(moving), _band(fixed), alignment)


def _shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` x `factor` pixels, float32; incomplete squares are dropped."""
    rows, columns = (side // factor for side in image.shape)
    squares = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    return squares.mean(axis=(1, 3), dtype=np.float32)


def _enlarged(alignment: np.ndarray, factor: int) -> np.ndarray:
    """The alignment in pixels of the original images, from one in pixels of the images made by `_shrunk`."""
    matrix, shift = alignment[:, :2], alignment[:, 2]
    centre = np.full(2, (factor - 1) / 2)  # Centre of a square, relative to its first pixel.
    return np.column_stack([matrix, factor * shift + centre - matrix @ centre]).astype(np.float32)


def _agreement(moving: np.ndarray, fixed: np.ndarray, alignment: np.ndarray) -> float:
    """`agreement` of band-pass filtered images."""
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
    """The band-pass filtered image."""
    fine, coarse = (ndimage.gaussian_filter(image, share * len(image)) for share in (_FINE, _COARSE))
    return fine - coarse


def _starts(moving: np.ndarray, fixed: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the alignments to start from: the identity, and the highest peaks of the phase correlation."""
    yield no_alignment()
    peaks = [_phase_peak(moving, fixed, angle) for angle in _ANGLES]
    for _, alignment in sorted(peaks, key=lambda peak: -peak[0])[:_STARTS]:
        yield alignment


def _phase_peak(moving: np.ndarray, fixed: np.ndarray, degrees: float) -> tuple[float, np.ndarray]:
    """The highest peak of the phase correlation with the moving image rotated by an angle.

    Windowed, because otherwise the borders of the images dominate, and smoothed by `_FINE`, because a
    deformed pair has no sharp peak.

    Returns:
        Height of the peak, and its alignment.
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
    """Registers with SimpleITK from `start`; returns `start` if that fails.

    The unit of length is half the image's height, and the origin is the image's centre. A step of the
    optimizer then causes about the same shift at the border, whichever parameter it changes; in pixels, a
    step of 1 in an entry of the matrix would move the image out of sight.
    """
    unit = 2 / len(fixed)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # Threads would sum in a varying order, with other last digits.
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
        transform = method.Execute(*(_centred(image, unit) for image in (fixed, moving)))
    except RuntimeError:  # The images no longer overlap, or are constant where they do.
        return start
    return _alignment(transform, fixed.shape, unit)


def _centred(image: np.ndarray, unit: float) -> sitk.Image:
    centred = sitk.GetImageFromArray(image)
    centred.SetSpacing([unit, unit])
    centred.SetOrigin([-unit * (side - 1) / 2 for side in image.shape[::-1]])
    return centred


def _transform(alignment: np.ndarray, kind: str, shape: tuple[int, ...], unit: float) -> sitk.Transform:
    """The alignment as a SimpleITK transform: (x, y), relative to the image's centre; a pixel is `unit`."""
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
