"""Landmark files of the programs that make them, read in the frame that each declares."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmetareg.errors import UserError, one_line
from tfmetareg.imaging.tables import CsvTable, read_lines, read_table

# Frames of coordinates. PIXEL is (row, column), pixel centres at integers; INDEX is (x, y[, z]), the voxel as
# ITK counts it in the file; IMAGEJ is (x, y) from pixel centres, in pixels or in ImageJ's calibrated unit,
# which its tables do not tell. LPS and RAS are (x, y[, z]) in mm.
PIXEL, INDEX, IMAGEJ, LPS, RAS = "pixel", "index", "ImageJ", "LPS", "RAS"

TABLE, ANTS, IMAGEJ_TABLE = "CSV", "ITK/ANTs CSV", "ImageJ results table"
FCSV, MARKUPS, ELASTIX = "3D Slicer .fcsv", "3D Slicer .mrk.json", "elastix point file"
# Endings of files that a folder of points may hold, the first the usual one.
ENDINGS = (".csv", ".fcsv", ".mrk.json", ".json", ".txt", ".tsv", ".xls", ".pts")

_INSTEAD = "write its points as CSV with the columns `l,p,s` (mm, LPS) or `x,y` (pixels)"
_HEADER = (
    "the first line must be a header with `x,y` (column, row) or `row,col` for pixels, `l,p,s` or `r,a,s` "
    "for mm, or `x,y,z,t` as ANTs writes it"
)
# Columns with which a table declares its frame, and the format that has them. Those of mm are 3D Slicer's:
# "Markups control points table file format", slicer.readthedocs.io, developer guide.
_COLUMNS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("row", "col"), PIXEL, TABLE),
    (("y", "x"), PIXEL, TABLE),
    (("l", "p", "s"), LPS, TABLE),
    (("r", "a", "s"), RAS, TABLE),
)
# Columns beside `x,y` that tell a table of ImageJ, whose names its class ResultsTable has; the first one, of
# row numbers, has a blank name.
_IMAGEJ_COLUMNS = {
    *("", "area", "mean", "stddev", "mode", "min", "max", "xm", "ym", "perim.", "bx", "by", "feret"),
    *("intden", "rawintden", "median", "skew", "kurt", "%area", "circ.", "slice", "ch", "frame", "counter"),
}
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
# Names and, in versions before 4.11, numbers of the coordinate systems in .fcsv files.
_SYSTEMS = {"RAS": RAS, "0": RAS, "LPS": LPS, "1": LPS}
# Status of a control point that has a position: vtkMRMLMarkupsNode::PositionDefined.
_DEFINED = "2"


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkFile:
    """Landmarks as a file holds them.

    Attributes:
        path: of the file.
        format: name of the format, one of those above.
        frame: frame of the coordinates: PIXEL, INDEX, IMAGEJ, LPS or RAS.
        coordinates: float64 (n, 2), or (n, 3) of places in space; NaN where the file leaves a point empty.
        labels: names of the points, "" where there is none.
        is_carried: whether a registration carried the points over, so that they may lie beyond the image.
    """

    path: Path
    format: str
    frame: str
    coordinates: np.ndarray
    labels: tuple[str, ...] = ()
    is_carried: bool = False

    def __str__(self) -> str:
        frames = {PIXEL: "pixels", INDEX: "voxel indices", IMAGEJ: "pixels or a calibrated unit"}
        return f"{self.format}, {frames.get(self.frame, f'mm, {self.frame}')}"

    @property
    def lps(self) -> np.ndarray:
        """The coordinates of places in mm as LPS: float64 (n, 2 or 3)."""
        signs = np.array([-1.0, -1.0, 1.0] if self.frame == RAS else [1.0, 1.0, 1.0])
        return self.coordinates * signs[: self.coordinates.shape[1]]

    def label(self, index: int) -> str:
        """How an error names a point, counted from 0: its number, and its label if it has one."""
        label = self.labels[index] if index < len(self.labels) else ""
        return f"point {index + 1} ({label})" if label else f"point {index + 1}"


def read_landmark_file(path: Path, carried: bool = False) -> LandmarkFile:
    """Reads the landmarks of a file in any supported format, in the frame that the file declares.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "points.csv").write_text("label,r,a,s\\nF-1,12.5,-3,40\\n")
    ...     file = read_landmark_file(Path(folder, "points.csv"))
    >>> file.frame, file.lps.tolist()
    ('RAS', [[-12.5, 3.0, 40.0]])

    Args:
        path: of the file.
        carried: takes tables of points that a registration carried over, with their empty cells, as such.

    Raises:
        UserError: the file is missing or not text, of a format that is not read, does not declare its frame,
            or holds a point without a position.
    """
    _refuse_binary(path)
    lines = read_lines(path)
    first = next((line.strip() for line in lines if line.strip()), "")
    _refuse_foreign(path, first)
    name = path.name.lower()
    if name.endswith(".fcsv") or first.startswith("# Markups fiducial file"):
        return _read_fcsv(path, lines)
    if name.endswith(".json") or first.startswith("{"):
        return _read_markups(path, lines)
    if first.lower() in ("point", "index"):
        return _read_elastix(path, lines)
    return _read_table(path, carried)


class _Foreign(NamedTuple):
    """A format that is not read: how its text begins or, where that tells, its name ends; and what to do."""

    start: str
    ending: str
    name: str
    remedy: str = _INSTEAD


_FOREIGN = (
    _Foreign(r"# vtk DataFile|<VTKFile", ".vtk", "a VTK file, which does not tell whether it is LPS or RAS"),
    _Foreign(r"MNI Tag Point File", ".tag", "an MNI tag point file"),
    _Foreign(r"# (AmiraMesh|Avizo)", ".landmarkascii", "an Amira landmark file"),
    _Foreign(
        r"point\|", ".acsv", "a 3D Slicer 3 annotation", "open it in 3D Slicer and save it as .mrk.json"
    ),
    _Foreign(
        r"Point\s+\d+\s*; InputIndex",
        "",
        "a result of transformix, with points before and after",
        "write its `OutputPoint`, or its `InputPoint`, below the lines `point` and their number",
    ),
    _Foreign(
        r'"?[^",]*"?,\s*"?(true|false)"?,',
        "",
        "a BigWarp landmark file, with the points of both images",
        "write those of each image as CSV of its own, `x,y` in pixels",
    ),
    _Foreign(r"<.*(point_set|MITK)", ".mps", "an MITK point set"),
    _Foreign(r"<", ".annot", "an XML file, as ITK-SNAP and others write their annotations"),
)
# The first bytes of files that are not text.
_BINARY = (
    (b"Iout", "an ImageJ ROI"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"PK\x03\x04", "a zip archive, as ROI sets of ImageJ and Excel workbooks are"),
)
_BINARY_REMEDY = (
    "save the table as CSV; of ROIs in ImageJ, measure the points (Analyze > Measure) and save that"
)


def _refuse_binary(path: Path) -> None:
    try:
        with open(path, "rb") as stream:
            start = stream.read(8)
    except OSError:
        return  # Reading its lines says why.
    for magic, name in _BINARY:
        if start.startswith(magic):
            raise UserError(f"{path}: {name}; it is not read: {_BINARY_REMEDY}.")


def _refuse_foreign(path: Path, first: str) -> None:
    for foreign in _FOREIGN:
        by_name = bool(foreign.ending) and path.name.lower().endswith(foreign.ending)
        if by_name or re.match(foreign.start, first):
            raise UserError(f"{path}: {foreign.name}; it is not read: {foreign.remedy}.")


_NOT_A_NUMBER = "a coordinate must be a finite number"


def _numbers(path: Path, where: str, cells: Sequence[Any]) -> list[float]:
    """The cells as finite numbers."""
    values = [_number(cell) for cell in cells]
    for cell, value in zip(cells, values):
        if not np.isfinite(value):
            raise UserError(
                f"{path}, {where}: a coordinate must be a finite number, got `{cell}`; correct it."
            )
    return values


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _read_table(path: Path, carried: bool) -> LandmarkFile:
    """A table whose header declares the frame: our own, 3D Slicer's, ANTs' or ImageJ's."""
    first = next((line.strip() for line in read_lines(path) if line.strip()), "")
    if first.startswith("#"):
        raise UserError(f"{path}: begins with a comment; take it away: {_HEADER}.")
    table = read_table(path)
    columns = {*table.columns}
    found = [entry for entry in _COLUMNS if {*entry[0]} <= columns]
    if len(found) != 1:
        raise UserError(f"{path}: {_HEADER}, got `{','.join(table.columns)}`; add one.")
    names, frame, file_format = found[0]
    if names == ("y", "x"):
        names, frame, file_format = _frame_of_x_y(path, table)
    is_carried = carried and bool(columns & {"moving_x", "fixed_x"})
    problems, points = [], []
    for number, row in table.rows:
        points.append([_number(row[name]) for name in names])
        problems += [
            f"{path}, line {number}: {_NOT_A_NUMBER}, got `{row[name]}`; correct it."
            for name, value in zip(names, points[-1])
            if not (np.isfinite(value) or (is_carried and not row[name]))
        ]
        if frame in (LPS, RAS) and row.get("defined") == "0":
            problems.append(f"{path}, line {number}: {_UNPLACED}.")
    if problems:
        raise UserError("\n".join(problems))
    labels = tuple(row.get("label", "") for _, row in table.rows)
    coordinates = np.asarray(points, np.float64).reshape(-1, len(names))
    if frame == IMAGEJ and _has_areas(path, table):
        coordinates -= 0.5  # Centroids of areas are counted from the corner of the first pixel.
    return LandmarkFile(path, file_format, frame, coordinates, labels, is_carried)


