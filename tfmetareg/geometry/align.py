"""Affine alignment of a pair, for shifts, rotations and sizes beyond a deformable network's reach.

An alignment is a (2, 3) matrix [A | t], (row, column), in pixels: the point p of the fixed image lies at A p
+ t in the moving image. Images are compared by the direction of their edges, with the angle doubled: an edge
counts the same whichever of its sides is the brighter, so that other contrasts, stains and backgrounds
compare too, and unrelated images agree near 0. The search starts from the identity, the centres of mass and
the highest peaks of the phase correlation (for several small rotations of the moving image); each start is
refined on coarse images (`geometry.refinement`), and the best of the results on finer ones. What agrees no
better than the images as they are is not taken: the alignment is then exactly the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import fft, ndimage

from tfmetareg.geometry.refinement import Refinement, agreement_of
from tfmetareg.types import no_alignment

KINDS = ("none", "rigid", "affine")
# Raised when `align` finds other alignments than before: those that were kept are then found anew.
VERSION = 2
# Largest distance of corresponding points that the network can register, as a share of the width; measured
# with this project's network and settings (docs/results/real). Larger distances need `--align`.
NETWORK_REACH = 0.04

# Rotations of the moving image in degrees, and number of phase-correlation peaks, to start from.
_ANGLES = (0, -8, 8, -4, 4)
_PEAKS = 2
# Smoothing of the phase correlation, as a share of the height: detail finer than this differs between scans.
_FINE = 0.006
# The best of many alignments agrees somewhat by chance: unrelated textures reach 5.8 times the agreement
# under an average shift (and 0.3 where they consist of a few blobs), two discs of different animals 6.8, all
# other pairs 9 and more. What stays below both limits is chance.
_CHANCE, _MOST_BY_CHANCE = 6.0, 0.35
# Least heights of the images on which the result is refined, and all starts; of `likely_shift`.
_HEIGHT, _SEARCH_HEIGHT, _PROBE_HEIGHT = 160, 64, 200
# Pixels by which images are smoothed ahead of their edges, and edges of the two sizes ahead of the search.
_SMOOTH, _SMOOTH_EDGES, _SMOOTH_COARSE = 1.0, 0.5, 1.5
# Steps at most from each start, for each of the best two results, and on the finer images.
_ROUGH, _BETTER, _LAST = 5, 15, 12
# Steps that move no corner by more, in pixels, are the last ones: on coarse and on finer images.
_COARSE_TOLERANCE, _TOLERANCE = 0.2, 0.1
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
        float32 (2, 3). Exactly the identity, as `no_alignment` gives it, if no alignment agrees better than
        the images as they are, or none better than unrelated images.
    """
    if kind == "none" or min(fixed.shape) < _MIN_SIDE:
        return no_alignment()
    factor = max(1, min(fixed.shape) // _HEIGHT)
    images = [_shrunk(image, factor) for image in (moving, fixed)]
    edges = [_edges(image) for image in images]
    again = max(1, min(images[1].shape) // _SEARCH_HEIGHT)
    moving_coarse, fixed_coarse = (_smoothed(_shrunk(each, again), _SMOOTH_COARSE) for each in edges)
    coarse = Refinement(moving_coarse, fixed_coarse, kind)
    moving_fine, fixed_fine = (_smoothed(each, _SMOOTH_EDGES) for each in edges)
    fine = Refinement(moving_fine, fixed_fine, kind)
    rough = [coarse.search(_reduced(start, again), _ROUGH, _COARSE_TOLERANCE) for start in _starts(*images)]
    rough.sort(key=lambda found: -found.agreement)
    better = [coarse.search(found.alignment, _BETTER, _COARSE_TOLERANCE) for found in rough[:2]]
    best = max(better, key=lambda found: found.agreement)
    last = fine.search(_enlarged(best.alignment, again), _LAST, _TOLERANCE)
    if last.agreement <= fine.agreement(no_alignment()) or _is_chance(
        last.agreement, moving_fine, fixed_fine
    ):
        return no_alignment()
    return _enlarged(last.alignment, factor).astype(np.float32)


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
    _, alignment = next(_phase_peaks(*small, [0]))
    first, second = (_smoothed(_edges(image), _SMOOTH_EDGES) for image in small)
    reached = agreement_of(first, second, alignment)
    if reached <= agreement_of(first, second, no_alignment()) or _is_chance(reached, first, second):
        return 0.0
    return factor * max(0.0, float(np.linalg.norm(alignment[:, 2])) - 1)


def agreement(moving: np.ndarray, fixed: np.ndarray, alignment: np.ndarray) -> float:
    """Correlation of the images' edges where they overlap, times the square root of the overlap.

    As in the significance of a correlation, the square root of the number of pixels is the weight: it keeps a
    small corner that agrees by chance from winning.

    Args:
        moving, fixed: (height, width), any real dtype.
        alignment: (2, 3).

    Returns:
        At most 1; -1 for an overlap that is too small, and for constant images.
    """
    first, second = (
        _smoothed(_edges(np.asarray(image, np.float32)), _SMOOTH_EDGES) for image in (moving, fixed)
    )
    return agreement_of(first, second, alignment)


def _shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` x `factor` pixels, float32; incomplete squares are dropped.

    Args:
        image: (..., height, width).
        factor: side of the squares.
    """
    rows, columns = (side // factor for side in image.shape[-2:])
    whole = image[..., : rows * factor, : columns * factor]
    squares = whole.reshape(*image.shape[:-2], rows, factor, columns, factor)
    return squares.mean(axis=(-3, -1), dtype=np.float32)


def _enlarged(alignment: np.ndarray, factor: float) -> np.ndarray:
    """The alignment in pixels of the original images, from one in pixels of the images made by `_shrunk`."""
    matrix, shift = alignment[:, :2], alignment[:, 2]
    centre = np.full(2, (factor - 1) / 2)  # Centre of a square, relative to its first pixel.
    return np.column_stack([matrix, factor * shift + centre - matrix @ centre])


def _reduced(alignment: np.ndarray, factor: int) -> np.ndarray:
    """Inverse of `_enlarged`."""
    return _enlarged(alignment, 1 / factor)


def _edges(image: np.ndarray) -> np.ndarray:
    """Direction of the edges, the angle doubled, times the square root of their strength.

    The root keeps a few strong edges, as of a background, from outweighing all others.

    Args:
        image: (height, width), float32.

    Returns:
        float32 (2, height, width), cosine and sine.
    """
    along, across = (_derivative(image, axis) for axis in (0, 1))
    strength = np.hypot(along, across)
    scale = np.maximum(strength, 1e-9 * max(1.0, float(strength.max()))) ** -1.5
    return np.stack([(along**2 - across**2) * scale, 2 * along * across * scale])


def _derivative(image: np.ndarray, axis: int) -> np.ndarray:
    """Derivative along an axis, of the smoothed image."""
    smooth = ndimage.gaussian_filter1d(image, _SMOOTH, axis=1 - axis)
    return ndimage.gaussian_filter1d(smooth, _SMOOTH, axis=axis, order=1)


def _smoothed(edges: np.ndarray, pixels: float) -> np.ndarray:
    return ndimage.gaussian_filter(edges, (0, pixels, pixels))


def _is_chance(reached: float, moving: np.ndarray, fixed: np.ndarray) -> bool:
    """Whether unrelated edges of this grain, (2, height, width), would agree as well under some alignment.

    The limit is a multiple of the root mean square, over all shifts, of their correlation: the coarser the
    texture, the fewer independent places there are, and the higher that is.
    """
    if reached > _MOST_BY_CHANCE:
        return False
    shape = fixed.shape[1:]
    centred = [edges - edges.mean(axis=(1, 2), keepdims=True) for edges in (moving, fixed)]
    norms = [np.sqrt(np.square(edges).sum(dtype=np.float64)) for edges in centred]
    spectra = [fft.rfft2(edges) for edges in centred]
    correlations = fft.irfft2((spectra[0] * np.conj(spectra[1])).sum(axis=0), shape)
    typical = np.sqrt(np.square(correlations).mean(dtype=np.float64))
    return bool(reached * norms[0] * norms[1] <= _CHANCE * typical)


def _starts(moving: np.ndarray, fixed: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the alignments to start from: identity, centres of mass, peaks of the phase correlation."""
    yield no_alignment()
    yield np.column_stack([np.eye(2), _centre_of_mass(moving) - _centre_of_mass(fixed)])
    peaks = sorted(_phase_peaks(moving, fixed, _ANGLES), key=lambda peak: -peak[0])
    for _, alignment in peaks[:_PEAKS]:
        yield alignment


def _centre_of_mass(image: np.ndarray) -> np.ndarray:
    """Of what differs from the background, black or white: the value that most of the border has."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    mass = np.abs(image - np.median(border))
    mass = np.maximum(mass - 0.1 * mass.max(), 0)
    if not mass.any():
        return (np.array(image.shape) - 1) / 2
    return np.array(ndimage.center_of_mass(mass))


def _phase_peaks(
    moving: np.ndarray, fixed: np.ndarray, angles: Sequence[float]
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the highest peak of the phase correlation with the moving image rotated by each angle.

    Windowed, because otherwise the borders of the images dominate, and smoothed by `_FINE`, because a
    deformed pair has no sharp peak.

    Yields:
        Height of the peak, and its alignment.
    """
    shape = fixed.shape
    window = np.outer(*map(np.hanning, shape)).astype(np.float32)
    smoothing = _gaussian_spectrum(shape, _FINE * len(fixed))
    target = np.conj(_windowed_spectrum(fixed, window))
    centre = (np.array(shape) - 1) / 2
    for degrees in angles:
        angle = np.deg2rad(degrees)
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = centre - matrix @ centre
        turned = (
            ndimage.affine_transform(moving, matrix, offset, order=1, mode="nearest") if degrees else moving
        )
        product = _windowed_spectrum(turned, window) * target
        correlation = fft.irfft2(product / np.maximum(np.abs(product), 1e-9) * smoothing, shape)
        place = np.array(np.unravel_index(correlation.argmax(), shape))
        shift = np.where(place > np.array(shape) / 2, place - shape, place)
        yield correlation.max(), np.column_stack([matrix, offset + matrix @ shift])


def _windowed_spectrum(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    return fft.rfft2((image - np.average(image, weights=window)) * window)


def _gaussian_spectrum(shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """What `rfft2` of an image is multiplied by to smooth it."""
    rows, columns = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    return np.exp(-2 * (np.pi * deviation) ** 2 * (rows**2 + columns**2)).astype(np.float32)
