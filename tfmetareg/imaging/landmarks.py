"""Landmarks on an image: brought from their file's frame to its pixels, or refused where they do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath
from tfmetareg.geometry.frame import inside_image
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.landmark_files import (
    ELASTIX,
    IMAGEJ,
    IMAGEJ_TABLE,
    INDEX,
    LPS,
    PIXEL,
    RAS,
    LandmarkFile,
    read_landmark_file,
)
from tfmetareg.imaging.volumes import volume_file
from tfmetareg.types import Note

# Millimetres in the units of length that programs write where we expect another.
_UNITS = {"mm": 1.0, "µm": 1e-3, "cm": 10.0, "inches": 25.4}
# Points may lie so many slice thicknesses off the plane of their image: half of one, and what is lost in
# writing it.
_OFF_PLANE = 0.51
# Pixels by which a point at the very border may leave the image when mm are rounded.
_ROUNDING = 1e-3
# Points that spread over less than this share of an image's sides are nobody's landmarks of it.
_LEAST_SPREAD = 0.02
# Another reading is named where the points would be so much likelier in it, if they lay anywhere in the image
# alike; they must then spread over this share of both sides.
_LIKELIER, _WIDE_SPREAD = 1e4, 0.5
# Landmarks of a pair belong together otherwise where that brings them so many times nearer, if there are so
# many at least and they lie this share of the image apart.
_NEARER, _LEAST_COUNT, _APART = 4.0, 4, 0.1


class Reading(NamedTuple):
    """Another way to take the numbers of a file: what they would be, and the points that they would give."""

    name: str
    points: np.ndarray


def read_landmarks(path: StrPath, image: Optional[Image] = None) -> np.ndarray:
    """Reads the landmarks of an image from a file in any supported format.

    >>> import tempfile
    >>> from tfmetareg.imaging.grid import Grid
    >>> grid = Grid((40, 60), spacing=(0.5, 0.5), origin=(10.0, -20.0), is_known=True)
    >>> image = Image(np.zeros((40, 60)), grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "pixels.csv").write_text("x,y\\n3.5,7\\n")
    ...     _ = Path(folder, "mm.csv").write_text("l,p,s\\n11.75,-16.5,0\\n")
    ...     in_pixels, from_mm = (
    ...         read_landmarks(Path(folder, name), image) for name in ("pixels.csv", "mm.csv")
    ...     )
    >>> np.array_equal(in_pixels, from_mm)
    True

    Args:
        path: of the file; `docs/landmarks.md` lists the formats.
        image: the image that they lie on, with its grid; needed for points in mm. Without it, points in
            pixels are not checked.

    Returns:
        float32 (n, 2), (row, column) in pixels, pixel centres at integers, in the file's order.

    Raises:
        UserError: as `read_landmark_file` and `points_on`.
    """
    file = read_landmark_file(Path(path))
    if image is not None:
        return points_on(file, image)
    if file.frame != PIXEL:
        raise UserError(f"{path}: {file}; name the image that these points lie on, or give them in pixels.")
    return file.coordinates.astype(np.float32)


def points_on(file: LandmarkFile, image: Image, other: Optional[Image] = None) -> np.ndarray:
    """The points of a landmark file on an image.

    Args:
        file: as `read_landmark_file` gives it.
        image: the image that they lie on.
        other: the pair's other image: points that lie outside `image` may turn out to be of that one.

    Returns:
        float32 (n, 2), (row, column), pixels; NaN for points that were carried over and are empty or lie
        beyond the image.

    Raises:
        UserError: the image does not tell where its pixels lie, as points in mm need it; points off its
            plane or outside it, with the readings in which they would lie inside; an ImageJ table whose unit
            cannot be told.
    """
    if file.frame in (LPS, RAS):
        _check_grid(file, image)
        _check_plane(file, image, other)
    elif file.frame in (INDEX, IMAGEJ):
        _check_as_stored(file, image)
    points = _points(file, image)
    limit = np.asarray(image.shape) - 0.5
    near = np.clip(points, -0.5, limit)
    points = np.where(np.abs(points - near) <= _ROUNDING, near, points)
    if file.is_carried:
        points[~inside_image(points, image.shape)] = np.nan
    elif not _all_inside(points, image):
        check_inside(points, image.shape, str(file.path), _hint(file, image, other))
    return points.astype(np.float32)


def in_mm(file: LandmarkFile, points: np.ndarray, grid: Grid) -> LandmarkFile:
    """Points on another image as a file of the same format and frame.

    Args:
        file: where the points came from, in LPS or RAS.
        points: (n, 2), (row, column), pixels of the other image; NaN becomes NaN.
        grid: of the other image, known.
    """
    places = dataclasses.replace(file, coordinates=grid.places(points))
    return dataclasses.replace(places, coordinates=places.lps)  # Its own inverse.


def _points(file: LandmarkFile, image: Image) -> np.ndarray:
    """float64 (n, 2): the points as the file declares them, wherever they lie."""
    if file.frame in (LPS, RAS):
        return image.grid.from_lps(file.lps)[0]
    return file.coordinates if file.frame == PIXEL else file.coordinates[:, 1::-1]


def _off_plane(places: np.ndarray, grid: Grid) -> tuple[np.ndarray, float]:
    """How far places lie from the plane of an image, (n,), and how thick it is, both in mm.

    A 2D image does not tell its height: its points must have one of their own. It is as thick as its pixels
    are wide.
    """
    if grid.dimension == 3:
        return grid.from_lps(places)[1], grid.spacing[2]
    heights = places[:, 2:].sum(axis=1)
    return np.abs(heights - np.median(heights)) if len(heights) else heights, max(grid.spacing)


def _in_plane_points(places: np.ndarray, grid: Grid) -> np.ndarray:
    """Points at places, mm, LPS: float64 (n, 2); infinity for places that lie off the plane of the image."""
    distance, thickness = _off_plane(places, grid)
    return np.where((distance > _OFF_PLANE * thickness)[:, None], np.inf, grid.from_lps(places)[0])


def check_inside(points: np.ndarray, shape: tuple[int, ...], where: str, hint: str = "") -> None:
    """Refuses points outside the image, see `inside_image`.

    Args:
        points: (n, 2), (row, column), pixels.
        shape: (height, width) of the image.
        where: name of the landmarks in the error.
        hint: what to do; empty for a general one.

    Raises:
        UserError: a point lies outside.
    """
    outside = np.flatnonzero(~inside_image(points, shape))
    if len(outside):
        row, column = points[outside[0]]
        others = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        raise UserError(
            f"{where}: point {outside[0] + 1} (x {column:g}, y {row:g}){others} lies outside the image of "
            f"width {shape[1]} and height {shape[0]}; {hint or 'check units and order of the coordinates'}."
        )


def _hint(file: LandmarkFile, image: Image, other: Optional[Image]) -> str:
    """The readings in which all points would lie on the image; empty if there is none."""
    fitting = [reading.name for reading in _other_readings(file, image) if _all_inside(reading.points, image)]
    if other is not None and _fits(file, other):
        fitting.insert(0, f"points of {other.name}")
    if not fitting:
        return ""
    return (
        f"read as {', or as '.join(fitting[:2])}, all would lie inside: correct the file, or what it declares"
    )


def _fits(file: LandmarkFile, image: Image) -> bool:
    try:
        points_on(file, image)
    except UserError:
        return False
    return True


def _all_inside(points: np.ndarray, image: Image) -> bool:
    """Whether all points that are given lie on the image."""
    given = points[~np.isnan(points).any(axis=1)]
    return len(given) > 0 and bool(inside_image(given, image.shape).all())


def _check_grid(file: LandmarkFile, image: Image) -> None:
    if not image.grid.is_known:
        raise UserError(
            f"{file.path}: {file}, but {image.name} does not tell where its pixels lie; give the points in "
            "pixels, as CSV with `x,y`, or the image with its geometry, for instance as NIfTI."
        )
    if file.coordinates.shape[1] < image.grid.dimension:
        raise UserError(
            f"{file.path}: points of two numbers, but {image.name} is a slice in space; give all three."
        )


def _check_plane(file: LandmarkFile, image: Image, other: Optional[Image]) -> None:
    """Refuses points in space that lie beside the image: on another slice, or of another image."""
    distance, thickness = _off_plane(file.lps, image.grid)
    far = np.flatnonzero(distance > _OFF_PLANE * thickness)
    if len(far):
        others = f" (and {len(far) - 1} more)" if len(far) > 1 else ""
        plane = f"the plane of {image.name}" if image.grid.dimension == 3 else "the height of the others"
        hint = _hint(file, image, other) or f"give points of the slice that {image.name} is"
        raise UserError(
            f"{file.path}: {file.label(far[0])}{others} lies {distance[far[0]]:.4g} mm off {plane}, more "
            f"than half its thickness of {thickness:.4g} mm; {hint}."
        )


def _check_as_stored(file: LandmarkFile, image: Image) -> None:
    """Refuses points counted in the file's own pixels where these are not those of the image, or not told."""
    if any(note.startswith("turned") for note in image.notes):
        raise UserError(
            f"{file.path}: {file}, counted in {image.name} as it is stored, which viewers show turned; write "
            "the points in the pixels of the picture as shown, as CSV with `x,y`."
        )
    is_slice = volume_file(image.name) != image.name
    if file.frame == INDEX and (is_slice or file.coordinates[:, 2:].any()):
        raise UserError(
            f"{file.path}: {ELASTIX} with `index`, voxels of a volume, but {image.name} is one 2D image, "
            "turned for display if it is a slice; write `point` and the points in mm (LPS)."
        )
    unit = _possible_unit(file, image) if file.frame == IMAGEJ else None
    if unit:
        raise UserError(
            f"{file.path}: {IMAGEJ_TABLE} of an image with a pixel size ({image.name}): X and Y may be "
            f"pixels or {unit}; in ImageJ remove the scale (Analyze > Set Scale), measure again, and save "
            "the columns X and Y alone, as CSV with the header `x,y`."
        )


