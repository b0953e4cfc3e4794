"""Image files with geometries of their own, and images to put into them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tfmetareg.imaging.grid import Grid


def turned(degrees: float) -> tuple[float, ...]:
    angle = np.deg2rad(degrees)
    return np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)


def grids(dimension: int, shape: tuple[int, int] = (20, 30)) -> st.SearchStrategy[Grid]:
    """Grids of any pixel size, place and direction, mirrored ones among them."""
    angle, place = st.floats(-180, 180), st.floats(-300, 300)

    def grid(angles: list[float], sizes: list[float], origin: list[float], mirrored: bool) -> Grid:
        axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        if dimension == 2:
            axes = np.reshape(turned(angles[0]), (2, 2))
        axes = axes * np.where(np.arange(dimension) == mirrored - 1, -1.0, 1.0)
        return Grid(shape, tuple(sizes), tuple(origin), tuple(axes.ravel().tolist()), is_known=True)

    lists = (
        st.lists(values, min_size=dimension, max_size=dimension) for values in (st.floats(0.05, 6), place)
    )
    return st.builds(grid, st.lists(angle, min_size=3, max_size=3), *lists, st.booleans())


def assert_same_grid(grid: Grid, expected: Grid) -> None:
    assert grid.shape == expected.shape
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(grid, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


def texture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth float32 image in [0, 1]."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.float32((image - image.min()) / np.ptp(image))


def files_of_every_kind(folder: Path) -> list[Path]:
    """Images of 24 x 32 pixels with geometries of their own."""
    pixels = np.uint8(255 * texture((24, 32)))
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray(pixels).save(folder / name, dpi=(300, 150))
    grid = Grid(pixels.shape, (0.4, 0.9), (12.0, -30.0), turned(25))
    sitk.WriteImage(grid.image(pixels), str(folder / "itk.nii.gz"))
    nibabel.save(nibabel.Nifti1Image(pixels.T, np.diag([2.0, 3.0, 1.0, 1.0])), folder / "nibabel.nii")
    solid = sitk.GetImageFromArray(pixels[None])
    solid.SetSpacing((0.7, 0.8, 5.0))
    solid.SetOrigin((5.0, 6.0, 7.0))
    for name, direction in (
        ("axial", (1, 0, 0, 0, 1, 0, 0, 0, 1)), ("supine", (0, -1, 0, 1, 0, 0, 0, 0, 1)),
        ("sagittal", (0, 0, 1, 1, 0, 0, 0, -1, 0)),
    ):  # fmt: skip
        solid.SetDirection(direction)
        sitk.WriteImage(solid, str(folder / f"{name}.nii.gz"))
    return sorted(folder.iterdir())


def write_volume(folder: Path, direction: tuple[float, ...], size=(20, 16, 5)) -> Path:
    """A volume of three different spacings whose intensity is x + 100 y in LPS, mm."""
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing((1.1, 0.7, 3.0))
    image.SetOrigin((-20.0, 11.0, 4.0))
    image.SetDirection(direction)
    values = np.empty(size[::-1], np.float32)
    for index in np.ndindex(*size):
        x, y, _ = image.TransformIndexToPhysicalPoint(index)
        values[index[::-1]] = x + 100 * y
    filled = sitk.GetImageFromArray(values)
    filled.CopyInformation(image)
    sitk.WriteImage(filled, str(folder / "volume.nii.gz"))
    return folder / "volume.nii.gz"
