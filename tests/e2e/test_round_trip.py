"""Images of every format, on random grids, come out of a registration at their places.

A network that moves everything by the same known shift registers a pair whose landmarks are known. SimpleITK
and nibabel, reading the input files and what was written, must carry each landmark to its partner.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests.conftest import FEATURES, texture
from tests.unit.tfmetareg.imaging.image_files import turned
from tests.unit.tfrecords_builder import dicom_files
from tfmetareg.errors import UserError
from tfmetareg.imaging.direction import Turn, turn_to_fixed
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.read import open_image
from tfmetareg.models.registry import build_model
from tfmetareg.registration.output import save_registration
from tfmetareg.registration.pair import InputPair, PairRegistrar
from tfmetareg.registration.weights import TrainedNetwork
from tfmetareg.types import ImagePair

SHAPE = (48, 64)
# What lies at p in the fixed image lies at p + SHIFT in the moving one, once both have one direction.
SHIFT = np.array([3.0, -2.0])
LANDMARKS = np.array([[20.0, 30.0], [10.5, 40.25], [35.0, 22.0]])
# Of a volume, the image is this slice along its axis.
INDEX, DEPTH = 3, 6
NEAR_MM = 0.05


@pytest.fixture(scope="module")
def registrar() -> PairRegistrar:
    """Moves everything by SHIFT, whatever it sees."""
    model = build_model("vxm_dense", (64, 64), features=FEATURES)
    weights = [np.zeros_like(values) for values in model.get_weights()]
    weights[-1] = SHIFT.astype(np.float32)
    model.set_weights(weights)
    return PairRegistrar(TrainedNetwork(model, Preprocessing((64, 64))), fit="native", align="none")


class Space(NamedTuple):
    """Where an image lies: (3, 3) axes of unit length, to the next column, row and slice; mm; LPS."""

    axes: np.ndarray
    spacing: np.ndarray
    origin: np.ndarray

    def affine(self) -> np.ndarray:
        """From (column, row, slice) to RAS, mm."""
        to_lps = np.vstack([np.column_stack([self.axes * self.spacing, self.origin]), [0, 0, 0, 1]])
        return np.diag([-1, -1, 1, 1]) @ to_lps


@st.composite
def spaces(draw: Callable, in_plane: bool = False) -> tuple[Space, Space, Turn]:
    """Two images of nearly one plane, the moving one turned by a quarter, mirrored, or both."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    axes = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    tilt = Rotation.from_euler("xyz", rng.uniform(-20, 20, 3), degrees=True).as_matrix()
    if in_plane:
        axes, tilt = (np.eye(3) for _ in range(2))
        axes[:2, :2], tilt[:2, :2] = (
            np.reshape(turned(degrees), (2, 2)) for degrees in rng.uniform((-180, -20), (180, 20))
        )
    axes[:, 0] *= rng.choice([-1, 1])
    turn = Turn(draw(st.booleans()), (draw(st.booleans()), draw(st.booleans())))
    columns = [1, 0, 2] if turn.transposed else [0, 1, 2]
    # The turned image's rows run against the moving one's where the turn reverses them.
    signs = np.array([*np.where(turn.reversed[::-1], -1, 1), 1])
    moving = ((tilt @ axes) * signs)[:, columns]
    made = [Space(each, rng.uniform(0.2, 3, 3), rng.uniform(-200, 200, 3)) for each in (moving, axes)]
    if in_plane:
        made = [space._replace(origin=space.origin * [1, 1, 0]) for space in made]
    return made[0], made[1], turn


def scene() -> np.ndarray:
    """Smooth, in [0, 1]."""
    image = texture(np.random.default_rng(0), 4, 64)[: SHAPE[0], : SHAPE[1]]
    return (image - image.min()) / np.ptp(image)


def images(turn: Turn) -> tuple[np.ndarray, np.ndarray]:
    """The moving image, as its file holds it, and the fixed one."""
    fixed = scene()
    moved = ndimage.shift(fixed, SHIFT, order=3, mode="nearest")
    # What turns the moving image into the fixed one's direction is undone: flips first, then the exchange.
    back = moved[tuple(np.s_[::-1] if backwards else np.s_[:] for backwards in turn.reversed)]
    return (back.T if turn.transposed else back), fixed


