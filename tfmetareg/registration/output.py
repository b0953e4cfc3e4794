"""Writes a registered pair: image, displacement, points, figures, page, summary, in a folder of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Union

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published, write_json
from tfmetareg.geometry.affine import compose, compose_displacement, invert
from tfmetareg.geometry.displacement import covered_pixels, warp_image
from tfmetareg.imaging.display import displayed
from tfmetareg.imaging.field_files import write_field
from tfmetareg.imaging.grid import in_one_space
from tfmetareg.imaging.landmark_writers import is_written, write_landmark_file, write_points
from tfmetareg.imaging.landmarks import in_mm
from tfmetareg.imaging.write import WRITTEN, holds_grid, write_image, write_labels
from tfmetareg.registration.measures import measure
from tfmetareg.registration.result import RegisteredPair, timed
from tfmetareg.report.contrast import Comparison
from tfmetareg.report.drawing import drawn_beside
from tfmetareg.report.registration_panels import RegistrationPanels, shrink_factors, shrunk

SUMMARY = "summary.json"


class DiskFullError(UserError):
    """The disk is full, for other pairs as well."""


def save_registration(
    registration: RegisteredPair,
    folder: Path,
    *,
    formats: Sequence[str],
    figures: bool,
    comparison: Union[Comparison, Literal["auto"]] = "auto",
    description: Optional[dict[str, Any]] = None,
    measures: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """Writes everything about a pair into a folder that appears when it is whole.

    Args:
        registration: the pair.
        folder: must not be there yet.
        formats: of the displacement.
        figures: draws them and the page that shows them, too.
        comparison: picture that compares the images, see `panels`.
        description: what the summary tells ahead of the measures: inputs, weights, options.
        measures: of the pair, where they are known already.

    Returns:
        The summary.

    Raises:
        UserError: the folder is there already or cannot be written; a `DiskFullError` where the disk is full.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder}: is there already; move it away, or name another folder.")
    seconds = dict(registration.seconds)
    with timed(seconds, "measure"):
        measures = measures or measure(registration)
    summary = {"schema": 1, "pair": folder.name, **(description or {}), **measures}
    with timed(seconds, "figures"):
        shown = panels(registration, comparison) if figures else None
        names = registration.moving.name, registration.fixed.name
    try:
        with published(folder) as temporary:
            temporary.mkdir()
            with contextlib.ExitStack() as drawing:
                if shown:
                    drawing.enter_context(drawn_beside(shown, names, summary, temporary))
                with timed(seconds, "write"):
                    _write_data(registration, temporary, formats)
                with timed(seconds, "figures"):
                    drawing.close()
            summary["seconds"] = seconds
            write_json(temporary / SUMMARY, summary)
    except OSError as error:
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(
            f"{folder}: cannot be written ({error.strerror or error}); name another folder, or make room."
        ) from None
    return summary


def _write_data(registration: RegisteredPair, folder: Path, formats: Sequence[str]) -> None:
    """The warped image and labels, the displacement, and the points that were carried over."""
    moving, fixed = registration.moving, registration.fixed
    _write_warped(registration, folder / f"warped{_ending(moving.name)}")
    _write_warped_labels(registration, folder)
    for ending in formats:
        write_field(folder / f"displacement.{ending}", registration.displacement, fixed.grid, moving.grid)
    if registration.points:
        given_in = registration.points_in
        carried_to = {"fixed": "moving", "moving": "fixed"}[given_in]
        carried, given = (getattr(registration.points, name) for name in (carried_to, given_in))
        write_points(folder / f"points_in_{carried_to}.csv", carried, {given_in: given})
        source, grid = registration.points_file, getattr(registration, carried_to).grid
        if source and is_written(source) and grid.is_known:
            write_landmark_file(folder / f"points_in_{carried_to}", in_mm(source, carried, grid))


def _write_warped(registration: RegisteredPair, path: Path) -> None:
    """Writes the warped image; also as NIfTI, one channel, if its own format cannot hold the fixed grid."""
    grid, _ = in_one_space(registration.fixed.grid, registration.moving.grid)
    write_image(path, registration.warped, grid, registration.fixed.spacing)
    if not holds_grid(path, grid):
        one_channel = warp_image(registration.prepared.raw.moving, registration.displacement)
        write_image(path.with_name("warped.nii.gz"), one_channel, grid)


def _write_warped_labels(registration: RegisteredPair, folder: Path) -> None:
    """Writes the warped labels; also as NIfTI if their own format cannot hold the fixed grid."""
    labels, warped = registration.moving_labels, registration.warped_labels
    if labels is None or warped is None:
        return
    grid, _ = in_one_space(registration.fixed.grid, registration.moving.grid)
    path = folder / f"labels_warped{_ending(labels.name)}"
    write_labels(path, warped, grid)
    if not holds_grid(path, grid):
        write_labels(path.with_name("labels_warped.nii.gz"), warped, grid)


def _ending(name: str) -> str:
    """The ending of the moving file, or of the file that a slice or a page is in, if it can be written.

    NIfTI's for files of other formats, NumPy's for an image from memory.
    """
    file = name if os.path.isfile(name) else re.sub("#[^#/]*$", "", name)
    known = [ending for ending in WRITTEN if file.lower().endswith(ending)]
    return max(known, key=len, default=".nii.gz" if os.path.isfile(file) else ".npy")


def panels(
    registration: RegisteredPair, comparison: Union[Comparison, Literal["auto"]] = "auto"
) -> RegistrationPanels:
    """The pair as figures show it: not equalised, in colour if it is; 0 where the moving image has no pixel.

    Args:
        registration: the pair.
        comparison: "overlay" or "checkerboard" compares the images; "auto" for what suits them.
    """
    displacement, prepared = registration.displacement, registration.prepared
    pixels, fixed_shape = registration.moving.pixels, registration.fixed.shape
    moving, fixed = (shrunk(displayed(each)) for each in (pixels, registration.fixed.pixels))
    warped = displayed(registration.warped, range_of=pixels)
    warped[~covered_pixels(displacement, registration.moving.shape)] = 0
    warped = shrunk(warped)
    # Where pixels of the shrunk fixed image lie in the shrunk moving one, by the sizes alone.
    from_shrunk = compose(prepared.unregistered, invert(_to_shrunk(fixed_shape)))
    unmoved = np.zeros((*fixed.shape[:2], 2), np.float32)
    by_size_alone = compose_displacement(unmoved, compose(_to_shrunk(registration.moving.shape), from_shrunk))
    area = abs(np.linalg.det(prepared.unregistered[:, :2]))
    turn, points, labels = prepared.turn, registration.points, registration.fixed_labels
    return RegistrationPanels(
        moving=turn.image(moving),
        fixed=fixed,
        before=warp_image(moving, by_size_alone, fill=0),
        warped=warped,
        moving_shape=turn.size(registration.moving.shape),
        fixed_shape=fixed_shape,
        displacement=registration.turned_displacement,
        determinant=registration.jacobian_determinant() / area,
        comparison=comparison,
        fixed_points=points and points.fixed,
        moving_points=points and turn.points(points.moving, registration.moving.shape),
        points_in=registration.points_in,
        before_labels=registration.unregistered_labels,
        warped_labels=registration.warped_labels,
        fixed_labels=None if labels is None else labels.pixels,
    )


def _to_shrunk(shape: tuple[int, int]) -> np.ndarray:
    """(2, 3): where points of an image of this shape lie once it is shrunk."""
    scale = 1 / np.array(shrink_factors(shape), np.float64)
    return np.column_stack([np.diag(scale), (scale - 1) / 2])
