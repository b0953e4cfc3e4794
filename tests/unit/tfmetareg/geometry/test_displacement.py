from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from PIL import Image
from scipy import ndimage

from tfmetareg.evaluation.metrics import folding_percent
from tfmetareg.geometry.affine import compose_displacement, resample
from tfmetareg.geometry.displacement import carry_to_fixed, carry_to_moving, invert_displacement
from tfmetareg.geometry.warp import displace_points
from tfmetareg.imaging.landmarks import read_landmarks

SHAPE = (72, 60)


def smooth(shape: tuple[int, int], sigma: float, longest: float, seed: int = 0) -> np.ndarray:
    """Smooth random displacement, at most `longest` pixels along an axis."""
    rng = np.random.default_rng(seed)
    noise = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), sigma) for _ in range(2)], axis=-1)
    return longest * noise / np.abs(noise).max()


def affine(shape: tuple[int, int], scale: float, degrees: float, centre: tuple[float, float]) -> np.ndarray:
    """Displacement that turns and scales about the image's centre, which comes to lie at `centre`."""
    angle = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pixels = np.stack(np.indices(shape), axis=-1)
    return (pixels - (np.array(shape) - 1) / 2) @ matrix.T + centre - pixels


def fold_free(displacement: np.ndarray) -> np.ndarray:
    displacement = np.float32(displacement)
    assert folding_percent(displacement[None])[0] == 0
    return displacement


# Displacement and the shape of the moving image.
MAPS = {
    "identity": (fold_free(np.zeros((*SHAPE, 2))), SHAPE),
    "smooth": (fold_free(smooth(SHAPE, 8, 6)), SHAPE),
    "strong": (fold_free(smooth(SHAPE, 5, 6, seed=3)), SHAPE),
    "shift": (fold_free(40 + smooth(SHAPE, 8, 4)), SHAPE),
    "turn": (fold_free(affine(SHAPE, 1, 20, (35, 28)) + smooth(SHAPE, 8, 4)), SHAPE),
    "eighth turn": (fold_free(affine(SHAPE, 1, 45, (35, 28)) + smooth(SHAPE, 8, 4)), SHAPE),
    "larger": (fold_free(affine(SHAPE, 2, 0, (71, 60)) + smooth(SHAPE, 8, 8)), (144, 120)),
    "smaller": (fold_free(affine(SHAPE, 0.5, 20, (18, 15)) + smooth(SHAPE, 8, 2)), (36, 30)),
}


def inside(points: np.ndarray, shape: tuple[int, int], margin: float = 0.0) -> np.ndarray:
    return ((points >= -0.5 + margin) & (points <= np.array(shape) - 0.5 - margin)).all(axis=-1)


def some_points(shape: tuple[int, int], count: int = 2000) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, np.array(shape) - 0.5, (count, 2))


def test_points_are_carried_as_the_network_reads_displacements():
    displacement, _ = MAPS["turn"]
    points = np.float32(np.random.default_rng(1).uniform(0, np.array(SHAPE) - 1, (50, 2)))
    expected = displace_points(points[None], displacement[None])[0].numpy()
    np.testing.assert_allclose(carry_to_moving(points, displacement), expected, atol=1e-4)
    assert carry_to_moving(points, displacement).dtype == np.float32


@pytest.mark.parametrize("name", MAPS)
def test_every_point_of_the_fixed_image_is_found_again(name):
    displacement, _ = MAPS[name]
    points = some_points(SHAPE)
    assert np.abs(carry_to_fixed(carry_to_moving(points, displacement), displacement) - points).max() < 0.01


@pytest.mark.parametrize("name", MAPS)
def test_the_inverse_leads_to_the_fixed_image_and_back(name):
    displacement, shape = MAPS[name]
    back = invert_displacement(displacement, shape)
    assert back.shape == (*shape, 2)
    assert back.dtype == np.float32
    pixels = np.stack(np.indices(shape, np.float32), axis=-1)
    covered = np.isfinite(back).all(axis=-1)
    landed = carry_to_moving((pixels + back)[covered], displacement)
    assert np.abs(landed - pixels[covered]).max() < 0.01
    assert inside((pixels + back)[covered], SHAPE, margin=-0.01).all()
    # What the whole outline of the fixed image encloses is covered, and nothing else is.
    assert (covered == enclosed(pixels, displacement)).mean() > 0.999