def partners(turn: Turn, shape: tuple[int, int]) -> np.ndarray:
    """Where the landmarks lie in the moving image's own pixels."""
    matrix = turn.matrix(shape)
    return (LANDMARKS + SHIFT - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def write_nifti(
    path: Path, image: np.ndarray, space: Space, across: Optional[int], dimension: int = 3
) -> str:
    """A 2D file, a volume of one slice across an axis of the file, or of a slice of several if it is None."""
    pixels, affine = image.astype(np.float32).T, space.affine()
    if dimension == 2:
        voxels = pixels
    elif across is not None:
        voxels = np.expand_dims(pixels, across)
        affine = affine[:, [*np.insert([0, 1], across, 2), 3]]
    else:
        voxels = np.repeat(pixels[..., None], DEPTH, -1) + 0.01 * np.arange(DEPTH)
        affine[:3, 3] -= INDEX * affine[:3, 2]
    made = nibabel.Nifti1Image(voxels, affine)
    made.set_sform(affine, 1)
    made.set_qform(affine if dimension == 3 else None, int(dimension == 3))
    nibabel.save(made, path)
    return str(path)


def places_of(path: str, points: np.ndarray) -> np.ndarray:
    """Where SimpleITK has pixels of a file, (row, column)."""
    image = sitk.ReadImage(path)
    indices = np.pad(points[:, ::-1], ((0, 0), (0, image.GetDimension() - 2)))
    return np.array([image.TransformContinuousIndexToPhysicalPoint(index.tolist()) for index in indices])


def lps(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where pixels, (row, column), lie by an affine from (column, row, slice) to RAS."""
    return nibabel.affines.apply_affine(affine, np.pad(points[:, ::-1], ((0, 0), (0, 1)))) * [-1, -1, 1]


def run(registrar: PairRegistrar, moving: str, fixed: str, folder: Path) -> Path:
    opened = open_image(moving), open_image(fixed)
    pair = ImagePair("m:f", "s", *(image.grey() for image in opened))
    registered = registrar.register(InputPair(pair, *opened))
    save_registration(registered, folder / "out", formats=("npz", "nii.gz", "h5", "tfm"), figures=False)
    return folder / "out"


def check(folder: Path, from_places: np.ndarray, to_places: np.ndarray) -> None:
    """What was written carries the landmarks to their partners, as SimpleITK and as nibabel read it."""
    vectors = sitk.ReadImage(str(folder / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    transforms = [sitk.ReadTransform(str(folder / f"displacement.{ending}")) for ending in ("h5", "tfm")]
    for transform in (*transforms, sitk.DisplacementFieldTransform(vectors)):
        found = [transform.TransformPoint(place.tolist()) for place in from_places]
        assert np.abs(found - to_places).max() < NEAR_MM
    field = nibabel.load(folder / "displacement.nii.gz")
    vectors = np.asarray(field.dataobj)[:, :, 0, 0]
    dimension = vectors.shape[-1]
    ras = np.pad(from_places, ((0, 0), (0, 3 - dimension))) * [-1, -1, 1]
    voxels = nibabel.affines.apply_affine(np.linalg.inv(field.affine), ras)
    assert np.abs(voxels[:, 2]).max() < 1e-3
    read = [
        ndimage.map_coordinates(vectors[..., axis], voxels[:, :2].T, order=1) for axis in range(dimension)
    ]
    assert np.abs(from_places + np.stack(read, axis=-1) - to_places).max() < NEAR_MM


def check_image(folder: Path, from_places: np.ndarray, fixed: np.ndarray) -> None:
    """What SimpleITK reads of the results shows at the landmarks' places what the fixed image does."""
    names = [path for path in folder.glob("warped.*") if path.suffix != ".npy"]
    shown = [path for path in names if path.suffix == ".gz"] or names
    image = sitk.ReadImage(str(shown[0]), sitk.sitkFloat32)
    scale = 255 if image.GetDimension() == 2 and sitk.GetArrayViewFromImage(image).max() > 2 else 1
    values = [image.EvaluateAtPhysicalPoint(place.tolist()) / scale for place in from_places]
    expected = ndimage.map_coordinates(fixed, LANDMARKS.T, order=1)
    assert np.abs(values - expected).max() < 0.03


few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("across", [2, 1, 0])
@few
@given(pair=spaces())
def test_volumes_of_one_slice(registrar, tmp_path_factory, across, pair):
    (moving, fixed, turn), folder = pair, tmp_path_factory.mktemp("one")
    pixels = images(turn)
    files = [
        write_nifti(folder / f"{name}.nii.gz", image, space, across)
        for name, image, space in zip("mf", pixels, (moving, fixed))
    ]
    out = run(registrar, *files, folder)
    from_places, to_places = (
        lps(fixed.affine(), LANDMARKS),
        lps(moving.affine(), partners(turn, pixels[0].shape)),
    )
    check(out, from_places, to_places)
    check_image(out, from_places, pixels[1])
    transform = sitk.ReadTransform(str(out / "displacement.h5"))
    resampled = sitk.Resample(*map(sitk.ReadImage, files), transform)
    warped = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "warped.nii.gz"))).squeeze()
    inner = np.s_[6:-6, 6:-6]
    assert np.abs(sitk.GetArrayFromImage(resampled).squeeze() - warped)[inner].max() < 1e-3


