"""Landmark files in the layout of the programs that write them."""

from __future__ import annotations

import json
from typing import Callable

import numpy as np


def fcsv(places: np.ndarray, system: str = "LPS", tail: str = "") -> str:
    """A point list of 3D Slicer. Source: slicer.readthedocs.io, developer guide, Markups (.fcsv)."""
    lines = [
        "# Markups fiducial file version = 4.11",
        f"# CoordinateSystem = {system}",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    lines += [
        f"vtkMRMLMarkupsFiducialNode_{n},{x!r},{y!r},{z!r},0,0,0,1,1,1,0,F-{n + 1},,vtkMRMLVolumeNode1{tail}"
        for n, (x, y, z) in enumerate(places.tolist())
    ]
    return "\n".join(lines) + "\n"


def slicer3(places: np.ndarray) -> str:
    """A fiducial list of 3D Slicer 3, its coordinate system named by hand."""
    lines = [
        "# Fiducial List file /home/me/L.fcsv",
        "# CoordinateSystem = RAS",
        "# columns = label,x,y,z,sel,vis",
    ]
    return "\n".join(
        [*lines, *(f"L-P{n},{x!r},{y!r},{z!r},1,1" for n, (x, y, z) in enumerate(places.tolist()))]
    )


def markups(places: np.ndarray, system: str = "LPS", unit: object = "mm", **changes: object) -> str:
    """Markups of 3D Slicer 5. Source: Slicer, Markups/Resources/Schema/markups-schema-v1.0.3.json."""
    points = [
        {
            "id": str(number + 1),
            "label": f"F-{number + 1}",
            "description": "",
            "associatedNodeID": "vtkMRMLScalarVolumeNode1",
            "position": place,
            "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, place in enumerate(places.tolist())
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": system,
        "coordinateUnits": unit,
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [{"name": "length", "enabled": False, "units": "mm"}],
        **changes,
    }
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema"
    )
    return json.dumps({"@schema": f"{schema}/markups-schema-v1.0.3.json#", "markups": [markup]}, indent=4)


def slicer_table(places: np.ndarray, axes: str = "lps", separator: str = ",") -> str:
    """Control points exported by 3D Slicer. Source: its developer guide, "control points table"."""
    header = ["label", *axes, "defined", "selected", "visible", "locked", "description"]
    rows = [
        [f"F-{number + 1}", *map(repr, place), "1", "1", "1", "0", ""]
        for number, place in enumerate(places.tolist())
    ]
    return "\n".join(separator.join(row) for row in [header, *rows]) + "\n"


def ants(places: np.ndarray) -> str:
    """Source: the help of antsApplyTransformsToPoints: "cat chicken-3.csv"."""
    rows = [f"{x!r},{y!r},{z!r},0,1,this is the beak" for x, y, z in places.tolist()]
    return "\n".join(["x,y,z,t,label,comment", *rows]) + "\n"


def elastix(numbers: np.ndarray, kind: str = "point") -> str:
    """Points for transformix. Source: elastix, Common/itkTransformixInputPointFileReader.hxx."""
    rows = [" ".join(map(repr, row)) for row in numbers.tolist()]
    return "\n".join([kind, str(len(rows)), *rows]) + "\n"


def imagej(points: np.ndarray, separator: str = ",", area: float = 0, extra: str = "") -> str:
    """A results table of points, (row, column). Source: ImageJ, ij/plugin/filter/Analyzer.java."""
    header = [" ", "Area", "Mean", "Min", "Max", "X", "Y", *([extra] if extra else [])]
    rows = [
        [str(number), f"{area:g}", "98.000", "98", "98", repr(x), repr(y), *(["1"] if extra else [])]
        for number, (y, x) in enumerate(points.tolist(), 1)
    ]
    return "\n".join(separator.join(row) for row in [header, *rows]) + "\n"


def flipped(places: np.ndarray) -> np.ndarray:
    """LPS as RAS, or the other way round."""
    return places * [-1.0, -1.0, 1.0]


# Files of places in LPS, (n, 3), mm: name and text.
IN_MM: dict[str, tuple[str, Callable[[np.ndarray], str]]] = {
    "fcsv, LPS": ("a.fcsv", fcsv),
    "fcsv, RAS": ("a.fcsv", lambda places: fcsv(flipped(places), "RAS")),
    "fcsv, RAS of old versions": ("a.fcsv", lambda places: fcsv(flipped(places), "0")),
    "fcsv, LPS of old versions": ("a.fcsv", lambda places: fcsv(places, "1")),
    # "There is a trailing ,2,0 written at the end of each data line": discourse.slicer.org, topic 32318.
    "fcsv of Slicer 5.2": ("a.fcsv", lambda places: fcsv(places, tail=",2,0")),
    "fcsv of Slicer 3": ("a.fcsv", lambda places: slicer3(flipped(places))),
    "fcsv by its content": ("a.csv", fcsv),
    "mrk.json, LPS": ("a.mrk.json", markups),
    "mrk.json, RAS": ("a.mrk.json", lambda places: markups(flipped(places), "RAS")),
    "mrk.json, coded unit": (
        "a.json",
        lambda places: markups(places, unit=["mm", "UCUM", "millimeter"]),
    ),
    "table of Slicer, LPS": ("a.csv", slicer_table),
    "table of Slicer, RAS": ("a.tsv", lambda places: slicer_table(flipped(places), "ras", "\t")),
    "ANTs": ("a.csv", ants),
    "elastix": ("a.txt", elastix),
}
