"""Displacements in physical space, in files that ITK, SimpleITK and ANTs read.

Lengths are in mm, and everything physical is in ITK's order (x, y) and orientation (LPS), as SimpleITK gives
it: that is where this module differs from the (row, column) of all others. A displacement u in pixels, on the
fixed grid, becomes the field D of vectors in mm that leads from the physical place of a pixel p of the fixed
image to that of p + u(p) in the moving one.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional, TypeVar

import h5py
import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath, published
from tfmetareg.geometry.displacement import fill_gaps
from tfmetareg.imaging.grid import Grid, itk_grid

IMAGES = (".nii", ".nii.gz")
TRANSFORMS = (".h5", ".tfm")
FORMATS = (*IMAGES, *TRANSFORMS, ".npz")

_CONVENTION = (
    "The point p of the fixed image lies at p + displacement[p] in the moving one: pixels, (row, column), "
    "pixel centres at integers. Spacing, origin and direction are ITK's: (x, y), mm, LPS."
)
Written = TypeVar("Written", sitk.Image, sitk.Transform)


class DisplacementField(NamedTuple):
    """A displacement, (height, width, 2) float32, pixels, (row, column), and the grids of its two images."""

    displacement: np.ndarray
    fixed: Grid
    moving: Grid


def write_field(path: StrPath, displacement: np.ndarray, fixed: Grid, moving: Grid) -> None:
    """Publishes a displacement as a file, of a format by the path's ending.

    * `.nii.gz`, `.nii`: vectors in mm on the fixed grid, float32, as `sitk.ReadImage` reads them and as ANTs
      names its own `...Warp.nii.gz`.
    * `.h5`, `.tfm`: the same as a DisplacementFieldTransform, for `sitk.ReadTransform` and ANTs.
    * `.npz`: the displacement in pixels as it is, `fixed_spacing`, `fixed_origin`, `fixed_direction`,
      `moving_shape`, `moving_spacing` and so on, and the convention in words.

    All of them resample the moving image to the fixed grid and carry points from the fixed image to the
    moving one. Outside the fixed image ITK displaces nothing.

    Args:
        path: of the file.
        displacement: (height, width, 2) float32, pixels, (row, column), of the shape of `fixed`. Where it is
            NaN, as that of `fields.inverse` may be, ITK's formats have the nearest pixel's, since NIfTI
            files and text have no NaN; `.npz` keeps it.
        fixed, moving: the grids of the two images; the other way round for an inverse.

    Raises:
        ValueError: the path has another ending.
        OSError: the file cannot be written, or not the whole of it.
    """
    name = Path(path).name.lower()
    if name.endswith(".npz"):
        content = io.BytesIO()  # A zip file that cannot be written complains once more when it is collected.
        np.savez(content, **_arrays(displacement, fixed, moving))
        with published(path) as temporary:
            temporary.write_bytes(content.getbuffer())
    elif name.endswith(FORMATS):
        vectors = _vectors(displacement, fixed, moving)
        # ITK tells a format by its whole ending, which a temporary name keeps the last part of.
        with (
            published(path) as temporary,
            tempfile.TemporaryDirectory(prefix=".", dir=temporary.parent) as folder,
        ):
            written = Path(folder, name)
            if name.endswith(IMAGES):
                write_whole(sitk.WriteImage, fixed.image(vectors.astype(np.float32)), written)
            else:
                transform = sitk.DisplacementFieldTransform(fixed.image(vectors))
                write_whole(sitk.WriteTransform, transform, written)
            os.replace(written, temporary)
    else:
        raise ValueError(f"{path}: the name must end in one of {', '.join(FORMATS)}")


def write_whole(write: Callable[[Written, str], None], value: Written, path: Path) -> None:
    """Has SimpleITK write a file, and reads that again: on a full disk it is cut short, and nothing said.

    Raises:
        OSError: it is not written whole.
    """
    try:
        write(value, str(path))
        _check_whole(path, path.name.lower())
    except Exception as error:  # noqa: BLE001 - from EOFError to RuntimeError
        raise OSError(f"{path.name}: not written whole; is the disk full?") from error


def _vectors(displacement: np.ndarray, fixed: Grid, moving: Grid) -> np.ndarray:
    """float64 (height, width, 2), (x, y) in mm."""
    pixels = np.stack(np.indices(fixed.shape), axis=-1)
    return moving.places(pixels + fill_gaps(displacement)) - fixed.places(pixels)


def _arrays(displacement: np.ndarray, fixed: Grid, moving: Grid) -> dict[str, np.ndarray]:
    arrays = {"displacement": displacement.astype(np.float32), "convention": np.array(_CONVENTION)}
    for name, grid in (("fixed", fixed), ("moving", moving)):
        for key, value in dataclasses.asdict(grid).items():
            arrays[f"{name}_{key}"] = np.array(value)
    return arrays


def read_field(path: StrPath, moving: Optional[Grid] = None) -> DisplacementField:
    """Reads what `write_field` wrote, or a displacement field of ITK's or ANTs'.

    Args:
        path: of the file.
        moving: the grid of the moving image, which ITK's formats do not tell. An `.npz` file does; for one,
            this is ignored.

    Raises:
        UserError: missing, unreadable or of another ending, no 2D displacement field, or `moving` is needed.
    """
    name = Path(path).name.lower()
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; name one that `register` wrote.")
    if not name.endswith(FORMATS):
        raise UserError(f"{path}: unknown format of a displacement; use one of {', '.join(FORMATS)}.")
    if name.endswith(".npz"):
        return _read_arrays(path)
    if moving is None:
        raise UserError(f"{path}: does not tell the moving image's grid; give it, or read the .npz file.")
    field = _read_vectors(path, name)
    fixed = itk_grid(field)
    pixels = np.stack(np.indices(fixed.shape), axis=-1)
    landed = moving.points(fixed.places(pixels) + sitk.GetArrayViewFromImage(field))
    return DisplacementField((landed - pixels).astype(np.float32), fixed, moving)


def _read_arrays(path: StrPath) -> DisplacementField:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            grids = (
                Grid(*(tuple(arrays[f"{name}_{field.name}"].tolist()) for field in dataclasses.fields(Grid)))
                for name in ("fixed", "moving")
            )
            return DisplacementField(arrays["displacement"], *grids)
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from KeyError to zlib.error
        raise _unreadable(path, error) from None


def _read_vectors(path: StrPath, name: str) -> sitk.Image:
    try:
        _check_whole(path, name)
        if name.endswith(IMAGES):
            field = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
        else:
            field = sitk.DisplacementFieldTransform(sitk.ReadTransform(str(path))).GetDisplacementField()
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from EOFError to RuntimeError
        raise _unreadable(path, error) from None
    if field.GetDimension() != 2 or field.GetNumberOfComponentsPerPixel() != 2 or min(field.GetSize()) < 2:
        raise UserError(
            f"{path}: must be a 2D field of 2D vectors, got {field.GetNumberOfComponentsPerPixel()} numbers "
            f"per pixel at size {field.GetSize()}; name another file."
        )
    return field


def _check_whole(path: StrPath, name: str) -> None:
    """Raises where the file is cut short: ITK takes what is missing for 0, or says so in many lines."""
    if name.endswith(".gz"):
        gzip.decompress(Path(path).read_bytes())
    if name.endswith(IMAGES):
        np.asanyarray(nibabel.load(path).dataobj)
    elif name.endswith(".h5"):
        h5py.File(path).close()
    elif name.endswith(".tfm"):
        content = Path(path).read_bytes()
        if b"\nFixedParameters:" not in content or not content.endswith(b"\n"):
            raise EOFError("cut short")


def _unreadable(path: StrPath, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[-200:] or type(error).__name__
    return UserError(f"{path}: no readable displacement ({reason}); write it again.")
