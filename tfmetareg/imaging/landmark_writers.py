"""Writes landmarks: in pixels, and in mm in the format of the program that they came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfmetareg.imaging.landmark_files import ANTS, FCSV, FCSV_COLUMNS, LPS, MARKUPS, RAS, TABLE, LandmarkFile


def write_points(path: Path, points: np.ndarray, origins: dict[str, np.ndarray]) -> None:
    """Writes points with the columns `x,y`, and `<name>_x,<name>_y` for where they came from.

    Args:
        path: of the CSV file.
        points: (n, 2), (row, column); NaN becomes an empty cell.
        origins: (n, 2) each, row i of one where row i of `points` came from, by the name of its image.
    """
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", *(f"{name}_{axis}" for name in origins for axis in "xy")])
        for row in np.hstack([points[:, ::-1], *(origin[:, ::-1] for origin in origins.values())]):
            cells = [f"{value:.4f}" for value in row[:2]] + [f"{value:g}" for value in row[2:]]
            writer.writerow("" if cell == "nan" else cell for cell in cells)


def is_written(file: LandmarkFile) -> bool:
    """Whether `write_landmark_file` writes landmarks in the format of a file and in its frame, in mm."""
    return file.frame in (LPS, RAS) and file.format in _WRITERS


def write_landmark_file(stem: Path, file: LandmarkFile) -> Path:
    """Writes landmarks as the program does that has their format; a point of NaN gets no position.

    Args:
        stem: path without the ending, which the format decides.
        file: what to write, see `is_written`; its own path is not used.

    Returns:
        The path of the new file.
    """
    ending, write = _WRITERS[file.format]
    path = stem.with_name(f"{stem.name}{ending}")
    write(path, file)
    return path


def _in_space(file: LandmarkFile) -> np.ndarray:
    """(n, 3): the coordinates; a 2D image lies at z = 0."""
    missing = 3 - file.coordinates.shape[1]
    return np.pad(file.coordinates, ((0, 0), (0, missing)))


def _label(file: LandmarkFile, index: int) -> str:
    """The label of a point; its number where there is none."""
    return (file.labels[index] if index < len(file.labels) else "") or str(index + 1)


def _write_fcsv(path: Path, file: LandmarkFile) -> None:
    """The points that have a position, under their labels: this format has no others."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        print("# Markups fiducial file version = 4.11", file=stream)
        print(f"# CoordinateSystem = {file.frame}", file=stream)
        print(f"# columns = {FCSV_COLUMNS}", file=stream)
        writer = csv.writer(stream, lineterminator="\n")
        for index, place in enumerate(_in_space(file).tolist()):
            if np.isfinite(place).all():
                writer.writerow([index + 1, *place, 0, 0, 0, 1, 1, 1, 0, _label(file, index), "", ""])


def _write_markups(path: Path, file: LandmarkFile) -> None:
    points = []
    for index, place in enumerate(_in_space(file).tolist()):
        point: dict[str, Any] = {"id": str(index + 1), "label": _label(file, index)}
        is_defined = bool(np.isfinite(place).all())
        point["positionStatus"] = "defined" if is_defined else "undefined"
        points.append({**point, "position": place} if is_defined else point)
    markup = {
        "type": "Fiducial",
        "coordinateSystem": file.frame,
        "coordinateUnits": "mm",
        "controlPoints": points,
    }
    # The name that 3D Slicer itself writes, the branch of that time included.
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    )
    content = {"@schema": f"{schema}markups-schema-v1.0.3.json#", "markups": [markup]}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _write_ants(path: Path, file: LandmarkFile) -> None:
    """The points that have a position, under their labels: ANTs reads numbers alone."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*"xyzt", "label"])
        for index, place in enumerate(_in_space(file).tolist()):
            if np.isfinite(place).all():
                writer.writerow([*place, 0, _label(file, index)])


def _write_table(path: Path, file: LandmarkFile) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["label", *file.frame.lower(), "defined"])
        for index, place in enumerate(_in_space(file).tolist()):
            is_defined = bool(np.isfinite(place).all())
            writer.writerow([_label(file, index), *(place if is_defined else [""] * 3), int(is_defined)])


# Ending and writer of each format; the points in pixels have the ending .csv.
_WRITERS: dict[str, tuple[str, Callable[[Path, LandmarkFile], None]]] = {
    FCSV: (".fcsv", _write_fcsv),
    MARKUPS: (".mrk.json", _write_markups),
    ANTS: ("_mm.csv", _write_ants),
    TABLE: ("_mm.csv", _write_table),
}
