"""Brings the moving image of a pair into the fixed image's direction, as their headers tell it."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.geometry.affine import points_to_moving
from tfmetareg.imaging.grid import Grid, in_one_space
from tfmetareg.imaging.image import Image
from tfmetareg.types import ImagePair, Note

# Planes that are so many degrees apart show nothing in common.
_MOST_BETWEEN_PLANES = 45.0
_TURNED = "its header has it turned or mirrored against the fixed image; brought into that one's direction"
_UNKNOWN = "tells no direction; taken to be that of the image that it is paired with"


@dataclasses.dataclass(frozen=True)
class Turn:
    """A quarter turn or a mirror image: rows and columns change places, then each may be reversed.

    >>> import numpy as np
    >>> turn = Turn(transposed=True, reversed=(False, True))
    >>> turn.image(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [[4, 1], [5, 2], [6, 3]]
    >>> turn.points(np.array([[1.0, 2.0]]), (2, 3)).tolist()
    [[2.0, 0.0]]

    Attributes:
        transposed: whether rows become columns.
        reversed: whether the order of the turned image's (rows, columns) is reversed.
    """

    transposed: bool = False
    reversed: tuple[bool, bool] = (False, False)

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self != Turn()

    def image(self, image: np.ndarray) -> np.ndarray:
        """The turned image, of (height, width) or (height, width, channels); a view."""
        turned = image.swapaxes(0, 1) if self.transposed else image
        return turned[tuple(np.s_[::-1] if backwards else np.s_[:] for backwards in self.reversed)]

    def size(self, size: tuple) -> tuple:
        """Two numbers, (row, column), of an image, such as its shape or its pixel size, once it is turned."""
        return (size[1], size[0]) if self.transposed else (size[0], size[1])

    def matrix(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where points of an image of this shape lie in the turned one: float64 (2, 3), [A | t]."""
        signs = np.where(self.reversed, -1.0, 1.0)
        axes = np.eye(2)[::-1] if self.transposed else np.eye(2)
        last = np.array(self.size(shape)) - 1.0
        return np.column_stack([signs[:, None] * axes, np.where(self.reversed, last, 0.0)])

    def points(self, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Points of an image of this shape, (n, 2), in the turned one: float32 (n, 2)."""
        return points_to_moving(points, self.matrix(shape))

    def moving(self, pair: ImagePair) -> ImagePair:
        """The pair with its moving image turned, with all that belongs to it."""
        if not self:
            return pair
        return dataclasses.replace(
            pair,
            moving=self.image(pair.moving),
            moving_landmarks=self.points(pair.moving_landmarks, pair.moving.shape),
            moving_spacing=pair.moving_spacing and self.size(pair.moving_spacing),
            moving_labels=None if pair.moving_labels is None else self.image(pair.moving_labels),
        )


def turn_to_fixed(moving: Image, fixed: Image) -> Turn:
    """What brings the moving image into the fixed image's direction, to the nearest quarter turn.

    Nothing is turned unless both headers tell the direction.

    Raises:
        UserError: the images lie in different planes.
    """
    if not (moving.grid.is_known and fixed.grid.is_known):
        return Turn()
    ours, theirs = (_axes(grid) for grid in in_one_space(moving.grid, fixed.grid))
    apart = _degrees_between(ours, theirs)
    if apart > _MOST_BETWEEN_PLANES:
        raise UserError(
            f"{moving.name} and {fixed.name}: their headers put them into planes {apart:.0f} degrees apart; "
            "pair images of one plane, or correct the headers."
        )
    cosines = theirs.T @ ours
    straight, crossed = np.abs(np.diag(cosines)).sum(), np.abs(np.diag(cosines[:, ::-1])).sum()
    transposed = bool(crossed > straight + 1e-6)
    row, column = np.diag(cosines[:, ::-1] if transposed else cosines)
    return Turn(transposed, (bool(row < 0), bool(column < 0)))


def pair_notes(moving: Image, fixed: Image) -> tuple[Note, ...]:
    """What was done to read the two images and to bring them into one direction.

    Raises:
        UserError: the images lie in different planes.
    """
    notes = [Note(image.name, text) for image in (moving, fixed) for text in image.notes]
    if turn_to_fixed(moving, fixed):
        notes.append(Note(moving.name, _TURNED))
    if moving.grid.is_known != fixed.grid.is_known:
        notes.append(Note(fixed.name if moving.grid.is_known else moving.name, _UNKNOWN))
    return tuple(notes)


def _axes(grid: Grid) -> np.ndarray:
    """(2 or 3, 2): the directions down a column and along a row."""
    return np.reshape(grid.direction, (grid.dimension, grid.dimension))[:, 1::-1]


def _degrees_between(one: np.ndarray, other: np.ndarray) -> float:
    """The angle between two planes; 0 for a 2D space, which has only one."""
    if len(one) == 2:
        return 0.0
    cosine = abs(np.cross(*one.T) @ np.cross(*other.T))
    return float(np.degrees(np.arccos(min(1.0, cosine))))
