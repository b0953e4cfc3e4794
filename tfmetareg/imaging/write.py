"""Writes an image as another file holds its own: of the same format, intensities and bit depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name

from tfmetareg.imaging.field_files import write_whole
from tfmetareg.imaging.grid import Grid

_NIFTI = (".nii", ".nii.gz")
_JPEG_QUALITY = 95


def write_image(path: Path, pixels: np.ndarray, grid: Grid) -> None:
    """Writes PNG, TIFF, JPEG, NumPy or NIfTI, whichever the name ends in.

    Args:
        path: where to.
        pixels: (height, width) or (height, width, channels), of a dtype that the format holds.
        grid: where the pixels lie, which a NIfTI file tells.

    Raises:
        OSError: the file cannot be written, or not the whole of it.
    """
    name = path.name.lower()
    if name.endswith(_NIFTI):
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
    # ITK has no half floats, no long doubles and no foreign byte order; NIfTI readers know few integers of
    # 64 bits.
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
    """8 or 16 bits and up to four channels; Pillow would not write the latter with the former."""
    import tensorflow as tf

    depth = np.uint8 if pixels.dtype.itemsize == 1 else np.uint16
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    path.write_bytes(tf.io.encode_png(channels.astype(depth)).numpy())


def _write_jpeg(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, quality=_JPEG_QUALITY, subsampling=0)
