"""A registered pair: the field between two images, and what it carries from one to the other."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.evaluation import metrics
from tfmetareg.geometry.affine import compose, compose_displacement, invert, points_to_moving
from tfmetareg.geometry.displacement import (
    INTERPOLATIONS,
    carry_to_fixed,
    carry_to_moving,
    warp_image,
    warp_labels,
)
from tfmetareg.imaging.direction import Turn
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.landmark_files import LandmarkFile
from tfmetareg.imaging.read import ImageLike, open_image
from tfmetareg.registration.adaptation import AdaptationOutcome
from tfmetareg.types import ImagePair, Note, is_aligned

# What each part of the work took, by name.
Seconds = dict[str, float]


@contextlib.contextmanager
def timed(seconds: Seconds, part: str) -> Iterator[None]:
    """Adds the time of the block to a part."""
    began = time.perf_counter()
    yield
    seconds[part] = round(seconds.get(part, 0.0) + time.perf_counter() - began, 4)


def as_points(points: np.ndarray) -> np.ndarray:
    """float32 (n, 2), (row, column).

    Raises:
        UserError: another shape.
    """
    points = np.asarray(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 2:
        raise UserError(f"`points` must have the shape (n, 2), (row, column), got {points.shape}.")
    return points


class PreparedPair(NamedTuple):
    """A pair as it was read, and as the network sees it.

    Attributes:
        raw: the images as they were, one channel each.
        moving, fixed: uint8 of one shape; the moving image is not aligned yet.
        aligned: uint8, the moving image after its alignment.
        align: the kind of alignment that was looked for between these two.
        alignment: float32 (2, 3), what was found.
        moving_matrix, fixed_matrix: float64 (2, 3), where points of the raw images lie in them.
        turn: what brought the raw moving image into the fixed image's direction ahead of all else.
        notes: what was done to read the images that other programs do differently.
    """

    raw: ImagePair
    moving: np.ndarray
    fixed: np.ndarray
    aligned: np.ndarray
    align: str
    alignment: np.ndarray
    moving_matrix: np.ndarray
    fixed_matrix: np.ndarray
    turn: Turn = Turn()
    notes: tuple[Note, ...] = ()

    @property
    def is_aligned(self) -> bool:
        """Whether an alignment other than the identity was found."""
        return is_aligned(self.alignment)

    @property
    def network_input(self) -> tuple[np.ndarray, np.ndarray]:
        """What the network gets: the moving image, aligned, and the fixed one."""
        return self.aligned, self.fixed

    def seen_percent(self) -> dict[str, float]:
        """Percentage of each image within the frame that the network sees; `fit: crop` cuts off the rest."""
        shares = {}
        for name, matrix in (("moving", self.moving_matrix), ("fixed", self.fixed_matrix)):
            corners = np.array([[-0.5, -0.5], getattr(self.raw, name).shape])
            corners[1] -= 0.5
            places = points_to_moving(corners, matrix)
            within = np.clip(places, -0.5, np.array(self.fixed.shape) - 0.5)
            shares[name] = round(100 * float(np.prod(np.ptp(within, axis=0) / np.ptp(places, axis=0))), 2)
        return shares

    @property
    def unregistered(self) -> np.ndarray:
        """(2, 3): where points of the raw fixed image lie in the raw moving one, by their sizes alone."""
        return compose(invert(self.moving_matrix), self.fixed_matrix)


class CarriedPoints(NamedTuple):
    """Points of the fixed image and where they lie in the moving one, float32 (n, 2) each, (row, column).

    NaN where a point of the moving image lies nowhere in the fixed one, and where none was given.
    """

    fixed: np.ndarray
    moving: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RegisteredPair:
    """A registered pair.

    Attributes:
        moving, fixed: the images.
        displacement: float32 (height, width, 2), pixels, (row, column), on the fixed image's own grid: its
            point p lies at p + displacement[p] in the moving image.
        warped: the moving image with all its channels on the fixed image's grid, in its own dtype.
        prepared: the pair as the network saw it.
        residual: float32, what the network found after the alignment, in pixels of what it saw.
        reach: how far the network finds a partner, in the same pixels.
        adaptation: how gradient steps on this pair went, if there were any.
        points: the points that were carried over, if any.
        points_in: image that they were given in, "fixed" or "moving".
        moving_labels, fixed_labels: label maps of the images, if any were given.
        warped_labels: the moving image's labels on the fixed image's grid, (height, width), in their own
            integers; 0 where the moving image has no pixel. None without labels.
        seconds: what each part of the work took.
        points_file: the points as their file holds them, if they come from one.
    """

    moving: Image
    fixed: Image
    displacement: np.ndarray
    warped: np.ndarray
    prepared: PreparedPair
    residual: np.ndarray
    reach: float
    adaptation: Optional[AdaptationOutcome] = None
    points: Optional[CarriedPoints] = None
    points_in: str = "fixed"
    moving_labels: Optional[Image] = None
    fixed_labels: Optional[Image] = None
    warped_labels: Optional[np.ndarray] = None
    seconds: Seconds = dataclasses.field(default_factory=dict)
    points_file: Optional[LandmarkFile] = None

    def __repr__(self) -> str:
        height, width = self.fixed.shape
        return f"{type(self).__name__}({self.moving.name} onto {self.fixed.name}, {height} x {width})"

    def to_moving(self, points: np.ndarray) -> np.ndarray:
        """Where points of the fixed image lie in the moving one: float32 (n, 2), (row, column), pixels."""
        return carry_to_moving(as_points(points), self.displacement)

    def to_fixed(self, points: np.ndarray) -> np.ndarray:
        """Where points of the moving image lie in the fixed one; NaN where none of its pixels lands there."""
        return carry_to_fixed(as_points(points), self.displacement)

    @property
    def turned_displacement(self) -> np.ndarray:
        """The displacement into the moving image once that has the fixed image's direction; often the same.

        Lengths and folding are told of this one: a mirror image is no fold.
        """
        turn = self.prepared.turn.matrix(self.moving.shape)
        return compose_displacement(self.displacement, turn)

    @property
    def unregistered(self) -> np.ndarray:
        """The displacement by the images' sizes alone: what there is before registration."""
        return compose_displacement(np.zeros_like(self.displacement), self.prepared.unregistered)

    @property
    def unregistered_labels(self) -> Optional[np.ndarray]:
        """The moving image's labels on the fixed image's grid before registration; None without labels."""
        labels = self.moving_labels
        return None if labels is None else warp_labels(labels.pixels, self.unregistered)

    def jacobian_determinant(self) -> np.ndarray:
        """Area that each pixel comes to have, float32 (height - 1, width - 1); at or below 0 it folds."""
        return np.asarray(metrics.jacobian_determinant(self.turned_displacement[None]))[0]

    def warp(
        self, image: ImageLike, interpolation: str = "linear", fill: Optional[float] = None
    ) -> np.ndarray:
        """Another image of the moving image's grid, brought onto the fixed one's.

        Args:
            image: path, array, SimpleITK or nibabel image, of the moving image's size.
            interpolation: "linear", or "nearest" for label maps.
            fill: value where the moving image has no pixel; None continues its border outwards.

        Returns:
            (height, width) or (height, width, channels), of the dtype of `image`.

        Raises:
            UserError: another size than the moving image's, or values that are no real numbers.
        """
        other = open_image(image)
        if interpolation not in INTERPOLATIONS:
            raise UserError(
                f"`interpolation` must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}."
            )
        if other.pixels.dtype.kind not in "buif":
            raise UserError(f"{other.name}: must hold real numbers, got {other.pixels.dtype}.")
        if other.shape != self.moving.shape:
            raise UserError(
                f"{other.name}: must have the moving image's size, {self.moving.shape}, got {other.shape}."
            )
        return warp_image(other.pixels, self.displacement, fill, interpolation)
