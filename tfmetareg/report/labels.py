"""Outlines of labels on images."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# By whose labels: colours that stay apart on magenta and green, also in the common colour deficiencies.
_COLOURS = {"fixed labels": "#00e5ff", "moving labels": "#ffb000"}
_CASING = "black"


def outlines(labels: np.ndarray) -> np.ndarray:
    """The edges between pixels of different labels: segments (n, 2, (x, y)).

    >>> outlines(np.array([[0, 7]])).tolist()
    [[[0.5, -0.5], [0.5, 0.5]]]

    Args:
        labels: integers (height, width).
    """
    rows, columns = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.stack([columns + 0.5, rows - 0.5, columns + 0.5, rows + 0.5], axis=-1)
    rows, columns = np.nonzero(labels[1:] != labels[:-1])
    level = np.stack([columns - 0.5, rows + 0.5, columns + 0.5, rows + 0.5], axis=-1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2)


def draw_outlines(axis: Any, fixed: Optional[np.ndarray], moving: Optional[np.ndarray]) -> None:
    """Outlines labels on an image of the fixed grid, fixed ones in cyan, moving ones in orange.

    Args:
        axis: matplotlib's, in pixels.
        fixed, moving: integers (height, width); None draws nothing.
    """
    for labels, colour in zip((fixed, moving), _COLOURS.values()):
        if labels is not None:
            edges = list(outlines(labels))
            for drawn, width in ((_CASING, 2.4), (colour, 1.2)):  # A line at a time would be dotted.
                axis.add_collection(LineCollection(edges, colors=drawn, linewidths=width, capstyle="round"))


def outline_legend(figure: Figure) -> None:
    """Says below a figure whose outlines are which."""
    handles = [Line2D([], [], color=colour, label=name) for name, colour in _COLOURS.items()]
    box = {"facecolor": "#606060", "labelcolor": "white", "frameon": True}
    figure.legend(handles=handles, loc="outside lower center", ncols=2, **box)
