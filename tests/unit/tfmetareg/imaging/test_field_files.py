"""Files of displacements, against SimpleITK's (and, where it is there, ANTs') own reading of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests.unit.tfmetareg.imaging.image_files import texture, turned, write_volume
from tfmetareg.errors import UserError
from tfmetareg.geometry.displacement import carry_to_moving, invert_displacement
from tfmetareg.geometry.warp import warp
from tfmetareg.imaging.field_files import FORMATS, fill_gaps, read_field, write_field
from tfmetareg.imaging.grid import Grid, in_one_space
from tfmetareg.imaging.read import open_image

ITK_FORMATS = [ending for ending in FORMATS if ending != ".npz"]


def in_space(height: int, width: int, degrees: float) -> Grid:
    axes = Rotation.from_euler("xyz", [degrees, 2 * degrees, 40], degrees=True).as_matrix()
    return Grid((height, width), (0.4, 0.9, 3.0), (12.0, -30.0, 7.0), tuple(axes.ravel()), is_known=True)


GEOMETRIES = {
    "unit": (Grid((48, 40)), Grid((48, 40))),
    "anisotropic": (Grid((48, 40), (0.4, 0.9), (12.0, -30.0)), Grid((48, 40), (0.5, 0.7), (-3.0, 8.0))),
    "turned": (
        Grid((48, 40), (0.4, 0.9), (12.0, -30.0), turned(25)),
        Grid((48, 40), (0.5, 0.7), (-3.0, 8.0), turned(-70)),
    ),
    "mirrored": (
        Grid((48, 40), (0.4, 0.9), (12.0, -30.0), (-1.0, 0.0, 0.0, -1.0)),
        Grid((48, 40), (0.5, 0.7), (-3.0, 8.0), (0.0, 1.0, 1.0, 0.0)),
    ),
    "sizes": (Grid((48, 40), (0.4, 0.9)), Grid((60, 90), (0.3, 0.2), (5.0, 5.0), turned(10))),
    "in space": (in_space(48, 40, 30), in_space(60, 90, -20)),
    "2d onto space": (in_space(48, 40, 30), Grid((60, 90), (0.3, 0.2), (5.0, 5.0), turned(10))),
    "space onto 2d": (Grid((48, 40), (0.4, 0.9), (12.0, -30.0), turned(25)), in_space(48, 40, 70)),
}


def displacement_to(fixed: tuple[int, int], moving: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth, up to 3 pixels beside the map that stretches the fixed image over the moving one."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=fixed), 6) for _ in range(2)], axis=-1)
    pixels = np.stack(np.indices(fixed), axis=-1)
    stretch = pixels * ((np.array(moving) - 1) / (np.array(fixed) - 1) - 1)
    return np.float32(stretch + 3 * smooth / np.abs(smooth).max())


def warped(moving: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """The project's own warp; a moving image of another size is padded, or the displacement is."""
    shape = np.maximum(moving.shape, displacement.shape[:2])
    moving = np.pad(moving, [(0, new - old) for new, old in zip(shape, moving.shape)], mode="edge")
    by = np.pad(displacement, [(0, new - old) for new, old in zip(shape, displacement.shape[:2])] + [(0, 0)])
    height, width = displacement.shape[:2]
    return warp(moving[None, ..., None], by[None]).numpy()[0, :height, :width, 0]


def interior(displacement: np.ndarray, moving: tuple[int, int]) -> np.ndarray:
    """bool (height, width): what lands on the moving image's pixels."""
    landed = np.stack(np.indices(displacement.shape[:2]), axis=-1) + displacement
    return ((landed >= 0) & (landed <= np.array(moving) - 1)).all(axis=-1)


