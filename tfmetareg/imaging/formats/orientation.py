"""Orientation tags of EXIF and TIFF: turns pixels the way that viewers show them, and their grid with them.

The tag tells where the first row and the first column of the stored pixels lie in the picture as shown:
1 top and left, 2 top and right, 3 bottom and right, 4 bottom and left, 5 left and top, 6 right and top,
7 right and bottom, 8 left and bottom.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfmetareg.imaging.grid import Grid

UPRIGHT = 1
# Whether rows and columns are exchanged, and whether the rows and the columns run backwards after that.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def known(orientation: object) -> int:
    """The tag's value; 1 for a value without a meaning, which viewers ignore.

    >>> known(6), known(0), known(None)
    (6, 1, 1)
    """
    return orientation if isinstance(orientation, int) and orientation in _TURNS else UPRIGHT


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as shown.

    >>> import numpy as np
    >>> turned(np.array([[1, 2, 3], [4, 5, 6]]), 6).tolist()  # a quarter turn to the right
    [[4, 1], [5, 2], [6, 3]]

    Args:
        pixels: (height, width) or (height, width, channels), as stored.
        orientation: 1 to 8.
    """
    exchanged, rows_back, columns_back = _TURNS[orientation]
    if exchanged:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if rows_back else 1, :: -1 if columns_back else 1]


def turned_grid(grid: Grid, orientation: int) -> Grid:
    """The grid of the turned pixels: each keeps the place that it has as stored.

    >>> grid = turned_grid(Grid((2, 3), spacing=(0.5, 2.0)), 6)
    >>> grid.shape, grid.spacing, grid.places([0, 0]).tolist()  # stored in row 1, column 0
    ((3, 2), (2.0, 0.5), [0.0, 2.0])

    Args:
        grid: of the pixels as stored, 2D.
        orientation: 1 to 8.
    """
    exchanged, rows_back, columns_back = _TURNS[orientation]
    height, width = grid.shape
    (x_size, y_size), direction = grid.spacing, np.reshape(grid.direction, (2, 2))
    if exchanged:
        height, width, x_size, y_size, direction = width, height, y_size, x_size, direction[:, ::-1]
    along, down = direction[:, 0], direction[:, 1]
    origin = np.asarray(grid.origin)
    if columns_back:
        origin, along = origin + along * (x_size * (width - 1)), -along
    if rows_back:
        origin, down = origin + down * (y_size * (height - 1)), -down
    return dataclasses.replace(
        grid,
        shape=(height, width),
        spacing=(x_size, y_size),
        origin=tuple(origin.tolist()),
        direction=tuple(np.stack([along, down], axis=1).ravel().tolist()),
    )
