"""Whether two images show the same contrast, and the picture that compares them: overlay or checkerboard.

A magenta-green overlay is grey where two images agree in brightness. Images of two stains or two MRI
sequences never do, however well they are registered: they are shown as a checkerboard, whose edges run on
from tile to tile where the images agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

Comparison = Literal["overlay", "checkerboard"]

# Below this agreement two images count as of different contrasts. Seen: 0.96 and more in repeat scans of a
# retina once they are registered, 0.7 to 0.98 before; 0.5 to 0.9, mostly below 0.7, in registered sections of
# different stains; 0.2 for FLAIR against T1, below 0 for T2 against T1.
LEAST_AGREEMENT = 0.7
# Above this colour difference two images count as of different stains. Seen: 0.2 between the palest, 0.4 to
# 0.9 between most. One stain, much paler in one image, may lie above it; a checkerboard suits it, too.
MOST_COLOUR_DIFFERENCE = 0.15
# Chroma in CIELAB units below which an image counts as grey.
_GREY = 6.0
# Images are measured at this many pixels a side at most, in windows of this share of a side.
_SIDE, _WINDOW = 256, 1 / 24
# A window has structure if its variance is above this share of the mean variance.
_STRUCTURE = 0.1
# Tiles along the longer side of a checkerboard.
TILES = 8


def agreement(image: np.ndarray, other: np.ndarray) -> float:
    """How consistently bright corresponds to bright: mean over mean magnitude of local correlations.

    1 where edges run the same way everywhere, as in two images of one contrast that are registered; -1 in an
    inverted image; about 0 where they run either way, as in images of different contrasts or of different
    places. Differences in brightness that vary slowly have no part in it.

    >>> rows, columns = np.mgrid[:64, :64]
    >>> image = np.sin(rows / 3) * np.sin(columns / 4)
    >>> round(agreement(image, 2 * image + rows / 100), 1), round(agreement(image, -image), 1)
    (1.0, -1.0)

    Args:
        image, other: (height, width), finite.
    """
    one, another = (ndimage.gaussian_filter(_reduced(each), 1.0) for each in (image, other))
    width = max(5, round(max(one.shape) * _WINDOW))
    (mean, square), (mean_other, square_other) = (
        (ndimage.uniform_filter(each, width), ndimage.uniform_filter(each * each, width))
        for each in (one, another)
    )
    variance, variance_other = square - mean**2, square_other - mean_other**2
    covariance = ndimage.uniform_filter(one * another, width) - mean * mean_other
    clear = (variance > _STRUCTURE * variance.mean()) & (variance_other > _STRUCTURE * variance_other.mean())
    correlation = covariance[clear] / np.sqrt(variance[clear] * variance_other[clear])
    magnitude = np.abs(correlation).mean() if clear.any() else 0.0
    return float(correlation.mean() / magnitude) if magnitude > 1e-6 else 0.0


def colour_difference(image: np.ndarray, other: np.ndarray) -> float:
    """How much two images differ in colour, as a share of the stronger colour; 0 for grey images.

    The colour of an image is the mean CIELAB (a, b) of its more colourful half.

    Args:
        image, other: (height, width) or (height, width, 3) in [0, 1], sRGB.
    """
    if image.ndim == 2 or other.ndim == 2:
        return 0.0
    one, another = _colour(image), _colour(other)
    strength = max(np.linalg.norm(one), np.linalg.norm(another))
    return float(np.linalg.norm(one - another) / strength) if strength > _GREY else 0.0


def fitting_comparison(pairs: Iterable[Sequence[np.ndarray]]) -> Comparison:
    """The picture that suits a set of pairs: a checkerboard if most of them differ in contrast or in stain.

    Args:
        pairs: of each pair the fixed image, then one or more versions of the moving image on its grid, of
            which the one that agrees best counts; (height, width) or (height, width, 3) in [0, 1].
    """
    agreements, differences = [], []
    for fixed, *versions in pairs:
        grey = luminance(fixed)
        agreements.append(max(agreement(luminance(version), grey) for version in versions))
        differences.append(colour_difference(versions[0], fixed))
    if not agreements:
        return "overlay"
    alike = np.median(agreements) >= LEAST_AGREEMENT and np.median(differences) <= MOST_COLOUR_DIFFERENCE
    return "overlay" if alike else "checkerboard"


def checkerboard(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Square tiles of two images in turn, TILES along the longer side; the first tile is of `other`.

    Args:
        image, other: (height, width) or (height, width, 3); grey becomes colour if only one is colour.
    """
    rows, columns = np.indices(other.shape[:2]) // max(-(-max(other.shape[:2]) // TILES), 1)
    turn = (rows + columns) % 2 == 0
    if image.ndim == other.ndim == 2:
        return np.where(turn, other, image)
    image, other = (each if each.ndim == 3 else np.repeat(each[..., None], 3, -1) for each in (image, other))
    return np.where(turn[..., None], other, image)


def overlay(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Overlays two images as in Fig. 4: the first magenta, the second green, grey to white where they agree.

    >>> overlay(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).tolist()
    [[[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]]

    Args:
        image, other: (height, width) or (height, width, 3) in [0, 1]; of colour, the luminance is shown.

    Returns:
        (height, width, 3) float32 RGB in [0, 1].
    """
    image, other = luminance(image), luminance(other)
    return np.clip(np.stack([image, other, image], axis=-1), 0.0, 1.0).astype(np.float32)


def luminance(image: np.ndarray) -> np.ndarray:
    """Grey values of (height, width) or (height, width, 3): Rec. 709 luma."""
    return image if image.ndim == 2 else image @ np.array([0.2126, 0.7152, 0.0722], image.dtype)


def _reduced(image: np.ndarray) -> np.ndarray:
    """float64, reduced by block means to at most _SIDE pixels a side, and scaled to [0, 1]."""
    factor = -(-max(image.shape) // _SIDE)
    rows, columns = (max(side // factor, 1) for side in image.shape)
    cut = image[: rows * factor, : columns * factor].astype(np.float64)
    means = cut.reshape(rows, cut.shape[0] // rows, columns, cut.shape[1] // columns).mean(axis=(1, 3))
    return (means - means.min()) / max(np.ptp(means), 1e-12)


def _colour(image: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2lab  # Slow to import, and needed for colour images only.

    step = -(-max(image.shape[:2]) // _SIDE)
    colours = rgb2lab(image[::step, ::step])[..., 1:].reshape(-1, 2)
    chroma = np.linalg.norm(colours, axis=1)
    return colours[chroma >= np.median(chroma)].mean(axis=0)