def some_points(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(2).uniform(0, np.array(shape) - 1, (50, 2))


def itk_transform(path: Path) -> sitk.Transform:
    """What a user of SimpleITK does with the file."""
    if path.name.endswith((".nii", ".nii.gz")):
        return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    return sitk.ReadTransform(str(path))


def check_against_simpleitk(path: Path, displacement, fixed: Grid, moving: Grid, image: np.ndarray) -> None:
    transform = itk_transform(path)
    fixed, moving = in_one_space(fixed, moving)
    reference = sitk.Resample(moving.image(image), fixed.image(np.zeros(fixed.shape, np.float32)), transform)
    inside = interior(displacement, moving.shape)
    assert inside.mean() > 0.5
    difference = sitk.GetArrayFromImage(reference).squeeze() - warped(image, displacement)
    assert np.abs(difference[inside]).max() < 0.01 * np.ptp(image)
    points = some_points(fixed.shape)
    carried = moving.points([transform.TransformPoint(place) for place in fixed.places(points)])
    assert np.abs(carried - carry_to_moving(points, displacement)).max() < 0.05


@pytest.mark.parametrize("ending", ITK_FORMATS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_simpleitk_warps_images_and_points_as_the_displacement_does(geometry, ending, tmp_path):
    fixed, moving = GEOMETRIES[geometry]
    displacement = displacement_to(fixed.shape, moving.shape)
    write_field(tmp_path / f"field{ending}", displacement, fixed, moving)
    check_against_simpleitk(tmp_path / f"field{ending}", displacement, fixed, moving, texture(moving.shape))
    assert [path.name for path in tmp_path.iterdir()] == [f"field{ending}"]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_what_was_written_is_read_again(geometry, ending, tmp_path):
    fixed, moving = GEOMETRIES[geometry]
    displacement = displacement_to(fixed.shape, moving.shape)
    write_field(tmp_path / f"x.v2{ending}", displacement, fixed, moving)
    found = read_field(tmp_path / f"x.v2{ending}", None if ending == ".npz" else moving)
    np.testing.assert_allclose(found.displacement, displacement, atol=1e-4)
    assert found.displacement.dtype == np.float32
    if ending != ".npz":  # A transform of two images lies in one space.
        fixed, _ = in_one_space(fixed, moving)
    for grid, expected in ((found.fixed, fixed), (found.moving, moving)):
        assert grid.shape == expected.shape
        for name in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(getattr(grid, name), getattr(expected, name), atol=1e-5)


def test_an_inverse_field_leads_back_and_goes_on_beyond_what_the_image_covers(tmp_path):
    fixed, moving = GEOMETRIES["sizes"]
    back = invert_displacement(displacement_to(fixed.shape, moving.shape), moving.shape)
    holes = np.isnan(back).any(axis=-1)
    assert 0 < holes.mean() < 0.2
    for ending in ITK_FORMATS:
        path = tmp_path / f"back{ending}"
        write_field(path, back, moving, fixed)
        check_against_simpleitk(path, fill_gaps(back), moving, fixed, texture(fixed.shape))
        found = read_field(path, fixed).displacement
        np.testing.assert_allclose(found[~holes], back[~holes], atol=1e-4)
    write_field(tmp_path / "back.npz", back, moving, fixed)
    np.testing.assert_array_equal(read_field(tmp_path / "back.npz").displacement, back)


def test_a_field_on_a_slice_of_an_oblique_volume_is_read_again(tmp_path):
    cosine, sine = np.cos(0.2), np.sin(0.2)
    place = f"{write_volume(tmp_path, (1, 0, 0, 0, cosine, -sine, 0, sine, cosine))}#3"
    grid = open_image(place).grid
    displacement = displacement_to(grid.shape, grid.shape)
    write_field(tmp_path / "Warp.nii.gz", displacement, grid, grid)
    assert np.abs(read_field(tmp_path / "Warp.nii.gz", grid).displacement - displacement).max() < 1e-4


@pytest.mark.parametrize("ending", ITK_FORMATS)
def test_a_real_pair_of_scans(ending, tmp_path, real_data):
    paths = [real_data / "octa_scp" / "images" / f"pair01_{name}.png" for name in ("fixed", "moving")]
    fixed, moving = (open_image(path).grid for path in paths)
    displacement = displacement_to(fixed.shape, moving.shape) + np.float32([9, -14])
    write_field(tmp_path / f"f{ending}", displacement, fixed, moving)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(paths[1]), sitk.sitkFloat32))
    check_against_simpleitk(tmp_path / f"f{ending}", displacement, fixed, moving, image)


@pytest.mark.parametrize("ending", ITK_FORMATS)
def test_real_slices_of_a_brain_and_of_a_dicom_series(ending, tmp_path, real_data):
    brain = f"{next(iter(sorted((real_data / 'Task01_BrainMS' / 'imagesTr').glob('*.nii.gz'))))}#90,0"
    dicom = next(iter(sorted((real_data / "dicom_t1").glob("*.dcm"))))
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(dicom), sitk.sitkFloat32))[0]
    fixed, moving = open_image(brain).grid, open_image(sitk.ReadImage(str(dicom))).grid
    assert moving != Grid(image.shape)
    displacement = displacement_to(fixed.shape, moving.shape)
    write_field(tmp_path / f"f{ending}", displacement, fixed, moving)
    check_against_simpleitk(tmp_path / f"f{ending}", displacement, fixed, moving, image)


