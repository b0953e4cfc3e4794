"""A bound on the memory that a file's header may claim, and headers of the pictures inside files."""

from __future__ import annotations

import os
from typing import Optional

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath

# Bytes that any file may claim: too few to do harm.
_SMALL = 2**28
# Bytes of pixels in a byte of the file, at most: deflate and LZW reach 1032 and 1365 on constant images.
_DENSEST = 1400
# What JPEG 2000 and PNG begin with, and JPEG's and JPEG-LS's markers that the picture's size follows.
_JPEG_2000 = b"\xff\x4f\xff\x51"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)


def check_size(path: StrPath, claimed: int, densest: float = _DENSEST) -> None:
    """Refuses a file whose header claims more pixels than its length can hold, before memory is taken.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".tif") as file:
    ...     check_size(file.name, 20_000_000)
    ...     try:
    ...         check_size(file.name, 2**40)
    ...     except UserError as error:
    ...         print(str(error).split(": ")[1])
    claims 1,099,511,627,776 bytes of pixels, but the file has only 0; it is damaged, replace it.

    Args:
        path: of the file.
        claimed: bytes of the decoded pixels by the header.
        densest: bytes of pixels in a byte of the file, at most; 1 where nothing is compressed.

    Raises:
        UserError: the claim cannot be true.
    """
    length = os.path.getsize(path)
    if claimed > max(_SMALL, densest * length):
        raise UserError(
            f"{path}: claims {claimed:,} bytes of pixels, but the file has only {length:,}; it is damaged, "
            "replace it."
        )


def size_inside(data: bytes) -> Optional[tuple[int, int]]:
    """(height, width) by the header of a JPEG, JPEG-LS, JPEG 2000 or PNG picture; None if there is none.

    Decoders take memory for it, whatever the file around it says.

    >>> import imagecodecs, numpy as np
    >>> size_inside(imagecodecs.jpeg8_encode(np.zeros((20, 30), np.uint8)))
    (20, 30)
    """
    if data.startswith(_PNG):
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(_JPEG_2000):
        right, bottom, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left
    at = 2
    while data[at : at + 1] == b"\xff" and at + 9 <= len(data):
        if data[at + 1] in _JPEG_FRAMES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
