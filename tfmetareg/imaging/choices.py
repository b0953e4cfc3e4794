"""Values of the image options, and file endings. Importing this module loads no library."""

from __future__ import annotations

NIFTI = (".nii", ".nii.gz")
FORMATS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", *NIFTI, ".npy", ".dcm")
COLOURS = ("green", "luminance")
FITS = ("resize", "pad", "crop")
INTENSITIES = ("equalize", "clahe", "percentile", "none")
PERCENTILES = (0.1, 99.9)
