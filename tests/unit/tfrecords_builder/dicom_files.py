"""DICOM files as scanners write them, small, for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

HEIGHT, WIDTH = 20, 24
STEP = 2.5


def stored(index: int) -> np.ndarray:
    """uint16 (20, 24): what the file of slice `index` holds, 0 outside a body that changes slowly."""
    rng = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.normal(size=(40, HEIGHT, WIDTH)), 2)[index]
    rows, columns = np.indices(smooth.shape)
    body = (rows - 10) ** 2 / 64 + (columns - 12) ** 2 / 100 < 1
    return np.where(body, 1000 + 2000 * smooth, 0).astype(np.uint16)


def dataset(index: int = 0, **changes: object) -> Dataset:
    """Slice `index` of an axial CT, 2.5 mm above the one below; an element that is None is left out."""
    image = changes.pop("image", stored(index))
    content = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "SeriesDescription": "Abdomen 2.5",
        "Modality": "CT",
        "PatientID": "P1",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [-10, -20, 100 + STEP * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.8, 0.7],
        "RescaleSlope": 1,
        "RescaleIntercept": -1000,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": image.shape[0],
        "Columns": image.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": image.tobytes(),
        **changes,
    }
    made = Dataset()
    for name, value in content.items():
        if value is not None:
            setattr(made, name, value)
    return made


def write(path: Path, index: int = 0, **changes: object) -> Path:
    """Writes `dataset` as a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = dataset(index, **changes)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if int(pydicom.__version__.split(".")[0]) > 2:
        made.save_as(path, enforce_file_format=True)
    else:
        made.is_little_endian, made.is_implicit_VR = True, False
        made.save_as(str(path), write_like_original=False)
    return path


def write_series(folder: Path, count: int = 5, **changes: object) -> Path:
    """Files 000.dcm, 001.dcm... from the head down, so that names and places run against each other."""
    for number in range(count):
        write(folder / f"{number:03d}.dcm", count - 1 - number, **changes)
    return folder