def test_what_cannot_be_read_says_so(tmp_path):
    displacement = displacement_to((12, 10), (12, 10))
    for ending in FORMATS:
        path = tmp_path / f"cut{ending}"
        write_field(path, displacement, Grid((12, 10)), Grid((12, 10)))
        for share in (0.999, 0.5, 0.05):
            path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
            with pytest.raises(UserError, match="no readable displacement"):
                read_field(path, Grid((12, 10)))
        with pytest.raises(UserError, match="no such file"):
            read_field(tmp_path / f"none{ending}")
    write_field(tmp_path / "f.h5", displacement, Grid((12, 10)), Grid((12, 10)))
    with pytest.raises(UserError, match="moving image's grid"):
        read_field(tmp_path / "f.h5")
    with pytest.raises(UserError, match="unknown format"):
        read_field(next(tmp_path.glob("*.tfm")).rename(tmp_path / "f.mat"))
    sitk.WriteImage(sitk.GetImageFromArray(texture((12, 10))), str(tmp_path / "image.nii.gz"))
    with pytest.raises(UserError, match="2D vectors"):
        read_field(tmp_path / "image.nii.gz", Grid((12, 10)))
    write_field(tmp_path / "flat.h5", displacement, Grid((12, 10)), Grid((12, 10)))
    with pytest.raises(UserError, match="2D field does not lead into a moving image in space"):
        read_field(tmp_path / "flat.h5", Grid((12, 10)).in_space())
    slices = np.random.default_rng(0).random((2, 12, 10, 3))
    sitk.WriteImage(sitk.GetImageFromArray(slices, isVector=True), str(tmp_path / "volume.nii.gz"))
    with pytest.raises(UserError, match="or of 3D vectors on one slice"):
        read_field(tmp_path / "volume.nii.gz", Grid((12, 10)))
    sitk.WriteTransform(sitk.AffineTransform(2), str(tmp_path / "affine.tfm"))
    with pytest.raises(UserError, match="no readable displacement"):
        read_field(tmp_path / "affine.tfm", Grid((12, 10)))
    with pytest.raises(ValueError, match="must end in"):
        write_field(tmp_path / "f.mat", displacement, Grid((12, 10)), Grid((12, 10)))


@pytest.mark.parametrize("ending", ITK_FORMATS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_ants_warps_images_and_points_as_the_displacement_does(geometry, ending, tmp_path):
    ants = pytest.importorskip("ants", reason="antspyx is not installed; it comes with the extra `peers`")
    pandas = pytest.importorskip("pandas")
    fixed, moving = GEOMETRIES[geometry]
    displacement, image = displacement_to(fixed.shape, moving.shape), texture(moving.shape)
    path = str(tmp_path / f"f{ending}")
    write_field(path, displacement, fixed, moving)
    fixed, moving = in_one_space(fixed, moving)
    dimension = fixed.dimension
    sitk.WriteImage(fixed.image(np.zeros(fixed.shape, np.float32)), str(tmp_path / "fixed.nii.gz"))
    sitk.WriteImage(moving.image(image), str(tmp_path / "moving.nii.gz"))
    images = [ants.image_read(str(tmp_path / f"{name}.nii.gz"), dimension) for name in ("fixed", "moving")]
    found = ants.apply_transforms(*images, [path]).numpy().T.squeeze()
    inside = interior(displacement, moving.shape)
    assert np.abs(found - warped(image, displacement))[inside].max() < 0.01
    points = some_points(fixed.shape)
    axes = ["x", "y", "z"][:dimension]
    table = pandas.DataFrame(fixed.places(points), columns=axes)
    carried = moving.points(ants.apply_transforms_to_points(dimension, table, [path])[axes].to_numpy())
    assert np.abs(carried - carry_to_moving(points, displacement)).max() < 0.05


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_is_not_written_whole_is_told_of_and_not_left_there(tmp_path, little_room, ending):
    displacement = np.random.default_rng(0).normal(size=(64, 64, 2)).astype(np.float32)
    with little_room(), pytest.raises(OSError):
        write_field(tmp_path / f"field{ending}", displacement, Grid((64, 64)), Grid((64, 64)))
    assert list(tmp_path.iterdir()) == []


def test_holes_are_continued_from_the_nearest_pixel():
    displacement = np.full((4, 5, 2), np.nan, np.float32)
    displacement[1, 1], displacement[1, 4] = (1, 2), (3, 4)
    np.testing.assert_array_equal(fill_gaps(displacement)[..., 0], [[1, 1, 1, 3, 3]] * 4)
    with pytest.raises(ValueError, match="not NaN"):
        fill_gaps(np.full((4, 5, 2), np.nan))
