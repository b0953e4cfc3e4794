"""Writes a registered pair: image, displacement, points, figures and summary, in a folder of its own."""

from __future__ import annotations

import csv
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published, write_json
from tfmetareg.geometry.displacement import warp_image
from tfmetareg.imaging.choices import FORMATS
from tfmetareg.imaging.field_files import write_field
from tfmetareg.imaging.intensity import scale, unit_range
from tfmetareg.imaging.volumes import volume_file
from tfmetareg.imaging.write import write_image
from tfmetareg.registration.measures import measure, warnings_of
from tfmetareg.registration.result import RegisteredPair
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
    try:
        with published(folder) as temporary:
            temporary.mkdir()
            return _write(
                registration, temporary, formats, figures, {"pair": folder.name, **(description or {})}
            )
    except OSError as error:
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(
            f"{folder}: cannot be written ({error.strerror or error}); name another folder, or make room."
        ) from None


def _write(
    registration: RegisteredPair,
    folder: Path,
    formats: Sequence[str],
    figures: bool,
    description: dict[str, Any],
) -> dict[str, Any]:
    seconds = dict(registration.seconds)
    began = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal began
        seconds[part] = round(time.perf_counter() - began, 4)
        began = time.perf_counter()

    measures = measure(registration)
    summary = {"schema": 1, **description, **measures, "warnings": warnings_of(registration, measures)}
    lap("measure")
    moving, fixed = registration.moving, registration.fixed
    write_image(folder / f"warped{_ending(moving.name)}", registration.warped, fixed.grid)
    for ending in formats:
        write_field(folder / f"displacement.{ending}", registration.displacement, fixed.grid, moving.grid)
    if registration.points:
        _write_points(folder, registration)
    lap("write")
    if figures:
        for name, figure in draw_registered(panels(registration)).items():
            save_figure(figure, folder / f"{name}.png")
        lap("figures")
    summary["seconds"] = seconds
    write_json(folder / SUMMARY, summary)
    return summary


def _ending(name: str) -> str:
    """The moving file's ending; that of a volume for a slice of one; NumPy's for an image from memory."""
    file = name if os.path.isfile(name) else volume_file(name)
    known = [ending for ending in FORMATS if file.lower().endswith(ending)]
    return max(known, key=len, default=".npy")


def _write_points(folder: Path, registration: RegisteredPair) -> None:
    """x,y in the image that the file's name tells, empty where there is none; and where it came from."""
    images = {"fixed": ("moving", "fixed"), "moving": ("fixed", "moving")}[registration.points_in]
    carried, given = (getattr(registration.points, name) for name in images)
    with open(folder / f"points_in_{images[0]}.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", *(f"{images[1]}_{axis}" for axis in "xy")])
        for places in np.hstack([carried[:, ::-1], given[:, ::-1]]):
            cells = [f"{places[0]:.4f}", f"{places[1]:.4f}", f"{places[2]:g}", f"{places[3]:g}"]
            writer.writerow("" if cell == "nan" else cell for cell in cells)


def panels(registration: RegisteredPair) -> RegistrationPanels:
    """The pair as the figures show it: contrast stretched, nothing where the moving image has no pixel."""
    raw = registration.prepared.raw
    moving, fixed = (scale(unit_range(image).astype(np.float32)) for image in (raw.moving, raw.fixed))
    area = abs(np.linalg.det(registration.prepared.unregistered[:, :2]))
    return RegistrationPanels(
        moving=moving,
        fixed=fixed,
        before=warp_image(moving, registration.moving_before(), fill=0),
        warped=warp_image(moving, registration.displacement, fill=0),
        displacement=registration.displacement,
        determinant=registration.jacobian_determinant() / area,
        fixed_points=registration.points and registration.points.fixed,
        moving_points=registration.points and registration.points.moving,
        points_in=registration.points_in,
    )
