"""Points in mm, as other programs give them, through a registration and back into their formats."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name

import tfmetareg
from tests.unit.tfmetareg.imaging import landmark_texts as texts
from tests.unit.tfmetareg.imaging.image_files import texture
from tfmetareg.imaging.landmark_files import read_landmark_file
from tfmetareg.imaging.read import open_image

SHAPE, SLICE = (72, 64), 2


def rotation(degrees: float, axis: str) -> np.ndarray:
    angles = {name: np.deg2rad(degrees) * (name == axis) for name in "xyz"}
    turn = sitk.Euler3DTransform((0, 0, 0), angles["x"], angles["y"], angles["z"])
    return np.reshape(turn.GetMatrix(), (3, 3))


def write_volume(path, pixels: np.ndarray, direction: np.ndarray, origin, spacing) -> str:
    """A volume of four slices, all of them `pixels`; returns one of them as a name."""
    image = sitk.GetImageFromArray(np.stack([pixels] * 4))
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return f"{path}#{SLICE}"


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict[str, str]:
    """Slices of two oblique volumes on grids of their own; the moving picture is shifted by a few pixels."""
    folder = tmp_path_factory.mktemp("volumes")
    scene = np.int16(1000 * texture((100, 100)))
    fixed, moving = scene[10:82, 10:74], scene[12:84, 9:73]
    upright = np.diag([1.0, 1.0, 1.0])
    return {
        "fixed": write_volume(
            folder / "f.nii.gz", fixed, rotation(12, "x") @ upright, (-20.0, 31.0, 7.0), (0.5, 0.6, 3.0)
        ),
        "moving": write_volume(
            folder / "m.nii.gz", moving, rotation(-8, "z") @ upright, (14.0, -60.0, -90.0), (0.55, 0.5, 2.0)
        ),
    }


def places_on(name: str, count: int = 6) -> np.ndarray:
    """(n, 3), mm, LPS: random places on a slice of a volume, by SimpleITK's reading of it."""
    volume = sitk.ReadImage(name.split("#")[0])
    indices = np.random.default_rng(0).uniform(14, 50, (count, 2))
    depth = float(SLICE)
    return np.array(
        [volume.TransformContinuousIndexToPhysicalPoint((*index, depth)) for index in indices.tolist()]
    )


FORMATS = [
    ("points.fcsv", lambda places: texts.fcsv(texts.flipped(places), "RAS"), ".fcsv"),
    ("points.mrk.json", texts.markups, ".mrk.json"),
    ("points.csv", texts.ants, "_mm.csv"),
    ("points.csv", lambda places: texts.slicer_table(texts.flipped(places), "ras"), "_mm.csv"),
]


@pytest.mark.parametrize(("name", "text", "ending"), FORMATS)
def test_points_in_mm_come_back_in_mm_where_the_transform_puts_them(names, tmp_path, name, text, ending):
    """ITK's transform, from the file beside them, carries the places: nothing of ours tells it the grids."""
    places = places_on(names["fixed"])
    (tmp_path / name).write_text(text(places))
    registration = tfmetareg.register(names["moving"], names["fixed"], align="none", points=tmp_path / name)
    registration.save(tmp_path / "out", formats=["h5"], figures=False)
    assert (tmp_path / "out" / "points_in_moving.csv").is_file()
    carried = read_landmark_file(tmp_path / "out" / f"points_in_moving{ending}")
    given = read_landmark_file(tmp_path / name)
    assert (carried.format, carried.frame) == (given.format, given.frame)
    assert carried.labels == given.labels
    transform = sitk.ReadTransform(str(tmp_path / "out" / "displacement.h5"))
    theirs = np.array([transform.TransformPoint(place) for place in places.tolist()])
    np.testing.assert_allclose(carried.lps, theirs, atol=0.05)
    moving = open_image(names["moving"])
    _, beside = moving.grid.from_lps(carried.lps)
    assert beside.max() < 1e-3
    assert np.abs(theirs - places).max() > 10


def test_points_carried_to_an_image_without_a_grid_stay_in_pixels(names, tmp_path):
    np.save(tmp_path / "m.npy", open_image(names["moving"]).pixels)
    (tmp_path / "points.fcsv").write_text(texts.fcsv(places_on(names["fixed"])))
    registration = tfmetareg.register(
        tmp_path / "m.npy", names["fixed"], align="none", points=tmp_path / "points.fcsv"
    )
    registration.save(tmp_path / "out", formats=["npz"], figures=False)
    assert not [*(tmp_path / "out").glob("points_in_moving.fcsv")]
    assert any("in pixels alone" in line for line in registration.warnings)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["points"]["count"] == 6