def _possible_unit(file: LandmarkFile, image: Image) -> Optional[str]:
    """The unit that an ImageJ table may be in; None where it must be pixels.

    ImageJ gives X and Y in the unit of the image's calibration where it knows one, and does not tell.
    """
    sizes = image.spacing or image.grid.pixel_size
    pixels = _points(file, image)
    if (image.spacing is None and sizes == (1.0, 1.0)) or not len(pixels):
        return None
    for unit, mm in _UNITS.items():
        calibrated = pixels * mm / np.asarray(sizes)
        spread = np.ptp(calibrated, axis=0) / image.shape
        is_plausible = len(pixels) == 1 or spread.max() > _LEAST_SPREAD
        if is_plausible and _all_inside(calibrated, image) and not np.allclose(calibrated, pixels):
            return unit
    return None


def _other_readings(file: LandmarkFile, image: Image) -> Iterator[Reading]:
    """Other ways in which people write the same numbers: likelier mistakes first."""
    grid = image.grid
    if file.frame in (LPS, RAS):
        signs = np.array([-1.0, -1.0, 1.0][: file.coordinates.shape[1]])
        yield Reading("LPS" if file.frame == RAS else "RAS", _in_plane_points(file.lps * signs, grid))
        yield Reading("pixels, x,y", file.coordinates[:, 1::-1])
        yield Reading("pixels, row,col", file.coordinates[:, :2])
        for unit, mm in _UNITS.items():
            if unit != "mm":
                yield Reading(unit, _in_plane_points(file.lps * mm, grid))
        return
    points = _points(file, image)
    yield Reading("pixels counted from 1", points - 1)
    yield Reading("x and y exchanged", points[:, ::-1])
    if grid.is_known:
        for name, sign in (("mm, LPS", 1.0), ("mm, RAS", -1.0)):
            in_plane = _of_two_numbers(sign * points[:, ::-1], image)
            if in_plane is not None:
                yield Reading(name, in_plane)
    if image.spacing is not None:
        for unit, mm in _UNITS.items():
            yield Reading(f"{unit} from the image's corner", points * mm / np.asarray(image.spacing))


