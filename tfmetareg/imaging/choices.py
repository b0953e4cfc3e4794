"""The words that image options take; importing them loads no library."""

from __future__ import annotations

FORMATS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".nii", ".nii.gz", ".npy")
COLOURS = ("green", "luminance")
FITS = ("resize", "pad", "crop")
INTENSITIES = ("equalize", "clahe", "percentile", "none")
PERCENTILES = (0.1, 99.9)