_UNPLACED = (
    "this point has no position; place it, or take it out of both images' files, since row i of one must "
    "match row i of the other"
)


def _frame_of_x_y(path: Path, table: CsvTable) -> tuple[tuple[str, ...], str, str]:
    """Coordinates, frame and format of a table with the columns `x,y`, by the others."""
    columns = {*table.columns}
    # ANTs wants all four: "a csv file with columns including x,y,z,t (all 4) column headers".
    if {"z", "t"} <= columns:
        return ("x", "y", "z"), LPS, ANTS
    if "z" in columns:
        raise UserError(
            f"{path}: the columns `x,y,z` may be mm or pixels; name them `l,p,s` or `r,a,s` for mm, or take "
            "`z` away for pixels."
        )
    if not columns & _IMAGEJ_COLUMNS:
        return ("y", "x"), PIXEL, TABLE
    for name in ("slice", "frame", "ch"):
        if name in columns and len({row[name] for _, row in table.rows}) > 1:
            raise UserError(
                f"{path}: {IMAGEJ_TABLE} of points on several slices (column `{name}`); save those of one."
            )
    return ("x", "y"), IMAGEJ, IMAGEJ_TABLE


def _has_areas(path: Path, table: CsvTable) -> bool:
    """Whether a table of ImageJ is of areas, not of points, whose area it gives as 0.

    In ij/gui/Roi.java, `useLineSubpixelConvention`, coordinates of points are "with respect to the pixel
    center" (since ImageJ 1.52u), those of areas "with respect to the upper left corners of the pixels".
    """
    areas = {_number(row["area"]) > 0 for _, row in table.rows} if "area" in table.columns else {False}
    if len(areas) > 1:
        raise UserError(f"{path}: {IMAGEJ_TABLE} of points and areas; save one of the two.")
    return areas == {True}


