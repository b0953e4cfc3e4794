"""Files of displacements in physical space, which ITK, SimpleITK and ANTs read.

Physical values are in mm, in ITK's order (x, y) and orientation (LPS), whereas all other modules use (row,
column) in pixels. A displacement u in pixels on the fixed grid is stored as a field of vectors in mm: from
the physical place of a pixel p of the fixed image to the physical place of p + u(p) in the moving image.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional, TypeVar

import h5py
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from scipy import ndimage

from tfmetareg.errors import UserError, one_line
from tfmetareg.files import StrPath, published
from tfmetareg.geometry.frame import pixel_points
from tfmetareg.imaging.choices import NIFTI
from tfmetareg.imaging.grid import Grid, in_one_space, itk_grid

TRANSFORMS = (".h5", ".tfm")
FORMATS = (*NIFTI, *TRANSFORMS, ".npz")

_CONVENTION = (
    "The point p of the fixed image lies at p + displacement[p] in the moving one: pixels, (row, column), "
    "pixel centres at integers. Spacing, origin and direction are ITK's: (x, y) or (x, y, z), mm, LPS."
)
_IMAGES = ("fixed", "moving")
# Bytes of a NIfTI file ahead of its numbers, at least.
_NIFTI_HEADER = 352
Written = TypeVar("Written")


class DisplacementField(NamedTuple):
    """A displacement, float32 (height, width, 2), pixels, (row, column), and the grids of the two images."""

    displacement: np.ndarray
    fixed: Grid
    moving: Grid


def write_field(path: StrPath, displacement: np.ndarray, fixed: Grid, moving: Grid) -> None:
    """Publishes a displacement as a file; the ending of the path chooses the format.

    * `.nii.gz`, `.nii`: vectors in mm on the fixed grid, float32, for `sitk.ReadImage`; ANTs'
    `...Warp.nii.gz`
      files have this format.
    * `.h5`, `.tfm`: the same vectors as a DisplacementFieldTransform, for `sitk.ReadTransform` and ANTs.
    * `.npz`: the displacement in pixels, the grids as `fixed_spacing`, `fixed_origin`, `fixed_direction`,
      `moving_shape` and so on, and the convention in words.

    All formats resample the moving image to the fixed grid and carry points from the fixed image to the
    moving image. Outside the fixed image ITK displaces nothing. Where an image is a slice in space, ITK's
    formats are 3D: vectors lead from the fixed image's plane into the moving one's; a 2D image lies in the
    plane z = 0. A NIfTI file then holds the field twice, since ITK reads one of a single slice as 2D.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_field(f"{folder}/field.npz", np.ones((8, 9, 2), np.float32), Grid((8, 9)), Grid((8, 9)))
    ...     read_field(f"{folder}/field.npz").displacement.shape
    (8, 9, 2)

    Args:
        path: of the file.
        displacement: (height, width, 2) float32, pixels, (row, column), of the shape of `fixed`. Where it is
            NaN, as an inverse may be, ITK's formats store the value of the nearest other pixel, since NIfTI
            files and text have no NaN; `.npz` keeps NaN.
        fixed, moving: the grids of the two images; for an inverse displacement, swap them.

    Raises:
        ValueError: the path has another ending.
        OSError: the file could not be written completely.
    """
    name = Path(path).name.lower()
    if name.endswith(".npz"):
        content = io.BytesIO()  # An unwritable zip file would raise again when it is garbage-collected.
        np.savez(content, **_arrays(displacement, fixed, moving))
        with published(path) as temporary:
            temporary.write_bytes(content.getbuffer())
    elif name.endswith(FORMATS):
        fixed, moving = in_one_space(fixed, moving)
        vectors = _vectors(displacement, fixed, moving)
        # ITK chooses the format by the whole ending; a temporary name keeps only its last part.
        with (
            published(path) as temporary,
            tempfile.TemporaryDirectory(prefix=".", dir=temporary.parent) as folder,
        ):
            written = Path(folder, name)
            if name.endswith(NIFTI):
                write_whole(sitk.WriteImage, fixed.image(vectors.astype(np.float32), slices=2), written)
            else:
                transform = sitk.DisplacementFieldTransform(fixed.image(vectors))
                write_whole(sitk.WriteTransform, transform, written)
            os.replace(written, temporary)
    else:
        raise ValueError(f"{path}: the name must end in one of {', '.join(FORMATS)}")


def write_whole(write: Callable[[Written, str], None], value: Written, path: Path) -> None:
    """Writes a file with SimpleITK or nibabel and checks it: on a full disk SimpleITK truncates it silently.

    Args:
        write: SimpleITK's or nibabel's function.
        value: its first argument, an image or a transform.
        path: of the file.

    Raises:
        OSError: the file was not written completely.
    """
    try:
        write(value, str(path))
        if path.name.lower().endswith(NIFTI):
            _check_size(path, _data_bytes(value))
        else:
            _check_whole(path, path.name.lower())
    except Exception as error:  # noqa: BLE001 - from EOFError to RuntimeError
        raise OSError(f"{path.name}: not written whole; is the disk full?") from error


def _data_bytes(image: Any) -> int:
    """What the pixels of a SimpleITK or nibabel image take."""
    if isinstance(image, sitk.Image):
        return (
            image.GetNumberOfPixels()
            * image.GetNumberOfComponentsPerPixel()
            * image.GetSizeOfPixelComponent()
        )
    return int(np.prod(image.shape)) * image.get_data_dtype().itemsize


def _check_size(path: Path, data_bytes: int) -> None:
    """Raises if a NIfTI file lacks a part of its data; quicker than to read it."""
    content = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
    if len(content) < _NIFTI_HEADER + data_bytes:
        raise EOFError("cut short")


def _vectors(displacement: np.ndarray, fixed: Grid, moving: Grid) -> np.ndarray:
    """float64 (height, width, 2 or 3), (x, y) or (x, y, z) in mm, of two grids in one space."""
    pixels = pixel_points(fixed.shape)
    return moving.places(pixels + fill_gaps(displacement)) - fixed.places(pixels)


def fill_gaps(displacement: np.ndarray) -> np.ndarray:
    """Replaces NaN by the displacement of the nearest other pixel.

    Args:
        displacement: (height, width, 2).

    Returns:
        (height, width, 2) without NaN.

    Raises:
        ValueError: every pixel is NaN.
    """
    holes = np.isnan(displacement).any(axis=-1)
    if not holes.any():
        return displacement
    if holes.all():
        raise ValueError("displacement must have a pixel that is not NaN, got none")
    rows, columns = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    return displacement[rows, columns]


def _arrays(displacement: np.ndarray, fixed: Grid, moving: Grid) -> dict[str, np.ndarray]:
    arrays = {"displacement": displacement.astype(np.float32), "convention": np.array(_CONVENTION)}
    for name, grid in zip(_IMAGES, (fixed, moving)):
        for key, value in dataclasses.asdict(grid).items():
            arrays[f"{name}_{key}"] = np.array(value)
    return arrays


def read_field(path: StrPath, moving: Optional[Grid] = None) -> DisplacementField:
    """Reads a file of `write_field`, or a displacement field of ITK or ANTs.

    >>> import tempfile, numpy as np
    >>> grid = Grid((20, 30), spacing=(0.5, 0.5))
    >>> path = Path(tempfile.mkdtemp(), "displacement.npz")
    >>> write_field(path, np.full((20, 30, 2), 1.5, np.float32), grid, grid)
    >>> field = read_field(path)
    >>> field.displacement[0, 0], field.fixed.spacing
    (array([1.5, 1.5], dtype=float32), (0.5, 0.5))

    Args:
        path: of the file.
        moving: grid of the moving image. Required for ITK's formats, which do not store it; ignored for
            `.npz`, which does.

    Raises:
        UserError: the file is missing, unreadable, of another ending, or holds no displacement field of one
            image; or `moving` is missing.
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
    if moving.dimension > fixed.dimension:
        raise UserError(f"{path}: a 2D field does not lead into a moving image in space; give its 2D grid.")
    pixels = pixel_points(fixed.shape)
    vectors = sitk.GetArrayViewFromImage(field).reshape(*fixed.shape, fixed.dimension)
    carried = in_one_space(moving, fixed)[0].points(fixed.places(pixels) + vectors)
    return DisplacementField((carried - pixels).astype(np.float32), fixed, moving)


