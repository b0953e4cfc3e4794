"""How well two label maps agree: Dice, 95 % Hausdorff distance and average symmetric surface distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

import numpy as np
from scipy import ndimage

RowColumn = tuple[float, float]


class LabelScores(NamedTuple):
    """How well one label of two label maps agrees.

    Attributes:
        dice: overlap, see `dice`.
        hd95_px, hd95_mm: 95 % Hausdorff distance, see `surface_distances`.
        assd_px, assd_mm: average symmetric surface distance, see there.

    None where a measure is undefined: the distances of a label that one of the maps lacks, and those in mm
    where the pixel size is unknown.
    """

    dice: Optional[float]
    hd95_px: Optional[float]
    hd95_mm: Optional[float]
    assd_px: Optional[float]
    assd_mm: Optional[float]


MEASURES = LabelScores._fields


class LabelAgreement(NamedTuple):
    """One label of a pair.

    Attributes:
        before, after: its scores before and after registration.
        in_both: whether both images have the label.
    """

    before: LabelScores
    after: LabelScores
    in_both: bool

    @property
    def is_lost(self) -> bool:
        """Whether both images have the label, but the warped one no more: its distances are undefined."""
        return self.in_both and self.after.hd95_px is None


def agreement(
    moving: np.ndarray,
    fixed: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    spacing: Optional[RowColumn] = None,
) -> dict[int, LabelAgreement]:
    """How well the labels of a pair agree, before and after registration.

    >>> moving, fixed = np.array([[0, 0, 5, 5]]), np.array([[0, 5, 5, 0]])
    >>> scores = agreement(moving, fixed, before=moving, after=fixed)[5]
    >>> scores.before.dice, scores.before.hd95_px, scores.after.dice
    (0.5, 1.0, 1.0)

    Args:
        moving, fixed: integers, labels of each image on its own grid; 0 is background.
        before, after: labels of the moving image on the fixed image's grid.
        spacing: pixel size (row, column) of that grid in mm, None if unknown.

    Returns:
        By label, in ascending order: the labels of either image, so that every registration of a pair is
        measured on the same ones.
    """
    of_moving, of_fixed = ({*np.unique(each).tolist()} - {0} for each in (moving, fixed))
    return {
        label: LabelAgreement(
            before=label_scores(before == label, fixed == label, spacing),
            after=label_scores(after == label, fixed == label, spacing),
            in_both=label in of_moving and label in of_fixed,
        )
        for label in sorted(of_moving | of_fixed)
    }


def label_scores(one: np.ndarray, other: np.ndarray, spacing: Optional[RowColumn] = None) -> LabelScores:
    """All measures of two regions.

    Args:
        one, other: bool (height, width).
        spacing: pixel size (row, column) in mm, None if unknown.
    """
    surfaces = _surface(one), _surface(other)
    distances = {"px": _distances(*surfaces), "mm": np.empty(0)}
    if spacing is not None:
        distances["mm"] = _distances(*(points * spacing for points in surfaces))
    values = {
        f"{name}_{unit}": float(measure(each)) if len(each) else None
        for unit, each in distances.items()
        for name, measure in (("hd95", lambda each: np.percentile(each, 95)), ("assd", np.mean))
    }
    return LabelScores(dice=dice(one, other), **values)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice overlap of two regions, 2 |A and B| / (|A| + |B|).

    >>> dice(np.array([True, True, False]), np.array([False, True, True]))
    0.5

    Args:
        one, other: bool, of one shape.

    Returns:
        From 0 to 1; 0 if only one region is empty, 1 if both are: they agree.
    """
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def surface_distances(one: np.ndarray, other: np.ndarray, spacing: RowColumn = (1.0, 1.0)) -> np.ndarray:
    """Distances from each surface pixel of a region to the nearest one of the other, both ways, pooled.

    The surface of a region are its pixels with one of their four neighbours outside, where outside the image
    is outside the region. The 95 % Hausdorff distance is the 95th percentile of these distances (with linear
    interpolation), the average symmetric surface distance (ASSD) their mean. Both pool the two directions, as
    medpy's `hd95` does; other programs take the larger of two percentiles, or the mean of two means.

    >>> square = np.zeros((9, 9), bool)
    >>> square[2:5, 2:5] = True
    >>> surface_distances(square, np.roll(square, 2, axis=1), spacing=(1.0, 0.5)).max()
    1.0

    Args:
        one, other: bool (height, width).
        spacing: pixel size (row, column) in the unit of the result; the default gives pixels.

    Returns:
        float64 (n,), n the surface pixels of both; (0,) where one region is empty and there is no distance.
    """
    return _distances(*(_surface(region) * spacing for region in (one, other)))


def before(measure: str) -> str:
    """Name of a measure's value before registration.

    >>> before("dice"), before("hd95_mm")
    ('dice_before', 'hd95_before_mm')
    """
    name, line, unit = measure.partition("_")
    return f"{name}_before{line}{unit}"


def pair_means(scores: Mapping[int, LabelAgreement]) -> dict[str, Optional[float]]:
    """Means over the labels of a pair, by the measure's name, also `before` registration.

    >>> moving, fixed = np.array([[1, 0, 0]]), np.array([[1, 1, 2]])
    >>> means = pair_means(agreement(moving, fixed, before=moving, after=fixed))
    >>> round(means["dice_before"], 4), means["dice"], means["hd95_px"]
    (0.3333, 1.0, 0.0)

    Args:
        scores: as from `agreement`.

    Returns:
        Dice over the labels of either image; distances over those that both images have, after registration
        without the lost ones. None where no label has the measure.
    """
    found = {}
    for name in MEASURES:
        over = [each for each in scores.values() if each.in_both or name == "dice"]
        found[before(name)] = _mean([getattr(each.before, name) for each in over])
        found[name] = _mean([getattr(each.after, name) for each in over])
    return found


def _mean(values: list[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _surface(region: np.ndarray) -> np.ndarray:
    """Points (n, 2), (row, column), of a region's surface pixels."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.empty((0, 2), int)
    box = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.argwhere(box & ~ndimage.binary_erosion(box)) + (rows[0], columns[0])


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """From each point of two sets to the nearest one of the other set; (0,) if one is empty."""
    if not len(points) or not len(others):
        return np.empty(0)
    ways = ((points, others), (others, points))
    from scipy.spatial import cKDTree  # Slow to import, and needed for surfaces alone.

    return np.concatenate([cKDTree(target).query(source)[0] for source, target in ways])