@few
@given(pair=spaces())
def test_slices_of_volumes(registrar, tmp_path_factory, pair):
    (moving, fixed, turn), folder = pair, tmp_path_factory.mktemp("slices")
    pixels = images(turn)
    for name, image, space in zip("mf", pixels, (moving, fixed)):
        write_nifti(folder / f"{name}.nii.gz", image, space, None)
    chosen = []
    for name in "mf":
        # The slices of a volume across its third axis have a letter and an index of their own.
        volume = nibabel.load(folder / f"{name}.nii.gz")
        axis, sign = nibabel.io_orientation(volume.affine)[2]
        chosen.append(f"{folder}/{name}.nii.gz#{'xyz'[int(axis)]}{INDEX if sign > 0 else DEPTH - 1 - INDEX}")
    try:
        out = run(registrar, *chosen, folder)
    except UserError as error:  # Slices of two planes, an axial one and a sagittal one, say.
        assert "degrees apart" in str(error)
        return
    # The slices are where the volumes have them, though shown from the usual side: perhaps turned once more.
    opened = [open_image(name) for name in chosen]
    for image, space in zip(opened, (moving, fixed)):
        assert np.abs(image.grid.from_lps(lps(space.affine(), LANDMARKS))[1]).max() < 1e-3
    matrix = turn_to_fixed(*opened).matrix(opened[0].shape)
    shifted = (LANDMARKS + SHIFT - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    check(out, opened[1].grid.places(LANDMARKS), opened[0].grid.places(shifted))
    transform = sitk.ReadTransform(str(out / "displacement.h5"))
    volume = sitk.ReadImage(str(folder / "m.nii.gz"))
    warped = sitk.ReadImage(str(out / "warped.nii.gz"))
    resampled = sitk.Resample(volume, warped, transform)
    difference = np.abs(sitk.GetArrayFromImage(resampled) - sitk.GetArrayFromImage(warped))[0]
    assert difference[6:-6, 6:-6].max() < 1e-3
    field = nibabel.load(out / "displacement.nii.gz")
    np.testing.assert_allclose(field.affine, nibabel.load(out / "warped.nii.gz").affine, atol=1e-4)


@few
@given(pair=spaces(in_plane=True))
def test_2d_nifti(registrar, tmp_path_factory, pair):
    (moving, fixed, turn), folder = pair, tmp_path_factory.mktemp("flat")
    pixels = images(turn)
    files = [
        write_nifti(folder / f"{name}.nii.gz", image, space, None, dimension=2)
        for name, image, space in zip("mf", pixels, (moving, fixed))
    ]
    out = run(registrar, *files, folder)
    places = [lps(space.affine(), points)[:, :2] for space, points in
              ((fixed, LANDMARKS), (moving, partners(turn, pixels[0].shape)))]  # fmt: skip
    np.testing.assert_allclose(places[0], places_of(files[1], LANDMARKS), atol=1e-2)
    check(out, *places)
    check_image(out, places[0], pixels[1])
    resampled = sitk.Resample(*map(sitk.ReadImage, files), sitk.ReadTransform(str(out / "displacement.h5")))
    warped = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "warped.nii.gz")))
    assert np.abs(sitk.GetArrayFromImage(resampled) - warped)[6:-6, 6:-6].max() < 1e-3


@few
@given(pair=spaces())
def test_dicom(registrar, tmp_path_factory, pair):
    (moving, fixed, turn), folder = pair, tmp_path_factory.mktemp("dicom")
    pixels = images(turn)
    files = []
    for name, image, space in zip("mf", pixels, (moving, fixed)):
        place = {
            "ImagePositionPatient": [f"{value:.10g}" for value in space.origin],
            "ImageOrientationPatient": [f"{value:.10f}"[:16] for value in space.axes[:, :2].T.ravel()],
            "PixelSpacing": [f"{value:.12g}" for value in space.spacing[1::-1]],
        }
        stored = np.uint16(np.round(60000 * image))
        files.append(
            str(dicom_files.write(folder / f"{name}.dcm", image=stored, RescaleIntercept=0, **place))
        )
    out = run(registrar, *files, folder)
    from_places = lps(fixed.affine(), LANDMARKS)
    check(out, from_places, lps(moving.affine(), partners(turn, pixels[0].shape)))
    assert [path.name for path in out.glob("warped.*")] == ["warped.nii.gz"]
    warped = sitk.ReadImage(str(out / "warped.nii.gz"), sitk.sitkFloat32)
    values = [warped.EvaluateAtPhysicalPoint(place.tolist()) / 60000 for place in from_places]
    assert np.abs(values - ndimage.map_coordinates(pixels[1], LANDMARKS.T, order=1)).max() < 0.03
    itk = [sitk.ReadImage(file, sitk.sitkFloat32) for file in files]
    resampled = sitk.GetArrayFromImage(sitk.Resample(*itk, sitk.ReadTransform(str(out / "displacement.h5"))))
    assert np.abs(resampled - sitk.GetArrayFromImage(warped))[0, 6:-6, 6:-6].max() < 60


