"""NIfTI files of every geometry: pixels and places against nibabel's affine and SimpleITK's reading."""

from __future__ import annotations

import itertools
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.imaging.image_files import assert_same_grid, grids, texture, turned
from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid, in_plane_grid
from tfmetareg.imaging.read import open_image

SHAPE = (20, 30)
few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MM = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}


def affine_of(grid: Grid) -> np.ndarray:
    """From (column, row, slice) to RAS, mm."""
    steps = np.reshape(grid.direction, (3, 3)) * grid.spacing
    return np.diag([-1, -1, 1, 1]) @ np.vstack([np.column_stack([steps, grid.origin]), [0, 0, 0, 1]])


def save(path, voxels, affine, kind=nibabel.Nifti1Image, unit="mm", sform=1, qform=0):
    """Writes a file whose sform, qform or both are the affine, given in mm."""
    affine = np.diag([*[1 / MM[unit]] * 3, 1]) @ affine
    image = kind(voxels, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


@few
@given(
    grids(3),
    st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    st.sampled_from([*MM]),
    st.sampled_from([(1, 0), (0, 1), (4, 1)]),
    st.sampled_from([".nii", ".nii.gz"]),
    st.integers(0, 2),
)
def test_a_volume_of_one_slice_lies_where_its_header_says(tmp_path, grid, kind, unit, codes, ending, across):
    pixels = texture(SHAPE)
    order = np.insert([0, 1], across, 2)  # The axis of the file that is (column, row, slice).
    voxels = np.expand_dims(pixels.T, across)
    affine = affine_of(grid)[:, [*order, 3]]
    path = save(tmp_path / f"a{ending}", voxels, affine, kind, unit, *codes)
    image = open_image(path)
    np.testing.assert_array_equal(image.pixels, pixels)
    # As nibabel, and thus anyone, has the voxels.
    points = np.array([(0, 0), (3, 25), (19, 29)])
    indices = np.insert(points[:, ::-1], across, 0, axis=1)
    ras = nibabel.affines.apply_affine(nibabel.load(path).affine, indices) * MM[unit]
    np.testing.assert_allclose(image.grid.places(points), ras * [-1, -1, 1], rtol=1e-5, atol=1e-3)
    assert image.spacing == pytest.approx(grid.pixel_size, rel=1e-5)
    assert image.grid.is_known and image.notes == ()
    if kind is nibabel.Nifti1Image and across == 2:
        assert_same_places(image.grid, sitk.ReadImage(str(path)))


def assert_same_places(grid: Grid, image: sitk.Image) -> None:
    indices = [(0, 0, 0), (29, 5, 0), (3, 19, 0)]
    places = [image.TransformIndexToPhysicalPoint(index[: image.GetDimension()]) for index in indices]
    # A qform is a quaternion in float32, and ITK rounds one of a small angle otherwise than nibabel.
    np.testing.assert_allclose(grid.places(np.array(indices)[:, 1::-1]), places, rtol=1e-5, atol=0.03)


@few
@given(grids(2), st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]))
def test_a_2d_file_of_an_axial_plane_stays_2d_with_its_pixel_size(tmp_path, grid, kind):
    pixels = texture(SHAPE)
    image = open_image(save(tmp_path / "a.nii", pixels.T, affine_of(grid.in_space()), kind))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert_same_grid(image.grid, grid)
    assert (image.spacing, image.notes) == (pytest.approx(grid.pixel_size, rel=1e-5), ())
    if kind is nibabel.Nifti1Image:
        assert_same_places(image.grid, sitk.ReadImage(str(tmp_path / "a.nii")))


def test_the_height_of_a_2d_file_is_told_of(tmp_path):
    affine = np.diag([0.5, 1.25, 1, 1])
    affine[2, 3] = 30
    image = open_image(save(tmp_path / "a.nii", texture(SHAPE).T, affine))
    assert image.grid.dimension == 2
    (note,) = image.notes
    assert "height z = 30 mm" in note


@pytest.mark.parametrize("across", ["sagittal", "coronal", "oblique"])
def test_a_2d_file_of_another_plane_lies_in_space(tmp_path, across):
    columns = {"sagittal": [1, 2, 0], "coronal": [0, 2, 1], "oblique": [0, 1, 2]}[across]
    affine = np.diag([0.5, 1.25, 2, 1])[:, [*columns, 3]]
    if across == "oblique":
        affine[1:3, 1:3] = np.reshape(turned(30), (2, 2))
    affine[:3, 3] = 10, 20, 30
    image = open_image(save(tmp_path / "a.nii", texture(SHAPE).T, affine))
    there = nibabel.affines.apply_affine(affine, [[29, 19, 0]])
    np.testing.assert_allclose(image.grid.places([[19, 29]]), there * [-1, -1, 1], rtol=1e-5)
    (note,) = image.notes
    assert "not axial" in note


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 1), (30, 1, 20), (1, 30, 20)])
@pytest.mark.parametrize(("unit", "factor"), MM.items())
def test_a_header_without_a_place_tells_the_pixel_size_alone(tmp_path, shape, unit, factor):
    stored = nibabel.Nifti1Image(texture(SHAPE).T.reshape(shape), None)
    stored.header.set_zooms([{30: 0.5, 20: 1.25, 1: 3}[length] for length in shape])
    stored.header.set_xyzt_units(unit)
    nibabel.save(stored, tmp_path / "a.nii")
    for source in (tmp_path / "a.nii", stored):
        image = open_image(source)
        assert image.spacing == pytest.approx((1.25 * factor, 0.5 * factor))
        assert not image.grid.is_known
        assert "tells no place (sform and qform codes are 0)" in image.notes[0]
        np.testing.assert_array_equal(image.pixels, texture(SHAPE))
    itk = sitk.ReadImage(str(tmp_path / "a.nii"))
    there = itk.TransformIndexToPhysicalPoint([{30: 25, 20: 7, 1: 0}[length] for length in shape])
    np.testing.assert_allclose(image.grid.places([7, 25]), there, rtol=1e-6)


