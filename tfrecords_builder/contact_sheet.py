"""The contact sheet: a figure of a few pairs of each task, to check records by eye."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published
from tfmetareg.geometry.affine import points_to_aligned, resample
from tfmetareg.types import ImagePair, is_aligned
from tfrecords_builder.inspection import SplitSummary, landmark_distances

PAIRS_PER_SPLIT = 2
# More rows take minutes to draw, and nobody looks at them: of many splits an even choice is shown.
MOST_SPLITS = 40
_FORMATS = (".png", ".pdf", ".svg")
_COLUMNS = ("moving", "fixed", "moving magenta, fixed green")
_ALIGNED = "the same, moving aligned"
_INCHES_WIDE = 12.0
_DOTS_PER_INCH = 100
_MAX_INCHES = 300.0  # Matplotlib refuses figures of 65536 dots and more.
_LETTERS, _LINE_INCHES = 28, 0.11  # Of a line of a label below a panel.


def draw_contact_sheet(summaries: Sequence[SplitSummary], path: Path) -> None:
    """Publishes the figure: a row per split (of many, every n-th), with moving, fixed, overlay of each pair.

    For aligned pairs a second overlay shows the moving image after alignment. Rings are fixed landmarks,
    crosses are moving landmarks, joined by lines, with their mean distance below. Labels are outlined.

    Args:
        summaries: the splits, with some examples.
        path: of the figure.

    Raises:
        UserError: an unknown figure format, or a path that cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: a figure's name must end in {', '.join(_FORMATS)}.")
    import matplotlib

    # Names of files and tasks may hold any character: none of them is a formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = _draw_sheet(summaries[:: math.ceil(len(summaries) / MOST_SPLITS)])
        try:
            with published(path) as temporary:
                figure.savefig(temporary)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); choose another `--figure`."
            ) from None


def _draw_sheet(summaries: Sequence[SplitSummary]) -> Any:
    from matplotlib.figure import Figure

    pairs = [pair for summary in summaries for pair in summary.examples]
    titles = (*_COLUMNS, _ALIGNED) if any(is_aligned(pair.alignment) for pair in pairs) else _COLUMNS
    columns = len(titles) * PAIRS_PER_SPLIT
    height = sum(_row_inches(summary, _INCHES_WIDE / columns) for summary in summaries)
    figure = Figure(
        figsize=(_INCHES_WIDE, min(height + 0.4, _MAX_INCHES)), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    axes = figure.subplots(len(summaries), columns, squeeze=False)
    for row, summary in zip(axes, summaries):
        row[0].set_ylabel(f"{_lines(summary.task.name)}\n{summary.split}", fontsize=8)
        for index, panels in enumerate(np.split(row, PAIRS_PER_SPLIT)):
            if index < len(summary.examples):
                _draw_pair(panels, summary.examples[index])
            else:
                for panel in panels:
                    panel.axis("off")
    for axis, title in zip(axes[0], titles * PAIRS_PER_SPLIT):
        axis.set_title(title, fontsize=7)
    return figure


def _row_inches(summary: SplitSummary, panel: float) -> float:
    """Height of a row of panels `panel` inches wide, with the labels below."""
    height, width = summary.examples[0].fixed.shape if summary.examples else (1, 1)
    names = [name for pair in summary.examples for name in _names(pair)]
    lines = max((_lines(name).count("\n") + 1 for name in names), default=1)
    return panel * height / width + 0.04 + lines * _LINE_INCHES


def _names(pair: ImagePair) -> tuple[str, str]:
    """What stands below the moving and the fixed image: a key names both, or the pair."""
    moving, _, fixed = pair.key.rpartition(":")
    return moving, fixed


def _lines(name: str) -> str:
    """The whole name in lines that fit below a panel."""
    return "\n".join(textwrap.wrap(name, _LETTERS))


def _draw_pair(axes: Any, pair: ImagePair) -> None:
    """Draws a pair on three panels, or on four with the aligned overlay."""
    moving, fixed, overlay = axes[:3]
    _show(moving, pair.moving)
    _show(fixed, pair.fixed)
    for axis, labels in ((moving, pair.moving_labels), (fixed, pair.fixed_labels)):
        _outline(axis, labels)
    for axis, name in zip((moving, fixed), _names(pair)):
        axis.set_xlabel(_lines(name), fontsize=6)
    _draw_points(moving, pair.moving_landmarks, "+")
    _draw_points(fixed, pair.fixed_landmarks, "o")
    distances = landmark_distances(pair) if len(pair.fixed_landmarks) else None
    _draw_overlay(overlay, pair.moving, pair.moving_landmarks, pair)
    if distances:
        overlay.set_xlabel(f"{distances[0]:.1f} px", fontsize=6)
    for axis in axes[3:]:
        aligned = resample(pair.moving, pair.alignment)
        _draw_overlay(axis, aligned, points_to_aligned(pair.moving_landmarks, pair.alignment), pair)
        if distances:
            axis.set_xlabel(f"{distances[1]:.1f} px", fontsize=6)


def _draw_overlay(axis: Any, moving: np.ndarray, moving_points: np.ndarray, pair: ImagePair) -> None:
    """Moving in magenta, fixed in green: where they agree, the sum is grey."""
    _show(axis, np.stack([moving, pair.fixed, moving], axis=-1))
    _draw_points(axis, moving_points, "+")
    _draw_points(axis, pair.fixed_landmarks, "o")
    both = np.stack([moving_points, pair.fixed_landmarks])
    axis.plot(both[..., 1], both[..., 0], "-", color="yellow", linewidth=0.7)


def _show(axis: Any, image: np.ndarray) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set_autoscale_on(False)  # An aligned landmark may lie outside the image.
    axis.set_xticks([])
    axis.set_yticks([])


def _outline(axis: Any, labels: Optional[np.ndarray]) -> None:
    for value in np.unique(labels[labels > 0]) if labels is not None else ():
        axis.contour(labels == value, [0.5], colors="orange", linewidths=0.8)


def _draw_points(axis: Any, points: np.ndarray, mark: str) -> None:
    axis.plot(
        points[:, 1],
        points[:, 0],
        mark,
        markersize=3,
        markeredgewidth=0.6,
        markerfacecolor="none",
        color="cyan",
    )