def write_picture(path: Path, image: np.ndarray, dpi: tuple[float, float]) -> str:
    if path.suffix == ".tif":
        tifffile.imwrite(path, np.uint8(255 * image), resolution=dpi, resolutionunit="inch")
    elif path.suffix == ".npy":
        np.save(path, np.float32(image))
    else:
        PillowImage.fromarray(np.uint8(255 * image)).save(path, dpi=dpi, quality=97)
    return str(path)


def test_a_page_of_a_tiff_comes_back_as_a_tiff(registrar, tmp_path):
    pages = np.uint8(255 * np.stack([np.zeros(SHAPE), images(Turn())[0]]))
    tifffile.imwrite(tmp_path / "m.tif", pages, photometric="minisblack", imagej=True)
    fixed = write_picture(tmp_path / "f.tif", scene(), (300, 150))
    out = run(registrar, f"{tmp_path}/m.tif#1", fixed, tmp_path)
    assert [path.name for path in out.glob("warped.*")] == ["warped.tif"]
    np.testing.assert_allclose(
        tifffile.imread(out / "warped.tif")[6:-6, 6:-6] / 255, scene()[6:-6, 6:-6], atol=0.03
    )
    assert sitk.ReadImage(str(out / "warped.tif")).GetSpacing() == pytest.approx((25.4 / 300, 25.4 / 150))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".npy"])
@few
@given(dpi=st.lists(st.integers(20, 1200), min_size=4, max_size=4))
def test_pictures_and_arrays(registrar, tmp_path_factory, ending, dpi):
    folder = tmp_path_factory.mktemp("pictures")
    moving, fixed = images(Turn())
    files = [
        write_picture(folder / f"{name}{ending}", image, resolution)
        for name, image, resolution in (("m", moving, dpi[:2]), ("f", fixed, dpi[2:]))
    ]
    out = run(registrar, *files, folder)
    if ending == ".npy":  # Nothing tells a place: pixels are places.
        places = LANDMARKS[:, ::-1], (LANDMARKS + SHIFT)[:, ::-1]
    else:
        places = places_of(files[1], LANDMARKS), places_of(files[0], LANDMARKS + SHIFT)
    check(out, *places)
    if ending == ".npy":
        np.testing.assert_allclose(np.load(out / "warped.npy")[6:-6, 6:-6], fixed[6:-6, 6:-6], atol=0.03)
        assert [path.name for path in out.glob("warped.*")] == ["warped.npy"]
    else:
        check_image(out, places[0], fixed)


@few
@given(pair=spaces())
def test_a_picture_onto_a_slice_in_space(registrar, tmp_path_factory, pair):
    (_, fixed, _), folder = pair, tmp_path_factory.mktemp("mixed")
    moving, pixels = images(Turn())
    files = [
        write_picture(folder / "m.png", moving, (72, 72)),
        write_nifti(folder / "f.nii.gz", pixels, fixed, 2),
    ]
    out = run(registrar, *files, folder)
    from_places = lps(fixed.affine(), LANDMARKS)
    # ITK has the picture's pixels at their indices, here in the plane z = 0.
    check(out, from_places, np.pad((LANDMARKS + SHIFT)[:, ::-1], ((0, 0), (0, 1))))
    assert sorted(path.name for path in out.glob("warped.*")) == ["warped.nii.gz", "warped.png"]
    image = sitk.ReadImage(str(out / "warped.nii.gz"), sitk.sitkFloat32)
    values = [image.EvaluateAtPhysicalPoint(place.tolist()) / 255 for place in from_places]
    assert np.abs(values - ndimage.map_coordinates(pixels, LANDMARKS.T, order=1)).max() < 0.03
    assert "tells no direction" in (out / "summary.json").read_text()