def _of_two_numbers(places: np.ndarray, image: Image) -> Optional[np.ndarray]:
    """Points at places (x, y), mm, LPS, of any z; None for an image perpendicular to that plane."""
    origin, column, row = image.grid.places(np.array([[0, 0], [0, 1], [1, 0]]))[:, :2]
    steps = np.column_stack([column - origin, row - origin])
    if abs(np.linalg.det(steps)) < 1e-3 * np.prod(image.grid.pixel_size):
        return None
    return np.linalg.solve(steps, (places - origin).T).T[:, ::-1]


def landmark_doubts(
    moving: LandmarkFile, fixed: LandmarkFile, moving_image: Image, fixed_image: Image
) -> tuple[Note, ...]:
    """What makes it likely that the landmarks of a pair are not what their files say.

    Landmarks that lie on their images may still be mm written as pixels, or have x and y exchanged in one of
    the two files.

    Args:
        moving, fixed: the files, row i of one the partner of row i of the other.
        moving_image, fixed_image: the images that they lie on.
    """
    sets = ((moving, moving_image), (fixed, fixed_image))
    doubts = [doubt for file, image in sets for doubt in _narrow(file, image)]
    shares = [_points(file, image) / image.shape for file, image in sets]
    apart = _mean_distance(*shares)
    if len(shares[0]) < _LEAST_COUNT or apart < _APART:
        return (*doubts,)
    nearer = [
        (_mean_distance(reading.points / image.shape, partner), reading.name)
        for (file, image), partner in zip(sets, reversed(shares))
        for reading in _other_readings(file, image)
        if _all_inside(reading.points, image)
    ]
    distance, name = min(nearer, default=(apart, ""))
    if distance * _NEARER < apart:
        text = (
            f"its landmarks lie {apart:.0%} of the image from those of {fixed.path.name}, {distance:.0%} if "
            f"one of the two files is read as {name}: check both"
        )
        doubts.append(Note(str(moving.path), text))
    return (*doubts,)


def _narrow(file: LandmarkFile, image: Image) -> Iterator[Note]:
    """Whether the landmarks crowd in a part of the image that is all of it in another unit."""
    points = _points(file, image)
    if len(points) < _LEAST_COUNT:
        return
    for reading in _other_readings(file, image):
        if not _all_inside(reading.points, image):
            continue
        spread = np.ptp(reading.points, axis=0) / image.shape
        if spread.min() < _WIDE_SPREAD:
            continue
        areas = [np.sqrt(max(np.linalg.det(np.cov(each.T)), 0)) for each in (points, reading.points)]
        if areas[0] > 0 and len(points) * np.log(areas[1] / areas[0]) > np.log(_LIKELIER):
            height, width = np.ptp(points, axis=0)
            text = (
                f"its landmarks lie within {width:.0f} x {height:.0f} pixels of the image; read as "
                f"{reading.name} they would spread over all of it: check their unit"
            )
            yield Note(str(file.path), text)
            return


def _mean_distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other, axis=1).mean()) if len(one) else 0.0
