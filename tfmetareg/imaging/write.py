"""Writes an image in the format that its name tells, with its own intensities and bit depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.imaging.choices import NIFTI
from tfmetareg.imaging.field_files import write_whole
from tfmetareg.imaging.grid import Grid

_JPEG_QUALITY = 95


def write_image(path: Path, pixels: np.ndarray, grid: Grid) -> None:
    """Writes a PNG, TIFF, JPEG, NumPy or NIfTI file, by the ending of the name.

    >>> import numpy as np
    >>> import tempfile
    >>> from tfmetareg.imaging.read import read_pixels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(Path(folder, "a.png"), np.eye(8, dtype=np.uint16), Grid((8, 8)))
    ...     int(read_pixels(Path(folder, "a.png")).sum())
    8

    Args:
        path: of the file.
        pixels: (height, width) or (height, width, channels), of a dtype that the format can hold.
        grid: where the pixels lie; stored in NIfTI files only.

    Raises:
        OSError: the file could not be written completely.
    """
    name = path.name.lower()
    if name.endswith(NIFTI):
        _write_nifti(path, pixels, grid)
    elif name.endswith(".npy"):
        np.save(path, pixels)
    elif name.endswith((".tif", ".tiff")):
        _write_tiff(path, pixels)
    elif name.endswith(".png"):
        _write_png(path, pixels)
    else:
        _write_jpeg(path, pixels)


def _write_nifti(path: Path, pixels: np.ndarray, grid: Grid) -> None:
    # ITK has no half floats, no long doubles and no foreign byte order; many NIfTI readers have no 64-bit
    # integers.
    known = {"bool": "uint8", "float16": "float32", "float128": "float64"}
    known.update(int64="float32", uint64="float32")
    as_type = known.get(pixels.dtype.name, pixels.dtype.name)
    write_whole(sitk.WriteImage, grid.image(pixels.astype(as_type)), path)


def _write_tiff(path: Path, pixels: np.ndarray) -> None:
    import tifffile

    if pixels.ndim == 3 and pixels.shape[-1] > 2:
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        alpha = ["unassalpha"] if pixels.ndim == 3 else None
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", extrasamples=alpha)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes 8 or 16 bits and up to four channels; Pillow cannot write several channels of 16 bits."""
    import tensorflow as tf

    depth = np.uint8 if pixels.dtype.itemsize == 1 else np.uint16
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    path.write_bytes(tf.io.encode_png(channels.astype(depth)).numpy())


def _write_jpeg(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, quality=_JPEG_QUALITY, subsampling=0)
