"""Draws a few pairs of each task, so that a person sees what the records hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published
from tfmetareg.types import ImagePair
from tfrecords_builder.inspection import Summary

PAIRS_PER_SPLIT = 2
_FORMATS = (".png", ".pdf", ".svg")
_COLUMNS = ("moving", "fixed", "moving red, fixed green")
_DOTS_PER_INCH = 100
_MAX_INCHES = 300.0  # matplotlib refuses figures of 65536 dots


def draw_contact_sheet(summaries: Sequence[Summary], path: Path) -> None:
    """Publishes the figure: a row per split, its pairs side by side as moving, fixed and their overlay.

    Fixed landmarks are rings, moving ones crosses, with a line between the two.

    Raises:
        UserError: a figure format that is not drawn, or a path that cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: a figure's name must end in {', '.join(_FORMATS)}.")
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(2.0 * 3 * PAIRS_PER_SPLIT, min(2.2 * len(summaries) + 0.4, _MAX_INCHES)),
        dpi=_DOTS_PER_INCH,
        layout="constrained",
    )
    axes = figure.subplots(len(summaries), 3 * PAIRS_PER_SPLIT, squeeze=False)
    for row, summary in zip(axes, summaries):
        row[0].set_ylabel(f"{summary.task.name}\n{summary.split}", fontsize=8)
        for index in range(PAIRS_PER_SPLIT):
            panels = row[3 * index : 3 * index + 3]
            if index < len(summary.examples):
                _draw_pair(panels, summary.examples[index])
            else:
                for panel in panels:
                    panel.axis("off")
    for axis, title in zip(axes[0], _COLUMNS * PAIRS_PER_SPLIT):
        axis.set_title(title, fontsize=8)
    try:
        with published(path) as temporary:
            figure.savefig(temporary)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another `--figure`.") from None


def _draw_pair(axes: Sequence, pair: ImagePair) -> None:
    overlay = np.stack([pair.moving, pair.fixed, np.zeros_like(pair.fixed)], axis=-1)
    axes[2].set_xlabel(pair.key[-24:], fontsize=6)
    for axis, image in zip(axes, (pair.moving, pair.fixed, overlay)):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_autoscale_on(False)  # An aligned landmark may lie outside the image.
        axis.set_xticks([])
        axis.set_yticks([])
    for name, axis, mark in (("moving", axes[0], "+"), ("fixed", axes[1], "o")):
        points = getattr(pair, f"{name}_landmarks")
        for target in (axis, axes[2]):
            target.plot(
                points[:, 1],
                points[:, 0],
                mark,
                markersize=3,
                markeredgewidth=0.6,
                markerfacecolor="none",
                color="cyan",
                linewidth=0.5,
            )
    both = np.stack([pair.moving_landmarks, pair.fixed_landmarks])
    axes[2].plot(both[..., 1], both[..., 0], "-", color="white", linewidth=0.7)