def _read_arrays(path: StrPath) -> DisplacementField:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return DisplacementField(arrays["displacement"], *(_grid(arrays, name) for name in _IMAGES))
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from KeyError to zlib.error
        raise _unreadable(path, error) from None


def _grid(arrays: Mapping[str, np.ndarray], name: str) -> Grid:
    shape, spacing, origin, direction = (
        tuple(arrays[f"{name}_{field}"].tolist()) for field in ("shape", "spacing", "origin", "direction")
    )
    is_known = f"{name}_is_known" in arrays and bool(arrays[f"{name}_is_known"])
    return Grid(shape, spacing, origin, direction, is_known)


def _read_vectors(path: StrPath, name: str) -> sitk.Image:
    try:
        _check_whole(path, name)
        if name.endswith(NIFTI):
            field = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
        else:
            field = sitk.DisplacementFieldTransform(sitk.ReadTransform(str(path))).GetDisplacementField()
    except Exception as error:  # noqa: BLE001 - a broken file raises anything, from EOFError to RuntimeError
        raise _unreadable(path, error) from None
    if field.GetDimension() == 3 and field.GetSize()[2] == 2:
        one, other = sitk.GetArrayViewFromImage(field)
        field = field[:, :, :1] if np.array_equal(one, other) else field
    dimension, size = field.GetDimension(), field.GetSize()
    if (
        field.GetNumberOfComponentsPerPixel() != dimension
        or min(size[:2]) < 2
        or max(size[2:], default=1) > 1
    ):
        raise UserError(
            f"{path}: must be a field of 2D vectors, or of 3D vectors on one slice, got "
            f"{field.GetNumberOfComponentsPerPixel()} numbers per pixel at size {size}; name another file."
        )
    return field


def _check_whole(path: StrPath, name: str) -> None:
    """Raises if the file is truncated, for which ITK reads zeros or prints many lines."""
    if name.endswith(".gz"):
        gzip.decompress(Path(path).read_bytes())
    if name.endswith(NIFTI):
        import nibabel

        image: Any = nibabel.load(path)  # Its type is that of any image, which has no data.
        np.asanyarray(image.dataobj)
    elif name.endswith(".h5"):
        h5py.File(path, "r", locking=False).close()
    elif name.endswith(".tfm"):
        content = Path(path).read_bytes()
        if b"\nFixedParameters:" not in content or not content.endswith(b"\n"):
            raise EOFError("cut short")


def _unreadable(path: StrPath, error: Exception) -> UserError:
    return UserError(f"{path}: no readable displacement ({one_line(error)[-200:]}); write it again.")
