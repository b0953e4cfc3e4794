"""Reads NIfTI files of one 2D image, and slices of NIfTI volumes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid, affine_grid, in_plane_axes, in_plane_grid
from tfmetareg.imaging.image import Image, height_width
from tfmetareg.imaging.volumes import SliceReference, affine_in_mm, millimetres, read_slice

# Axes that are so many degrees off perpendicular are read as perpendicular ones; beyond, they are refused.
_MOST_SHEAR = 3.0
# What differs by less than this, in pixels, is not worth a word.
_TOLERANCE = 0.02
# A plane is axial if its axes climb by less than this per mm.
_LEVEL = 1e-4
_OBLIQUE = "a 2D file whose plane is not axial, which ITK does not read so; what is written lies in space"


def read(path: Path) -> Image:
    """Reads a NIfTI-1 or NIfTI-2 file of one image, see `from_nibabel`.

    Raises:
        UserError: the file holds more than one 2D image, or its geometry is impossible.
        Exception: the file is no whole NIfTI file.
    """
    import nibabel  # Slow to import, and needed for these files alone.

    with nibabel.imageglobals.LoggingOutputSuppressor():  # Its lines on stderr name no file.
        image = nibabel.load(path)
    return from_nibabel(image, str(path))


def from_nibabel(image: Any, name: str) -> Image:
    """An image that nibabel has opened: 2D, or a volume of one slice along any axis.

    The first axis longer than 1 runs along the pixels' rows, the second one down their columns. A volume of
    one slice, and a 2D image whose plane is not axial, lie in space; the other 2D images in their plane.

    Args:
        image: of any of nibabel's classes.
        name: of the image, for error messages.

    Raises:
        UserError: it is not one 2D image, or its geometry is impossible.
    """
    import nibabel

    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        kind = type(image).__name__
        raise UserError(f"{name}: must be an image of pixels, got {kind}; convert it to NIfTI.")
    shape = image.shape
    try:
        if max(shape[3:], default=1) > 1:
            raise ValueError(f"must be one 2D image, got an array of shape {shape}")
        axes = in_plane_axes(shape[:3])
    except ValueError as error:
        raise UserError(f"{name}: {error}; take a slice, of a file as in `volume.nii.gz#12`.") from None
    voxels = np.asarray(image.dataobj).reshape([shape[axis] for axis in axes])
    pixels = _channels(voxels).swapaxes(0, 1)
    columns = [*axes, *({0, 1, 2} - {*axes}), 3]
    if isinstance(image, nibabel.Nifti1Pair) and not _is_placed(image):
        return _without_place(image, pixels, columns, name)
    affine = affine_in_mm(image)[:, columns]
    grid, notes = slice_grid(affine, pixels.shape[:2], name)
    if len(shape) == 2 and np.abs(np.reshape(grid.direction, (3, 3))[2, :2]).max() < _LEVEL:
        notes = (*notes, *_height_note(grid))
        grid = in_plane_grid(grid)
    elif len(shape) == 2:
        notes = (*notes, _OBLIQUE)
    return Image(pixels, grid, name, grid.pixel_size, (*notes, *_difference_note(image)))


def read_volume_slice(reference: SliceReference, name: str, *, as_stored: bool = False) -> Image:
    """Reads a slice of a volume.

    Args:
        reference: the slice.
        name: as the caller named it, for error messages.
        as_stored: keeps the numbers' own dtype, see `volumes.canonical`.

    Raises:
        UserError: the volume cannot be read, or has no such slice or channel, or its axes are far from
            perpendicular.
    """
    pixels, affine = read_slice(reference, as_stored=as_stored)
    grid, notes = slice_grid(affine, pixels.shape, name)
    return Image(pixels, grid, name, grid.pixel_size, notes)


def slice_grid(affine: np.ndarray, shape: tuple[int, ...], name: str) -> tuple[Grid, tuple[str, ...]]:
    """The grid of a slice in space, and what there is to say about it.

    Args:
        affine: (4, 4), from (column, row, slice) to RAS, mm.
        shape: (height, width).
        name: of the image, for error messages.

    Raises:
        UserError: the affine does not tell where the pixels lie, or its axes are far from perpendicular.
    """
    steps = affine[:3, :2]
    lengths = np.linalg.norm(steps, axis=0)
    if not np.isfinite(affine).all() or not lengths.all():
        raise UserError(
            f"{name}: its affine is singular, an axis has no length or no number; convert it again from its "
            "source."
        )
    sine = abs(steps[:, 0] @ steps[:, 1] / lengths.prod())
    shear = float(np.degrees(np.arcsin(min(1.0, sine))))
    if shear > _MOST_SHEAR:
        raise UserError(
            f"{name}: its axes are {shear:.1f} degrees off perpendicular, up to {_MOST_SHEAR:g} can be read; "
            "resample it first, for instance with nibabel.processing.resample_to_output."
        )
    grid = affine_grid(affine, shape)
    misplaced = _farthest(affine, grid)
    if misplaced < _TOLERANCE * lengths.min():
        return grid, ()
    return grid, (
        f"its axes are {shear:.2g} degrees off perpendicular; read as perpendicular ones, which moves pixels "
        f"by up to {misplaced:.2g} mm",
    )


def _farthest(affine: np.ndarray, grid: Grid) -> float:
    """How far a corner of the grid lies from where the affine has it, at most, in mm."""
    from nibabel.affines import apply_affine

    height, width = grid.shape
    corners = np.array([*itertools.product((0, height - 1), (0, width - 1))])
    there = apply_affine(affine, np.pad(corners[:, ::-1], ((0, 0), (0, 1)))) * [-1, -1, 1]
    return float(np.linalg.norm(grid.places(corners) - there, axis=1).max())


def _channels(voxels: np.ndarray) -> np.ndarray:
    """RGB and RGBA voxels, which nibabel gives as records of numbers, with an axis of channels."""
    names = voxels.dtype.names
    return voxels if names is None else np.stack([voxels[name] for name in names], axis=-1)


def _is_placed(image: Any) -> bool:
    return bool(image.header["sform_code"] or image.header["qform_code"])


def _without_place(image: Any, pixels: np.ndarray, columns: list[int], name: str) -> Image:
    """An image with a pixel size alone; ITK puts its first pixel to the origin, its axes to x, y and z."""
    zooms = np.array([*image.header.get_zooms()[:3], 1.0][:3], np.float64)[columns[:3]] * millimetres(image)
    width, height, depth = zooms.tolist()
    if not (np.isfinite(zooms).all() and min(width, height) > 0):
        raise UserError(f"{name}: its header tells pixels of {width:g} x {height:g} mm; correct it.")
    axes, sizes = np.eye(3)[:, columns[:3]].ravel(), (width, height, depth or 1.0)
    grid = Grid(height_width(pixels, name), sizes, (0.0, 0.0, 0.0), tuple(axes.tolist()))
    if len(image.shape) == 2:
        grid = in_plane_grid(grid)
    note = f"tells no place (sform and qform codes are 0), only pixels of {width:.4g} x {height:.4g} mm"
    return Image(pixels, grid, name, grid.pixel_size, (note,))


def _height_note(grid: Grid) -> Iterator[str]:
    if abs(grid.origin[2]) > _TOLERANCE:
        yield (
            f"a 2D file at the height z = {grid.origin[2]:.4g} mm, which is not kept: ITK's 2D images have "
            "none"
        )


def _difference_note(image: Any) -> Iterator[str]:
    """A sentence if sform and qform have pixels at different places."""
    apart = _forms_apart(image)
    if apart is not None and apart > _TOLERANCE * min(image.header.get_zooms()[:2]):
        yield (
            f"its sform and qform lie up to {apart:.3g} of its units apart; the sform holds, other programs "
            "may take the qform"
        )


def _forms_apart(image: Any) -> Optional[float]:
    import nibabel

    if not isinstance(image, nibabel.Nifti1Pair):
        return None
    try:
        forms = [form for form, code in (image.get_sform(coded=True), image.get_qform(coded=True)) if code]
    except (nibabel.spatialimages.HeaderDataError, ValueError):  # An impossible quaternion: the sform it is.
        return None
    if len(forms) < 2:
        return None
    shape = np.array([*image.shape, 1, 1][:3])
    corners = np.array([*itertools.product((0, 1), repeat=3)]) * (shape - 1)
    places = [nibabel.affines.apply_affine(form, corners) for form in forms]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())