def enclosed(points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Whether points lie within the image of the fixed image's outline, by matplotlib's polygons."""
    from matplotlib.path import Path as Polygon

    (height, width), steps = displacement.shape[:2], np.linspace(0, 1, 400, endpoint=False)
    corners = np.array([(0, 0), (0, width), (height, width), (height, 0), (0, 0)]) - 0.5
    outline = np.concatenate([one + steps[:, None] * (two - one) for one, two in zip(corners, corners[1:])])
    polygon = Polygon(carry_to_moving(outline, displacement))
    return polygon.contains_points(points.reshape(-1, 2)).reshape(points.shape[:-1])


@pytest.mark.parametrize("name", ["smooth", "shift", "turn"])
def test_a_field_and_its_inverse_read_bilinearly_undo_each_other(name):
    displacement, shape = MAPS[name]
    points = some_points(SHAPE)
    carried = carry_to_moving(points, displacement)
    returned = carry_to_moving(carried, invert_displacement(displacement, shape))
    sure = np.isfinite(returned).all(axis=1) & inside(carried, shape, margin=0.5)
    assert sure.sum() > 200
    assert np.abs(returned - points)[sure].max() < 0.1


def test_a_point_without_a_preimage_is_nan():
    displacement = np.full((20, 30, 2), 5, np.float32)
    points = [[4.4, 10], [4.6, 10], [24.4, 10], [24.6, 10], [10, 34.6], [1e6, -1e6], [np.nan, 3], [7, 8]]
    found = carry_to_fixed(np.array(points), displacement)
    lost = [True, False, False, True, True, True, True, False]
    np.testing.assert_array_equal(np.isnan(found), np.stack([lost, lost], axis=-1))
    np.testing.assert_allclose(found[-1], [2, 3], atol=1e-3)
    assert carry_to_fixed(np.zeros((0, 2)), displacement).shape == (0, 2)


def test_nan_is_carried_on():
    holes = np.zeros((20, 30, 2), np.float32)
    holes[:5] = np.nan
    carried = carry_to_moving(np.array([[2, 3], [10, 3], [np.nan, 3]]), holes)
    np.testing.assert_array_equal(np.isnan(carried).any(axis=1), [True, False, True])


def test_where_it_folds_one_of_the_preimages_is_found():
    displacement = np.float32(smooth(SHAPE, 3, 6))
    assert 1 < folding_percent(displacement[None])[0] < 20
    middle = np.random.default_rng(1).uniform(8, np.array(SHAPE) - 9, (5000, 2))
    carried = carry_to_moving(middle, displacement)
    found = carry_to_fixed(carried, displacement)
    assert np.abs(carry_to_moving(found, displacement) - carried).max() < 0.01
    assert np.abs(found - middle).max() > 1


def test_an_inverse_of_full_size_takes_a_second_or_so():
    displacement = fold_free(affine((400, 400), 1, 10, (205, 190)) + smooth((400, 400), 15, 14))
    start = time.process_time()
    invert_displacement(displacement, (400, 400))
    assert time.process_time() - start < 3


def test_a_real_registration_is_inverted(real_data):
    folder = real_data / "octa_scp"
    names = ("pair01_moving", "pair01_fixed")
    moving, fixed = (np.asarray(Image.open(folder / "images" / f"{name}.png").convert("F")) for name in names)
    there, here = (read_landmarks(folder / "landmarks" / f"{name}.csv") for name in names)
    alignment = np.linalg.lstsq(np.column_stack([here, np.ones(len(here))]), there, rcond=None)[0].T
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(30)
    demons.SetStandardDeviations(3.0)
    field = demons.Execute(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(resample(moving, alignment)))
    residual = sitk.GetArrayFromImage(field)[..., ::-1].astype(np.float32)
    assert np.abs(residual).max() > 1
    displacement = fold_free(compose_displacement(residual, alignment))
    back = invert_displacement(displacement, moving.shape)
    pixels = np.stack(np.indices(moving.shape, np.float32), axis=-1)
    covered = np.isfinite(back).all(axis=-1)
    assert covered.mean() > 0.5
    assert np.abs(carry_to_moving((pixels + back)[covered], displacement) - pixels[covered]).max() < 0.01
