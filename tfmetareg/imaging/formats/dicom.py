"""Reads DICOM images: one slice or frame, in physical units, where it lies in the patient."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Optional

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats.dicom_header import ENDING, PREAMBLE, Header, read_header
from tfmetareg.imaging.formats.dicom_pixels import frame_pixels, value_notes
from tfmetareg.imaging.formats.nifti import slice_grid
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Ultrasound regions: of a 2D image, in cm.
_TWO_DIMENSIONS, _CENTIMETRES = 1, 3
# Elements from which ITK takes the place of the pixels.
_GEOMETRY = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "NumberOfFrames", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor", "PixelAspectRatio",
    "ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices", "SliceThickness",
    "GridFrameOffsetVector", "FrameIncrementPointer",
)  # fmt: skip
# Sizes that differ by a smaller share are the same.
_ALIKE = 1e-3


def read(path: Path, frame: Optional[int] = None) -> Image:
    """Reads one frame of a DICOM file.

    Args:
        path: of the file.
        frame: which frame, from 0; without it, the file must have only one.

    Returns:
        (height, width) in physical units, or RGB. The grid is that of the slice in space, where the header
        tells it, else what ITK makes of the file.

    Raises:
        UserError: the file cannot be read, or has several frames and `frame` is None, or no such frame.
    """
    header = read_header(path)
    count = header.frames
    if frame is None and count > 1:
        raise UserError(
            f"{path}: must be one 2D image, holds {count} frames; name one, as in `{path.name}#0`."
        )
    if (frame or 0) >= count:
        raise UserError(f"{path}: has no frame {frame}; frames are 0 to {count - 1}.")
    pixels = frame_pixels(path, frame or 0)
    grid, of_grid = _grid(path, header, frame or 0, (pixels.shape[0], pixels.shape[1]))
    size, of_size = pixel_size(header, frame or 0)
    if size and not np.allclose(size, grid.pixel_size, rtol=_ALIKE):
        of_size = (*of_size, "ITK reads other pixels, of {1:.4g} x {0:.4g} mm".format(*grid.pixel_size))
    return Image(pixels, grid, str(path), size, (*value_notes(header, frame or 0), *of_grid, *of_size))


def pixel_size(header: Header, frame: int = 0) -> tuple[Optional[tuple[float, float]], tuple[str, ...]]:
    """Pixel size (row, column) in mm, None if the file does not tell it, and notes on where it comes from."""
    size = _size(header, "PixelSpacing", frame)
    if size:
        return size, ()
    sizes = _of_ultrasound(header)
    if len(sizes) > 1:
        return None, ("its ultrasound regions differ in pixel size; none is taken",)
    if sizes:
        return sizes[0], ("its pixel size is that of its ultrasound region",)
    for keyword in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        size = _size(header, keyword, frame)
        if size:
            return size, (f"its pixel size is that at the detector ({keyword}), not that in the body",)
    return None, ()


def _size(header: Header, keyword: str, frame: int) -> Optional[tuple[float, float]]:
    values = header.numbers(keyword, 2, frame)
    return (values[0], values[1]) if values and min(values) > 0 else None


def _of_ultrasound(header: Header) -> list[tuple[float, float]]:
    """Different pixel sizes (row, column), mm, of the 2D regions of an ultrasound image."""
    sizes: list[tuple[float, float]] = []
    for region in header.items("SequenceOfUltrasoundRegions"):
        units = [region.integer(f"PhysicalUnits{axis}Direction") for axis in "YX"]
        deltas = [abs(10 * region.number(f"PhysicalDelta{axis}", 0)) for axis in "YX"]
        if region.integer("RegionSpatialFormat") != _TWO_DIMENSIONS or units != [_CENTIMETRES] * 2:
            continue
        if min(deltas) > 0 and not any(np.allclose(deltas, size, rtol=_ALIKE) for size in sizes):
            sizes.append((deltas[0], deltas[1]))
    return sizes


def _grid(path: Path, header: Header, frame: int, shape: tuple[int, int]) -> tuple[Grid, tuple[str, ...]]:
    """The grid of a slice in space where the header tells it; else what ITK makes of the file."""
    position, orientation = (
        header.numbers(f"Image{name}Patient", count, frame)
        for name, count in (("Position", 3), ("Orientation", 6))
    )
    size = _size(header, "PixelSpacing", frame)
    is_of_frame = header.frames == 1 or "ImagePositionPatient" not in header
    if position and orientation and size and is_of_frame:
        return slice_grid(_affine(header, frame, position, orientation, size), shape, str(path))
    try:
        reader = _read_by_itk(header)
    except RuntimeError:
        return Grid(shape), ()
    is_known = bool(position and orientation and size)
    spacing, direction = reader.GetSpacing(), reader.GetDirection()
    step = np.reshape(direction, (3, 3))[:, 2] * spacing[2] * frame
    return Grid(shape, spacing, tuple((reader.GetOrigin() + step).tolist()), direction, is_known), ()


def _read_by_itk(header: Header) -> sitk.ImageFileReader:
    """What ITK makes of the header. It gets a copy: for a damaged file it may take any memory.

    Raises:
        RuntimeError: ITK cannot read it.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    copy = FileDataset(
        "", {}, preamble=bytes(PREAMBLE), file_meta=meta, is_implicit_VR=False, is_little_endian=True
    )
    for keyword in _GEOMETRY:
        if keyword in header:
            copy[keyword] = header.dataset[keyword]
    copy.Rows, copy.Columns, copy.SamplesPerPixel, copy.PhotometricInterpretation = 1, 1, 1, "MONOCHROME2"
    copy.BitsAllocated, copy.BitsStored, copy.HighBit, copy.PixelRepresentation = 16, 16, 15, 0
    copy.PixelData = bytes(2 * header.frames)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"copy{ENDING}")
        copy.save_as(str(file))
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
    return reader


def _affine(
    header: Header,
    frame: int,
    position: tuple[float, ...],
    orientation: tuple[float, ...],
    size: tuple[float, float],
) -> np.ndarray:
    """(4, 4), from (column, row, slice) to RAS, mm."""
    along, down = np.reshape(orientation, (2, 3))
    thicknesses = (header.number(name, 0, frame) for name in ("SpacingBetweenSlices", "SliceThickness"))
    thickness = next((value for value in thicknesses if value > 0), 1.0)
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        [along * size[1], down * size[0], np.cross(along, down) * thickness, position]
    )
    affine[:3] *= _LPS_TO_RAS[:, None]
    return affine
