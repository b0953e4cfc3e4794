"""Landmark files: what is read of each format, what is refused and how that is said, what is written."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.imaging import landmark_texts as texts
from tfmetareg.errors import UserError
from tfmetareg.imaging.landmark_files import (
    ANTS,
    FCSV,
    LPS,
    MARKUPS,
    RAS,
    TABLE,
    LandmarkFile,
    read_landmark_file,
)
from tfmetareg.imaging.landmark_writers import is_written, write_landmark_file
from tfmetareg.imaging.landmarks import read_landmarks

PLACES = np.array([[1.5, -2.25, 3.0], [40.0, 0.125, 3.0]])


@pytest.mark.parametrize(
    "content",
    [
        b"x,y\n3,5\n1.5,2\n",
        b"\xef\xbb\xbfx,y\r\n3,5\r\n1.5,2\r\n",
        b"x;y\n3;5\n1.5;2",
        b" X , Y \n 3 , 5 \n\n1.5,2\n\n",
        b"row,col\n5,3\n2,1.5\n",
        b"col\trow\n3\t5\n1.5\t2\n",
        b"name,y,x\na,5,3\nb,2,1.5\n",
    ],
)
def test_landmarks_are_row_column_whatever_the_dialect(tmp_path, content):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    points = read_landmarks(path)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, [[5, 3], [2, 1.5]])


def test_no_landmarks_below_the_header(tmp_path):
    (tmp_path / "points.csv").write_text("x,y\n")
    assert read_landmarks(tmp_path / "points.csv").shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"3,5\n1,2\n", "must be a header with `x,y`"),
        (b"a,b\n1,2\n", "must be a header with `x,y`"),
        (b"x,y,row,col\n1,2,2,1\n", "must be a header with `x,y`"),
        (b"x,y\n1,two\n", "line 2: a coordinate must be a finite number, got `two`"),
        (b"x,y\n\n1,nan\n", "line 3: a coordinate"),
        (b"x,y\n1,inf\n", "line 2: a coordinate"),
        (b"x,y\n1,2,3\n", "line 2: 3 cells where the header has 2"),
        (b"x,x,y\n1,2,3\n", "column `x` is there twice"),
        (b"\n\n", "empty file"),
        (b"x,y\n\xff\xfe,2\n", "not UTF-8"),
    ],
)
def test_wrong_landmark_files(tmp_path, content, rule):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rule) as error:
        read_landmarks(path)
    assert str(path) in str(error.value)


SLICER = "save it again in 3D Slicer"
# Files of other programs, and broken ones: name, content, and what is said. The layouts of those that are not
# read follow the wikibook on MINC (tag files), elxTransformBase.hxx of elastix (outputpoints.txt),
# BigWarp's File > Export landmarks, and ImageJ's RoiEncoder, whose files begin with "Iout".
REFUSED = [
    ("a.vtk", b"# vtk DataFile Version 4.2\nvtk output\nASCII\nDATASET POLYDATA\n", "a VTK file.*`l,p,s`"),
    ("a.vtp", b'<VTKFile type="PolyData">', "a VTK file"),
    ("a.tag", b"MNI Tag Point File\nVolumes = 1;\n\nPoints =\n 1 2 3;\n", "an MNI tag point file.*`l,p,s`"),
    ("a.txt", b"MNI Tag Point File\nVolumes = 1;\n\nPoints =\n 1 2 3;\n", "an MNI tag point file"),
    ("a.annot", b'<?xml version="1.0"?>\n<!DOCTYPE registry>', "ITK-SNAP"),
    ("a.mps", b"<point_set_file>", "an MITK point set"),
    ("a.landmarkAscii", b"# AmiraMesh 3D ASCII 2.0\n", "an Amira landmark file"),
    ("a.acsv", b"point|1|2|3|1|1\n", "a 3D Slicer 3 annotation.*save it as .mrk.json"),
    (
        "outputpoints.txt",
        b"Point\t0\t; InputIndex = [ 1 2 ]\t; InputPoint = [ 1.0 2.0 ]\t; OutputPoint = [ 1.5 2.5 ]\n",
        "a result of transformix.*`OutputPoint`",
    ),
    ("a.csv", b'"Pt-0","true","15.4","19.1","14.5","19.8"\n', "a BigWarp landmark file.*each image"),
    ("a.roi", b"Iout\x00\xe4\x0a\x00\x00\x05", "an ImageJ ROI.*Analyze > Measure"),
    ("RoiSet.zip", b"PK\x03\x04\x14\x00\x08\x08", "a zip archive.*Analyze > Measure"),
    ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook.*as CSV"),
    ("a.csv", b"# my points\nx,y\n1,2\n", "begins with a comment; .*must be a header with `x,y`"),
    ("a.csv", b"x,y,z\n1,2,3\n", "`x,y,z` may be mm or pixels; name them `l,p,s`"),
    ("a.csv", b"x,y,l,p,s\n1,2,3,4,5\n", "must be a header with `x,y`"),
    ("a.csv", b"l,p\n1,2\n", "must be a header with `x,y`"),
    ("a.csv", b"l,p,s,defined\n1,2,3,1\n1,2,3,0\n", "line 3: this point has no position"),
    ("a.csv", b"l,p,s\n1,2,x\n", "line 2: a coordinate must be a finite number, got `x`"),
    ("a.csv", b"x,y,z,t\n1,nan,3,0\n", "line 2: a coordinate must be a finite number"),
    (
        "a.csv",
        b" ,Area,X,Y,Slice\n1,0,5,6,1\n2,0,7,8,2\n",
        "ImageJ results table of points on several slices",
    ),
    ("a.csv", b" ,Area,X,Y\n1,0,5,6\n2,12,7,8\n", "ImageJ results table of points and areas"),
    ("a.fcsv", b"x,y\n1,2\n", rf"one line `# CoordinateSystem = LPS` .*got none; {SLICER}"),
    ("a.fcsv", texts.fcsv(PLACES, "2").encode(), f"got 2; {SLICER}"),
    ("a.fcsv", (texts.fcsv(PLACES) + texts.fcsv(PLACES, "RAS")).encode(), "got LPS, RAS"),
    ("a.fcsv", texts.fcsv(PLACES, tail=",0,0").encode(), "line 4: this point has no position"),
    (
        "a.fcsv",
        b"# CoordinateSystem = LPS\n# columns = id,label\nv,F-1\n",
        "must have the columns x, y and z",
    ),
    ("a.fcsv", b"# CoordinateSystem = LPS\nv0,1,2\n", "line 2: a coordinate must be a finite number, got ``"),
    ("a.mrk.json", b"{", f"not a JSON file.*{SLICER}"),
    ("a.mrk.json", b"[" * 100_000, "not a JSON file"),
    ("a.json", b'{"shapes": [{"points": [[1, 2]]}]}', "no markups of 3D Slicer.*`x,y` .pixels"),
    ("a.json", b"[]", "no markups of 3D Slicer"),
    ("a.mrk.json", texts.markups(PLACES, type="Curve").encode(), "one point list .type Fiducial., got Curve"),
    ("a.mrk.json", b'{"markups": []}', "one point list"),
    ("a.mrk.json", texts.markups(PLACES, "IJK").encode(), "must be in LPS or RAS and in mm, got IJK"),
    ("a.mrk.json", texts.markups(PLACES, unit="um").encode(), "got LPS and um"),
    ("a.mrk.json", texts.markups(PLACES, controlPoints=3).encode(), "control point 1: this point has no"),
    (
        "a.mrk.json",
        texts.markups(PLACES)
        .replace('"positionStatus": "defined"', '"positionStatus": "undefined"', 1)
        .encode(),
        r"control point 1 \(F-1\): this point has no position; place it, or take it out of both",
    ),
    ("a.mrk.json", texts.markups(PLACES[:, :2]).encode(), "must have 3 coordinates, got 2"),
    ("a.txt", b"3 4\n5 6\n", "must be a header with `x,y`"),
    ("a.txt", b"point\n2\n1 2 3\n", "elastix point file must hold `point`.*got 3 numbers for 2 points"),
    ("a.txt", b"index\nmany\n1 2 3\n", "got 3 numbers for many points"),
    ("a.txt", b"index\n1\n1 two\n", "a coordinate must be a finite number, got `two`"),
    ("a.txt", b"point\n", "got 0 numbers for no points"),
]


@pytest.mark.parametrize(("name", "content", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_read_is_named_in_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_landmark_file(tmp_path / name)
    (line,) = str(error.value).splitlines()
    assert line.startswith(str(tmp_path / name))


@settings(max_examples=150)
@given(
    st.sampled_from([text(PLACES) for _, text in texts.IN_MM.values()] + [texts.imagej(PLACES[:, :2])]),
    st.sampled_from(["a.csv", "a.fcsv", "a.mrk.json", "a.txt"]),
    st.data(),
)
def test_damaged_files_are_read_or_refused_in_words(tmp_path_factory, text, name, data):
    """Cut, or with some characters replaced: never another exception, never a number that is none."""
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text = text[:place] + data.draw(st.sampled_from(list(' ,.-0x"{[\n\t#'))) + text[place + 1 :]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_text(text[: data.draw(st.integers(len(text) // 2, len(text)))])
    try:
        file = read_landmark_file(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert np.isfinite(file.coordinates).all()


@pytest.mark.parametrize("frame", [LPS, RAS])
@pytest.mark.parametrize("file_format", [FCSV, MARKUPS, ANTS, TABLE])
def test_what_is_written_is_read_again(tmp_path, file_format, frame):
    if file_format == ANTS and frame == RAS:
        return  # ANTs knows LPS alone.
    file = LandmarkFile(tmp_path, file_format, frame, PLACES, ("left, upper", ""))
    assert is_written(file)
    path = write_landmark_file(tmp_path / "points_in_moving", file)
    again = read_landmark_file(path)
    assert (again.format, again.frame, again.labels) == (file_format, frame, ("left, upper", "2"))
    np.testing.assert_array_equal(again.coordinates, PLACES)


def test_points_without_a_partner_have_no_position_in_what_is_written(tmp_path):
    places = np.insert(PLACES, 1, np.nan, axis=0)
    files = {
        form: write_landmark_file(
            tmp_path / form.replace("/", "-"), LandmarkFile(tmp_path, form, LPS, places)
        )
        for number, form in enumerate((FCSV, MARKUPS, ANTS, TABLE))
    }
    for form in (FCSV, ANTS):
        left = read_landmark_file(files[form])
        np.testing.assert_array_equal(left.coordinates, PLACES)
        assert left.labels == ("1", "3")
    (markup,) = json.loads(files[MARKUPS].read_text())["markups"]
    states = [(point["positionStatus"], point.get("position")) for point in markup["controlPoints"]]
    assert states == [("defined", [1.5, -2.25, 3.0]), ("undefined", None), ("defined", [40.0, 0.125, 3.0])]
    rows = list(csv.DictReader(open(files[TABLE])))
    assert [(row["label"], row["l"], row["defined"]) for row in rows] == [
        ("1", "1.5", "1"), ("2", "", "0"), ("3", "40.0", "1"),
    ]  # fmt: skip


def test_a_2d_image_lies_at_z_0(tmp_path):
    file = LandmarkFile(tmp_path, FCSV, LPS, PLACES[:, :2])
    again = read_landmark_file(write_landmark_file(tmp_path / "points", file))
    np.testing.assert_array_equal(again.coordinates, PLACES * [1, 1, 0])


def test_points_that_were_carried_over_may_be_empty_where_that_is_asked_for(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y,moving_x,moving_y\n,,5,6\n1,2,3,4\n")
    np.testing.assert_array_equal(
        read_landmark_file(path, carried=True).coordinates, [[np.nan, np.nan], [2, 1]]
    )
    with pytest.raises(UserError, match="line 2: a coordinate must be a finite number"):
        read_landmark_file(path)
    path.write_text("x,y\n,\n")
    with pytest.raises(UserError, match="line 2: a coordinate must be a finite number"):
        read_landmark_file(path, carried=True)
