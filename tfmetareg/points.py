"""Points in CSV files."""

from __future__ import annotations

import numpy as np

from tfmetareg.files import StrPath, write_text


def write_points(path: StrPath, **points: np.ndarray) -> None:
    """Publishes matched points as a CSV file: `write_points(path, fixed=p, moving=q)`.

    The first line is `fixed_x,fixed_y,moving_x,moving_y`: x is the column, y the row, in pixels of the image
    that the column names. A point that is NaN has empty cells.

    Args:
        path: of the file.
        points: name of an image -> (n, 2), (row, column); row i of one matches row i of the others.

    Raises:
        ValueError: not as many points of each.
    """
    columns = [f"{name}_{axis}" for name in points for axis in "xy"]
    table = np.concatenate([np.asarray(values)[:, ::-1] for values in points.values()], axis=1)
    lines = (",".join("" if np.isnan(value) else f"{value:.4f}" for value in row) for row in table)
    write_text(path, "\n".join([",".join(columns), *lines]) + "\n")