def test_an_unknown_unit_is_read_as_mm(tmp_path):
    path = save(tmp_path / "a.nii", texture(SHAPE).T, np.diag([0.7, 1.5, 1, 1]))
    image = nibabel.load(path)
    image.header["xyzt_units"] = 7
    nibabel.save(image, tmp_path / "b.nii")
    assert open_image(tmp_path / "b.nii").spacing == pytest.approx((1.5, 0.7))


def test_forms_that_differ_are_told_of_and_the_sform_holds(tmp_path):
    image = nibabel.Nifti1Image(texture(SHAPE).T[..., None], None)
    image.set_sform(np.diag([0.5, 1.25, 2, 1]), 4)
    image.set_qform(np.diag([-0.5, 1.25, 2, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    found = open_image(tmp_path / "a.nii")
    np.testing.assert_allclose(found.grid.places([0, 29]), (-14.5, 0, 0), atol=1e-6)
    assert "sform and qform lie up to 29 of its units apart; the sform holds" in found.notes[0]


@pytest.mark.parametrize(("degrees", "said"), [(0.002, ()), (0.76, "0.76 degrees off perpendicular")])
def test_axes_not_quite_perpendicular_are_read_and_told_of(tmp_path, degrees, said):
    affine = np.diag([0.7, 1.5, 3, 1])
    affine[0, 1] = 1.5 * np.tan(np.deg2rad(degrees))
    image = open_image(save(tmp_path / "a.nii", texture(SHAPE).T, affine))
    assert image.grid.dimension == 2
    np.testing.assert_allclose(image.grid.spacing, (0.7, 1.5), atol=1e-3)
    corners = np.array([*itertools.product((0, 19), (0, 29))])
    there = nibabel.affines.apply_affine(affine, np.pad(corners[:, ::-1], ((0, 0), (0, 1))))[:, :2] * -1
    off = np.linalg.norm(image.grid.places(corners) - there, axis=1).max()
    if not said:
        assert image.notes == () and off < 0.02 * 0.7
    else:
        (note,) = image.notes
        assert said in note and f"moves pixels by up to {off:.2g} mm" in note


@pytest.mark.parametrize("name", ["a.nii", "v.nii#3", "v.nii#y7"])
def test_sheared_axes_are_refused(tmp_path, name):
    affine = np.eye(4)
    affine[0, 1] = affine[0, 2] = np.tan(np.deg2rad(5))
    save(tmp_path / "a.nii", texture(SHAPE).T, affine)
    save(tmp_path / "v.nii", np.random.default_rng(0).random((10, 12, 14)), affine)
    with pytest.raises(UserError, match=r"5\.0 degrees off perpendicular"):
        open_image(f"{tmp_path}/{name}")


def test_a_tilted_gantry_leaves_axial_slices_as_they_are(tmp_path):
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 3 * np.tan(np.deg2rad(20))
    save(tmp_path / "v.nii", np.random.default_rng(0).random((10, 12, 14)), affine)
    grid = open_image(f"{tmp_path}/v.nii#3").grid
    there = nibabel.affines.apply_affine(affine, [9, 11, 3]) * [-1, -1, 1]
    np.testing.assert_allclose(grid.places([0, 0]), there, atol=1e-6)
    np.testing.assert_allclose(grid.direction, np.eye(3).ravel(), atol=1e-6)


@few
@given(grids(3), st.sampled_from("xyz"), st.data())
def test_a_slice_of_a_volume_lies_where_the_volume_has_it(tmp_path, grid, axis, data):
    voxels = np.random.default_rng(0).random((10, 12, 14)).astype(np.float32)
    affine = affine_of(grid)
    save(tmp_path / "v.nii", voxels, affine)
    (tmp_path / "v.nii").touch()
    volume = nibabel.as_closest_canonical(nibabel.load(tmp_path / "v.nii"))
    index = data.draw(st.integers(0, volume.shape["xyz".index(axis)] - 1))
    image = open_image(f"{tmp_path}/v.nii#{axis}{index}")
    values = volume.get_fdata(dtype=np.float32)
    for row, column in ((0, 0), (3, 7), (image.shape[0] - 1, 2)):
        voxel = np.argwhere(values == image.pixels[row, column])[0]
        assert voxel["xyz".index(axis)] == index
        there = nibabel.affines.apply_affine(volume.affine, voxel) * [-1, -1, 1]
        np.testing.assert_allclose(image.grid.places([row, column]), there, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("shape", [(30, 20, 1, 1), (30, 20, 1, 1, 1), (1, 30, 20, 1)])
def test_trailing_axes_of_one_are_dropped(tmp_path, shape):
    path = save(tmp_path / "a.nii.gz", texture(SHAPE).T.reshape(shape), np.diag([0.5, 1.25, 2, 1]))
    np.testing.assert_array_equal(open_image(path).pixels, texture(SHAPE))


@pytest.mark.parametrize("shape", [(30, 20, 2), (30, 20, 1, 3), (30,)])
def test_more_or_less_than_one_image_is_refused(tmp_path, shape):
    path = save(tmp_path / "a.nii", np.zeros(shape, np.float32), np.eye(4))
    with pytest.raises(UserError, match="must be one 2D image"):
        open_image(path)


def test_stored_values_are_scaled(tmp_path):
    path = save(tmp_path / "a.nii", np.arange(600, dtype=np.int16).reshape(30, 20), np.eye(4))
    image = nibabel.load(path)
    image.header.set_slope_inter(0.5, -100)
    raw = nibabel.Nifti1Image(image.dataobj.get_unscaled(), image.affine, image.header)
    raw.header.set_slope_inter(0.5, -100)
    nibabel.save(raw, tmp_path / "b.nii")
    np.testing.assert_allclose(
        open_image(tmp_path / "b.nii").pixels, np.asarray(nibabel.load(tmp_path / "b.nii").dataobj).T
    )
    assert open_image(tmp_path / "b.nii").pixels.max() == pytest.approx(0.5 * 599 - 100)


@pytest.mark.parametrize(("names", "channels"), [("RGB", 3), ("RGBA", 4)])
def test_colour_voxels_are_channels(tmp_path, names, channels):
    pixels = np.random.default_rng(0).integers(0, 255, (*SHAPE, channels)).astype(np.uint8)
    voxels = np.ascontiguousarray(pixels.swapaxes(0, 1)).view([(name, np.uint8) for name in names])[..., 0]
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    image = open_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.grey(), pixels[..., 1])


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_pairs_of_header_and_image_are_refused_with_a_remedy(tmp_path, name):
    nibabel.save(nibabel.Nifti1Pair(texture(SHAPE).T, np.eye(4)), tmp_path / "a.hdr")
    with pytest.raises(UserError, match=r"pair of \.hdr and \.img .* one \.nii\.gz"):
        open_image(tmp_path / name)


def test_an_impossible_qform_leaves_the_sform(tmp_path):
    image = nibabel.Nifti1Image(texture(SHAPE).T, np.diag([0.5, 1.25, 1, 1]))
    image.header["qform_code"], image.header["quatern_b"] = 1, 5
    nibabel.save(image, tmp_path / "a.nii")
    assert open_image(tmp_path / "a.nii").spacing == (1.25, 0.5)


def test_codes_that_nifti_does_not_have_are_none(tmp_path, capfd):
    path = save(tmp_path / "a.nii", texture(SHAPE).T, np.diag([0.5, 1.25, 1, 1]))
    content = bytearray(path.read_bytes())
    content[252:256] = struct.pack("<hh", 7, 99)
    path.write_bytes(content)
    assert "tells no place" in open_image(path).notes[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_holds_no_pixels_is_refused(tmp_path, in_memory):
    mask = nibabel.cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 5), bool), affine=np.eye(4))
    surface = nibabel.Cifti2Image(np.zeros((9, 20)), (nibabel.cifti2.ScalarAxis(["a"] * 9), mask))
    nibabel.save(surface, tmp_path / "a.dscalar.nii")
    with pytest.raises(UserError, match="must be an image of pixels, got Cifti2Image"):
        open_image(surface if in_memory else tmp_path / "a.dscalar.nii")
    with pytest.raises(UserError, match="must be an image of pixels, got GiftiImage"):
        open_image(nibabel.GiftiImage())


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_impossible_affine_is_refused(tmp_path, value):
    path = save(tmp_path / "a.nii", texture(SHAPE).T, np.eye(4))
    image = nibabel.load(path)
    image.header["srow_x"] = [value, 0, 0, 0]
    header = nibabel.Nifti1Image(image.get_fdata(), None, image.header)
    nibabel.save(header, tmp_path / "b.nii")
    with pytest.raises(UserError, match="affine is singular"):
        open_image(tmp_path / "b.nii")


def test_the_plane_of_a_slice_without_its_height():
    grid = Grid(SHAPE, (0.5, 2.0, 3.0), (1.0, 2.0, 3.0), (1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert in_plane_grid(grid) == Grid(SHAPE, (0.5, 2.0), (1.0, 2.0), (1, 0, 0, -1))