def _read_fcsv(path: Path, lines: Sequence[str]) -> LandmarkFile:
    """3D Slicer's point list, as vtkMRMLMarkupsFiducialStorageNode.cxx writes it.

    Versions from 5.2 on write two cells more than the header names: the position's status, and whether the
    point was created automatically.
    """
    declared = [re.match(r"#\s*(\w+)\s*=\s*(.*?)[\s,]*$", line) for line in lines]
    values = [(match[1].lower(), match[2]) for match in declared if match]
    systems = {value.upper() for name, value in values if name == "coordinatesystem"}
    if len(systems) != 1 or not systems <= {*_SYSTEMS}:
        raise UserError(
            f"{path}: {FCSV} must have one line `# CoordinateSystem = LPS` or `RAS` (old versions: 1 or 0), "
            f"got {', '.join(sorted(systems)) or 'none'}; save it again in 3D Slicer."
        )
    named = next((value for name, value in values if name == "columns"), FCSV_COLUMNS)
    columns = [name.strip().lower() for name in named.split(",")]
    if not {"x", "y", "z"} <= {*columns}:
        raise UserError(f"{path}: {FCSV} must have the columns x, y and z, got `{named}`; save it again.")
    labels, points = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = _cells(path, number, line)
        row = dict(zip(columns, cells))
        if len(cells) > len(columns) == 14 and cells[14] not in ("", _DEFINED):
            raise UserError(f"{path}, line {number}: {_UNPLACED}.")
        points.append(_numbers(path, f"line {number}", [row.get(name, "") for name in "xyz"]))
        labels.append(row.get("label", ""))
    coordinates = np.asarray(points, np.float64).reshape(-1, 3)
    return LandmarkFile(path, FCSV, _SYSTEMS[systems.pop()], coordinates, tuple(labels))


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise UserError(f"{path}, line {number}: not a line of CSV ({error}); save the file again.") from None


