"""Writes a registered pair: image, displacement, points, figures and summary, in a folder of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published, write_json
from tfmetareg.geometry.affine import compose_displacement
from tfmetareg.geometry.displacement import warp_image
from tfmetareg.imaging.choices import FORMATS
from tfmetareg.imaging.field_files import write_field
from tfmetareg.imaging.intensity import scale, unit_range
from tfmetareg.imaging.tables import write_points
from tfmetareg.imaging.volumes import volume_file
from tfmetareg.imaging.write import write_image
from tfmetareg.registration.measures import measure
from tfmetareg.registration.result import RegisteredPair, timed
from tfmetareg.report.figures import save_figure
from tfmetareg.report.registration import RegistrationPanels, draw_registered

SUMMARY = "summary.json"


class DiskFullError(UserError):
    """The disk is full, for other pairs as well."""


def save_registration(
    registration: RegisteredPair,
    folder: Path,
    *,
    formats: Sequence[str],
    figures: bool,
    description: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """Writes everything about a pair into a folder that appears when it is whole.

    Args:
        registration: the pair.
        folder: must not be there yet.
        formats: of the displacement.
        figures: draws them, too.
        description: what the summary tells ahead of the measures: inputs, weights, options.

    Returns:
        The summary.

    Raises:
        UserError: the folder is there already or cannot be written; a `DiskFullError` where the disk is full.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder}: is there already; move it away, or name another folder.")
    seconds = dict(registration.seconds)
    with timed(seconds, "measure"):
        summary = {"schema": 1, "pair": folder.name, **(description or {}), **measure(registration)}
    with timed(seconds, "figures"):
        drawn = panels(registration) if figures else None
    try:
        with published(folder) as temporary:
            temporary.mkdir()
            with timed(seconds, "write"):
                _write_data(registration, temporary, formats)
            if drawn:
                with timed(seconds, "figures"):
                    for name, figure in draw_registered(drawn).items():
                        save_figure(figure, temporary / f"{name}.png")
            summary["seconds"] = seconds
            write_json(temporary / SUMMARY, summary)
    except OSError as error:
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(
            f"{folder}: cannot be written ({error.strerror or error}); name another folder, or make room."
        ) from None
    return summary


def _write_data(registration: RegisteredPair, folder: Path, formats: Sequence[str]) -> None:
    """The warped image, the displacement, and the points that were carried over."""
    moving, fixed = registration.moving, registration.fixed
    write_image(folder / f"warped{_ending(moving.name)}", registration.warped, fixed.grid)
    for ending in formats:
        write_field(folder / f"displacement.{ending}", registration.displacement, fixed.grid, moving.grid)
    if registration.points:
        given_in = registration.points_in
        carried_to = {"fixed": "moving", "moving": "fixed"}[given_in]
        carried, given = (getattr(registration.points, name) for name in (carried_to, given_in))
        write_points(folder / f"points_in_{carried_to}.csv", carried, {given_in: given})


def _ending(name: str) -> str:
    """The moving file's ending; that of a volume for a slice of one; NumPy's for an image from memory."""
    file = name if os.path.isfile(name) else volume_file(name)
    known = [ending for ending in FORMATS if file.lower().endswith(ending)]
    return max(known, key=len, default=".npy")


def panels(registration: RegisteredPair) -> RegistrationPanels:
    """The pair as the figures show it: contrast stretched, nothing where the moving image has no pixel."""
    raw, displacement = registration.prepared.raw, registration.displacement
    area = abs(np.linalg.det(registration.prepared.unregistered[:, :2]))
    determinant = registration.jacobian_determinant() / area
    moving, fixed = (scale(unit_range(image).astype(np.float32)) for image in (raw.moving, raw.fixed))
    by_size_alone = compose_displacement(np.zeros_like(displacement), registration.prepared.unregistered)
    return RegistrationPanels(
        moving=moving,
        fixed=fixed,
        before=warp_image(moving, by_size_alone, fill=0),
        warped=warp_image(moving, displacement, fill=0),
        displacement=displacement,
        determinant=determinant,
        fixed_points=registration.points and registration.points.fixed,
        moving_points=registration.points and registration.points.moving,
        points_in=registration.points_in,
    )
