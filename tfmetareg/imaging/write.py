"""Writes an image in the format that its name tells, with its own intensities and bit depth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.imaging.choices import NIFTI
from tfmetareg.imaging.field_files import write_whole
from tfmetareg.imaging.grid import Grid

_TIFF, _JPEG = (".tif", ".tiff"), (".jpg", ".jpeg")
# Endings of the files that `write_image` writes.
WRITTEN = (".png", *_TIFF, *_JPEG, *NIFTI, ".npy")

if TYPE_CHECKING:
    import nibabel

_JPEG_QUALITY = 95
# Half the time of zlib's own choice, and no larger files.
_PNG_COMPRESSION = 3
# Millimetres; the largest resolution that a JPEG file holds.
_INCH, _MOST_DOTS = 25.4, 65535
# Pixels that the far end of an image may be off in a file.
_TOLERANCE = 0.02


def write_image(
    path: Path, pixels: np.ndarray, grid: Grid, pixel_size: Optional[tuple[float, float]] = None
) -> None:
    """Writes a PNG, TIFF, JPEG, NumPy or NIfTI file, by the ending of the name.

    >>> import numpy as np
    >>> import tempfile
    >>> from tfmetareg.imaging.read import open_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(Path(folder, "a.png"), np.eye(8, dtype=np.uint16), Grid((8, 8)))
    ...     int(open_image(Path(folder, "a.png")).pixels.sum())
    8

    Args:
        path: of the file.
        pixels: (height, width) or (height, width, channels), of a dtype that the format can hold.
        grid: where the pixels lie; `holds_grid` tells whether the file tells it.
        pixel_size: (row, column), mm, if known; TIFF files tell it as ImageJ does.

    Raises:
        OSError: the file could not be written completely.
    """
    name = path.name.lower()
    if name.endswith(NIFTI):
        _write_nifti(path, pixels, grid)
    elif name.endswith(".npy"):
        np.save(path, pixels)
    elif name.endswith(_TIFF):
        _write_tiff(path, pixels, _resolution(grid, pixel_size))
    elif name.endswith(".png"):
        _write_png(path, pixels)
    else:
        _write_jpeg(path, pixels, grid)


def holds_grid(path: Path, grid: Grid) -> bool:
    """Whether ITK reads a file of `write_image` with its pixels where they lie on the grid.

    NIfTI files hold every grid, TIFF files a pixel size, JPEG files one of whole dots per inch, PNG and NumPy
    files none.

    >>> grid = Grid((8, 9), (25.4 / 300, 25.4 / 300))
    >>> [holds_grid(Path(f"a{ending}"), grid) for ending in (".nii", ".tif", ".jpg", ".png")]
    [True, True, True, False]
    """
    name, dpi = path.name.lower(), _dots_per_inch(grid)
    if name.endswith(NIFTI):
        return True
    if grid != Grid(grid.shape, grid.spacing):
        return False
    if dpi is None or name.endswith(_TIFF):
        return True
    is_whole = np.allclose(dpi, np.round(dpi), rtol=_TOLERANCE / max(grid.shape), atol=0)
    return name.endswith(_JPEG) and is_whole and max(dpi) < _MOST_DOTS


def write_labels(path: Path, labels: np.ndarray, grid: Grid) -> None:
    """Writes a label map like `write_image`, as integers in every format.

    Args:
        path: of a PNG, TIFF, NumPy or NIfTI file.
        labels: (height, width) integers that the format can hold. 64 bits become 32 where that loses nothing,
            since many readers have no 64-bit integers.
        grid: as for `write_image`.

    Raises:
        OSError: as `write_image`.
    """
    bounds = np.iinfo(np.int32)
    if labels.dtype.itemsize == 8 and bounds.min <= labels.min() and labels.max() <= bounds.max:
        labels = labels.astype(np.int32)
    if path.name.lower().endswith(NIFTI):
        write_whole(sitk.WriteImage, grid.image(labels), path)
    else:
        write_image(path, labels, grid)


def _write_nifti(path: Path, pixels: np.ndarray, grid: Grid) -> None:
    # ITK has no half floats, no long doubles and no foreign byte order; many NIfTI readers have no 64-bit
    # integers.
    known = {"bool": "uint8", "float16": "float32", "float128": "float64"}
    known.update(int64="float32", uint64="float32")
    as_type = known.get(pixels.dtype.name, pixels.dtype.name)
    if pixels.ndim == 3 and as_type == "uint8":
        import nibabel

        write_whole(nibabel.save, _colour_nifti(pixels, grid), path)
    else:
        write_whole(sitk.WriteImage, grid.image(pixels.astype(as_type)), path)


def _colour_nifti(pixels: np.ndarray, grid: Grid) -> nibabel.Nifti1Image:
    """RGB or RGBA voxels, where SimpleITK would write vectors, and ITK read a slice of those as 2D."""
    import nibabel

    names = "RGBA"[: pixels.shape[-1]]
    voxels = np.ascontiguousarray(pixels.swapaxes(0, 1)).view([(name, np.uint8) for name in names])
    image = nibabel.Nifti1Image(voxels if grid.dimension == 3 else voxels[..., 0], grid.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    return image


def _write_tiff(path: Path, pixels: np.ndarray, resolution: dict[str, Any]) -> None:
    import tifffile

    if pixels.ndim == 3 and pixels.shape[-1] > 2:
        tifffile.imwrite(path, pixels, photometric="rgb", **resolution)
    else:
        alpha = ["unassalpha"] if pixels.ndim == 3 else None
        tifffile.imwrite(
            path,
            pixels,
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=alpha,
            **resolution,
        )


def _resolution(grid: Grid, pixel_size: Optional[tuple[float, float]]) -> dict[str, Any]:
    """Arguments of tifffile for a resolution that ITK reads, and ImageJ's words on a pixel size in mm."""
    dpi = _dots_per_inch(grid)
    resolution: dict[str, Any] = {"resolution": dpi, "resolutionunit": "inch"} if dpi else {}
    if pixel_size is None or not (dpi is None or np.allclose(pixel_size, grid.pixel_size, rtol=1e-3)):
        return resolution
    if dpi is None:
        resolution = {"resolution": (1 / pixel_size[1], 1 / pixel_size[0]), "resolutionunit": "none"}
    unit = "inch" if dpi else "mm"
    return {**resolution, "description": f"ImageJ=1.54f\nunit={unit}\n", "metadata": None}


def _dots_per_inch(grid: Grid) -> Optional[tuple[float, float]]:
    """The resolution (x, y) of a pixel size in mm; none for the unit that ITK takes where none is told."""
    x, y = grid.spacing[:2]
    return None if (x, y) == (1, 1) else (_INCH / x, _INCH / y)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes 8 or 16 bits and up to four channels; Pillow cannot write several channels of 16 bits."""
    import tensorflow as tf

    depth = np.uint8 if pixels.dtype.itemsize == 1 else np.uint16
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    path.write_bytes(tf.io.encode_png(channels.astype(depth), compression=_PNG_COMPRESSION).numpy())


def _write_jpeg(path: Path, pixels: np.ndarray, grid: Grid) -> None:
    from PIL import Image

    dpi = _dots_per_inch(grid)
    whole: dict[str, Any] = {"dpi": tuple(map(round, dpi))} if dpi and max(dpi) < _MOST_DOTS else {}
    Image.fromarray(pixels).save(path, quality=_JPEG_QUALITY, subsampling=0, **whole)