def _read_markups(path: Path, lines: Sequence[str]) -> LandmarkFile:
    """3D Slicer's markups, as its schema markups-schema-v1.0.3.json describes them."""
    try:
        content = json.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file ({one_line(error)}); save it again in 3D Slicer.") from None
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise UserError(f"{path}: JSON, but no markups of 3D Slicer; {_INSTEAD}.")
    kinds = [str(markup.get("type")) for markup in markups]
    if kinds != ["Fiducial"]:
        raise UserError(
            f"{path}: {MARKUPS} must hold one point list (type Fiducial), got {', '.join(kinds) or '-'}; "
            "save the point list by itself."
        )
    (markup,) = markups
    system = markup.get("coordinateSystem", LPS)  # The schema's default, which 3D Slicer takes too.
    unit = markup.get("coordinateUnits", "mm")
    unit = unit[0] if isinstance(unit, list) and unit else unit  # Or a code: ["mm", "UCUM", "millimeter"].
    if system not in (LPS, RAS) or unit != "mm":
        raise UserError(
            f"{path}: {MARKUPS} must be in LPS or RAS and in mm, got {system} and {unit}; save it again so."
        )
    labels, points = [], []
    control_points = markup.get("controlPoints") or []
    for number, point in enumerate(control_points if isinstance(control_points, list) else [{}], 1):
        point = point if isinstance(point, dict) else {}
        label = str(point.get("label", ""))
        where = f"control point {number}" + (f" ({label})" if label else "")
        position = point.get("position")
        if point.get("positionStatus", "defined") != "defined" or not isinstance(position, list):
            raise UserError(f"{path}, {where}: {_UNPLACED}.")
        if len(position) != 3:
            raise UserError(f"{path}, {where}: must have 3 coordinates, got {len(position)}; correct it.")
        points.append(_numbers(path, where, position))
        labels.append(label)
    return LandmarkFile(path, MARKUPS, system, np.asarray(points, np.float64).reshape(-1, 3), tuple(labels))


def _read_elastix(path: Path, lines: Sequence[str]) -> LandmarkFile:
    """Points for transformix, as itkTransformixInputPointFileReader.hxx reads them: words, not lines."""
    kind, *words = " ".join(lines).split()
    count = int(words[0]) if words and re.fullmatch(r"[0-9]{1,9}", words[0]) else -1
    values = _numbers(path, "below the number of points", words[1:])
    dimension = len(values) // max(count, 1)
    if count < 0 or dimension * count != len(values) or (values and dimension not in (2, 3)):
        raise UserError(
            f"{path}: {ELASTIX} must hold `{kind.lower()}`, the number of points and their coordinates, "
            f"2 or 3 each, got {len(values)} numbers for {words[0] if words else 'no'} points; correct it."
        )
    frame = LPS if kind.lower() == "point" else INDEX
    return LandmarkFile(path, ELASTIX, frame, np.asarray(values, np.float64).reshape(count, dimension or 2))
