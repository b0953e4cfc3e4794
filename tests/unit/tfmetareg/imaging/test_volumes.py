"""Volumes of any orientation become the same slices."""

from __future__ import annotations

import os

import nibabel
import numpy as np
import pytest

from tfmetareg.errors import UserError
from tfmetareg.imaging.read import open_image, read_image
from tfmetareg.imaging.volumes import SliceReference, canonical, open_nifti, parse_slice_reference
from tfrecords_builder.slices import adjacent, foreground_slices

SHAPE = (10, 12, 9)
SPACING = (1.0, 2.0, 3.0)


def head() -> np.ndarray:
    """RAS (x, y, z): all different, brightest at the front (large y), bright on the right (large x)."""
    x, y, z = np.indices(SHAPE)
    return (100 * y + 10 * x + z).astype(np.float32)


def store(path, voxels=None, axes="RAS", **changes):
    """Saves a RAS array in another orientation, with the affine that says so."""
    image = nibabel.Nifti1Image(head() if voxels is None else voxels, np.diag([*SPACING, 1.0]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    image = image.as_reoriented(turn)
    for name, value in changes.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def rotated(degrees: float) -> np.ndarray:
    """Affine of a head turned about the axis from feet to head."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ np.diag([*SPACING, 1.0])


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PSR", "IPL", "SRA"])
def test_every_orientation_gives_the_same_volume(tmp_path, axes):
    volume = canonical(open_nifti(store(tmp_path / "a.nii.gz", axes=axes)))
    np.testing.assert_array_equal(volume.voxels, head())
    assert volume.spacing == pytest.approx(SPACING)


def test_a_slice_shows_the_front_above_and_the_right_side_on_the_left(tmp_path):
    volume = canonical(open_nifti(store(tmp_path / "a.nii.gz", axes="LPI")))
    image = volume.axial(4)
    assert image.shape == (12, 10)
    assert image[0, 0] == head()[9, 11, 4] == image.max()
    assert image[-1, 0] == head()[9, 0, 4]
    assert image[0, -1] == head()[0, 11, 4]
    assert volume.pixel_size == pytest.approx((2.0, 1.0))


@pytest.mark.parametrize("degrees", [20, -40])
def test_an_oblique_volume_is_cut_along_its_own_planes(tmp_path, degrees):
    nibabel.save(nibabel.Nifti1Image(head(), rotated(degrees)), tmp_path / "a.nii")
    volume = canonical(open_nifti(tmp_path / "a.nii"))
    np.testing.assert_array_equal(volume.voxels, head())
    assert volume.spacing == pytest.approx(SPACING)


def test_scaling_units_and_channels(tmp_path):
    image = nibabel.Nifti1Image(np.stack([head(), head() - 500], axis=-1).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = canonical(open_nifti(tmp_path / "a.nii.gz"), channel=1)
    np.testing.assert_array_equal(volume.voxels, nibabel.load(tmp_path / "a.nii.gz").get_fdata()[..., 1])
    assert volume.spacing == pytest.approx((0.001,) * 3)


def test_empty_and_constant_slices_are_left_out():
    voxels = np.zeros((10, 10, 6), np.float32)
    voxels[:3, :, 1:5] = 100  # 30 % of a slice
    voxels[:1, :, 1] = 0  # 20 %
    voxels[:, :, 2] = 0
    voxels[:, :, 4] = 100  # nothing to register
    assert foreground_slices(voxels, 0.2) == [1, 3]
    assert foreground_slices(voxels, 0.25) == [3]
    voxels[:, :, 3] = np.where(voxels[:, :, 3] > 0, 9, 0)  # below a tenth of the range
    assert foreground_slices(voxels, 0.1) == [1]


def test_neighbours_by_gap_and_stride():
    kept = [3, 4, 5, 7, 8, 9, 10]
    assert adjacent(kept, 1, 1) == [(4, 3), (5, 4), (8, 7), (9, 8), (10, 9)]
    assert adjacent(kept, 2, 1) == [(5, 3), (7, 5), (9, 7), (10, 8)]
    assert adjacent(kept, 1, 2) == [(4, 3), (8, 7), (10, 9)]
    assert adjacent([4], 1, 1) == adjacent([], 1, 1) == []


def test_a_slice_is_named_by_its_index_and_channel(tmp_path):
    store(tmp_path / "a.nii.gz", axes="PSR")
    store(tmp_path / "b.nii.gz", np.stack([head(), -head()], axis=-1))
    image = read_image(tmp_path / "a.nii.gz#4")
    np.testing.assert_array_equal(image, head()[::-1, ::-1, 4].T)
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz#4,1"), -image)
    assert parse_slice_reference(tmp_path / "b.nii.gz#4,1") == SliceReference(tmp_path / "b.nii.gz", 4, 1)
    assert open_image(tmp_path / "a.nii.gz#4").spacing == pytest.approx((2.0, 1.0))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR", "IRP"])
def test_slices_along_every_axis_show_the_head_from_the_usual_side(tmp_path, axes):
    store(tmp_path / "a.nii.gz", axes=axes)
    voxels = head()  # x to the right, y to the front, z to the head
    for name, expected in {
        "#4": voxels[::-1, ::-1, 4].T,  # rows from front to back, columns from right to left
        "#z4": voxels[::-1, ::-1, 4].T,
        "#y5": voxels[::-1, 5, ::-1].T,  # rows from head to feet, columns from right to left
        "#X7": voxels[7, ::-1, ::-1].T,  # rows from head to feet, columns from front to back
    }.items():
        image = open_image(f"{tmp_path / 'a.nii.gz'}{name}")
        np.testing.assert_array_equal(image.pixels, expected)
    assert parse_slice_reference(tmp_path / "b.nii#y40,1") == SliceReference(tmp_path / "b.nii", 40, 1, 1)


def test_a_volume_that_changed_is_read_again(tmp_path):
    path = store(tmp_path / "a.nii.gz")
    before = read_image(tmp_path / "a.nii.gz#4")
    store(path, -head())
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz#4"), -before)


def test_a_file_whose_own_name_looks_like_a_slice_is_that_file(tmp_path):
    (tmp_path / "a.nii.gz#4").write_bytes(b"")
    assert parse_slice_reference(tmp_path / "a.nii.gz#4") is None
    assert parse_slice_reference(tmp_path / "eye#4.png") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.nii.gz#9", "a.nii.gz: has no slice 9; slices are 0 to 8."),
        ("a.nii.gz#-1", "name a slice as `#INDEX`"),
        ("a.nii.gz#", "name a slice as `#INDEX`"),
        ("a.nii.gz#w1", "name a slice as `#INDEX`"),
        ("a.nii.gz#y12", "a.nii.gz: has no slice y12; slices are y0 to y11."),
        ("a.nii.gz#1,1", "a.nii.gz: has no channel 1; channels are 0 to 0."),
        ("b.nii.gz#4", "b.nii.gz: has 2 channels; name one, as in `#12,0`."),
        ("c.nii.gz#4", "c.nii.gz: no such file;"),
        ("a.nii.gz", "as in `volume.nii.gz#12`"),
    ],
)
def test_a_slice_that_is_not_there_is_one_line(tmp_path, name, said):
    store(tmp_path / "a.nii.gz")
    store(tmp_path / "b.nii.gz", np.stack([head(), -head()], axis=-1))
    with pytest.raises(UserError) as caught:
        read_image(tmp_path / name)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def broken(path, how):
    """Writes a volume that is broken in one way."""
    if how == "2d":
        nibabel.save(nibabel.Nifti1Image(head()[..., 0], np.eye(4)), path)
    elif how == "5d":
        nibabel.save(nibabel.Nifti1Image(np.stack([head()[..., None]] * 3, axis=-1), np.eye(4)), path)
    elif how == "colour":
        rgb = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), path)
    elif how == "nan":
        nibabel.save(nibabel.Nifti1Image(np.where(head() == 104, np.nan, head()), np.eye(4)), path)
    elif how == "no affine":
        nibabel.save(nibabel.Nifti1Image(head(), None), path)
    elif how in ("flat affine", "parallel affine", "infinite affine"):
        image = nibabel.Nifti1Image(head(), None)
        affine = np.eye(4)
        affine[:3, 2] = {"flat": [0, 0, 0], "parallel": [0, 1, 0], "infinite": [0, 0, np.inf]}[how.split()[0]]
        image.set_sform(affine, code=1, update_affine=False)
        nibabel.save(image, path)
    elif how == "other format":
        nibabel.save(nibabel.MGHImage(head(), np.eye(4)), path.with_suffix("").with_suffix(".mgz"))
        path.with_suffix("").with_suffix(".mgz").rename(path)
    elif how == "junk":
        path.write_bytes(b"no image")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        content = store(path).read_bytes()
        path.write_bytes(content[: len(content) // 2] if how == "cut" else content[:200] + content[230:])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("2d", "must be a 3D volume"),
        ("5d", "must be a 3D volume"),
        ("colour", "intensities must be real numbers"),
        ("nan", "channel 0 holds NaN or infinity (1 voxels)"),
        ("no affine", "does not tell its orientation"),
        ("flat affine", "its affine is singular"),
        ("parallel affine", "its affine is singular"),
        ("infinite affine", "its affine is singular"),
        ("other format", "unreadable NIfTI file"),
        ("junk", "unreadable NIfTI file"),
        ("empty", "unreadable NIfTI file"),
        ("cut", "unreadable NIfTI file"),
        ("bytes lost", "unreadable NIfTI file"),
    ],
)
def test_a_broken_volume_is_one_line_with_its_name(tmp_path, how, said):
    broken(tmp_path / "a.nii.gz", how)
    with pytest.raises(UserError) as caught:
        canonical(open_nifti(tmp_path / "a.nii.gz"))
    assert str(caught.value).startswith(f"{tmp_path / 'a.nii.gz'}: {said}")
    assert "\n" not in str(caught.value)
