"""Figures of one registered pair, made from arrays in the style of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from tfmetareg.report.figures import LANDMARK, bare, grid_lines, overlay, styled

_PANEL = 4.2
_TILES = 8
# Images are reduced to this many rows and columns at most: a figure shows no more.
_MOST_PIXELS = 900
_GRID = "#ffb000"
_FOLDING = "#ff00c8"
_MOST_NUMBERS = 30
# Determinants are clipped to this range.
_SHRUNK, _GROWN = 0.0, 2.0


class RegistrationPanels(NamedTuple):
    """A registered pair to draw.

    Attributes:
        moving: (rows, columns) float32 in [0, 1].
        fixed: (height, width) float32 in [0, 1].
        before, warped: (height, width), the moving image on the fixed grid, before and after registration;
            0 outside the moving image.
        displacement: (height, width, 2) pixels, (row, column): fixed point p is at p + u(p) in moving.
        determinant: (height - 1, width - 1) Jacobian determinant of p + u(p); 1 where areas are preserved.
        fixed_points, moving_points: (n, 2), (row, column), matched row by row; None without points.
        points_in: image in which the points were given, "fixed" or "moving".
    """

    moving: np.ndarray
    fixed: np.ndarray
    before: np.ndarray
    warped: np.ndarray
    displacement: np.ndarray
    determinant: np.ndarray
    fixed_points: Optional[np.ndarray] = None
    moving_points: Optional[np.ndarray] = None
    points_in: str = "fixed"


def draw_registered(pair: RegistrationPanels) -> Mapping[str, Figure]:
    """All figures of a pair by name."""
    figures = {
        "overlay": figure_overlay(pair),
        "checkerboard": figure_checkerboard(pair),
        "grid": figure_grid(pair),
        "jacobian": figure_jacobian(pair),
    }
    if pair.fixed_points is not None:
        figures["points"] = figure_points(pair)
    return figures


@styled
def figure_overlay(pair: RegistrationPanels) -> Figure:
    """Overlay of moving (magenta) and fixed (green), before and after registration; white: agreement."""
    fixed = _shrunk(pair.fixed)
    return _before_and_after(
        pair, lambda image: overlay(image, fixed), "moving magenta, fixed green, white where they agree"
    )


@styled
def figure_checkerboard(pair: RegistrationPanels) -> Figure:
    """Alternating tiles of fixed and moving, before and after: edges are continuous where they agree."""
    fixed = _shrunk(pair.fixed)
    side = max(-(-max(fixed.shape) // _TILES), 1)
    rows, columns = np.indices(fixed.shape) // side
    turn = (rows + columns) % 2 == 0
    return _before_and_after(
        pair, lambda image: np.where(turn, fixed, image), "tiles in turn: fixed (first one), moving"
    )


def _before_and_after(
    pair: RegistrationPanels, combine: Callable[[np.ndarray], np.ndarray], legend: str
) -> Figure:
    """The moving image before and after registration, each combined with the fixed one, side by side."""
    figure = _images(
        {"Before": combine(_shrunk(pair.before)), "After": combine(_shrunk(pair.warped))},
    )
    figure.supxlabel(legend, fontsize=9)
    return figure


@styled
def figure_grid(pair: RegistrationPanels) -> Figure:
    """A regular grid on the fixed image, its position in the moving one, and the displacement's length."""
    displacement = pair.displacement
    height, width = pair.fixed.shape
    lines = {"Fixed": np.zeros_like(displacement), "Moving, with p + u(p)": displacement}
    figure, axes = _panels([pair.fixed.shape, pair.moving.shape, pair.fixed.shape])
    for axis, image, (title, field) in zip(axes, (pair.fixed, pair.moving), lines.items()):
        _show(axis, image)
        axis.add_collection(LineCollection(grid_lines(field), colors=_GRID, linewidths=0.7))
        axis.set_title(title)
    length = np.linalg.norm(displacement, axis=-1)
    shown = axes[2].imshow(
        _shrunk(length),
        cmap="viridis",
        vmin=0,
        vmax=max(float(length.max()), 1e-3),
        extent=_extent(pair.fixed),
    )
    axes[2].set_title("Length of u (px)")
    bare(axes[2], height, width)
    figure.colorbar(shown, ax=axes[2], fraction=0.046, pad=0.02)
    return figure


@styled
def figure_jacobian(pair: RegistrationPanels) -> Figure:
    """Jacobian determinant: blue where moving is stretched, red where it is compressed; folds are marked."""
    # A determinant above 1 maps a large area of moving to one fixed pixel: moving is compressed there.
    determinant, folded = pair.determinant, pair.determinant <= 0
    figure, (axis,) = _panels([determinant.shape], extra=1.0)
    norm = TwoSlopeNorm(vmin=_SHRUNK, vcenter=1, vmax=_GROWN)
    shown = axis.imshow(
        np.clip(_shrunk(determinant), _SHRUNK, _GROWN), cmap="RdBu_r", norm=norm, extent=_extent(determinant)
    )
    marked = np.zeros((*folded.shape, 4), np.float32)
    marked[folded] = [1.0, 0.0, 0.78, 1.0]
    if folded.any():
        axis.imshow(_any(marked), extent=_extent(determinant), interpolation="nearest")
        axis.legend(
            handles=[Patch(color=_FOLDING, label="folded")], loc="upper center", bbox_to_anchor=(0.5, 0.0)
        )
    axis.set_title(f"Determinant of the Jacobian; {100 * folded.mean():.2f} % folded")
    bare(axis, *determinant.shape)
    bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02, extend="max")
    bar.set_label("area in moving per area in fixed", fontsize=9)
    return figure


@styled
def figure_points(pair: RegistrationPanels) -> Figure:
    """The points in both images, numbered in the order of their file; titles tell given from carried ones.

    Raises:
        ValueError: the pair has no points.
    """
    if pair.fixed_points is None or pair.moving_points is None:
        raise ValueError("`pair` has no points to draw.")
    figure, axes = _panels([pair.fixed.shape, pair.moving.shape])
    images = {"fixed": (pair.fixed, pair.fixed_points), "moving": (pair.moving, pair.moving_points)}
    casing = [Stroke(linewidth=2.2, foreground="black"), Normal()]
    for axis, (name, (image, points)) in zip(axes, images.items()):
        _show(axis, image)
        x, y = points[:, 1], points[:, 0]
        axis.plot(
            x, y, "o", markersize=5, markerfacecolor="none", markeredgecolor=LANDMARK, path_effects=casing
        )
        for number, (row, column) in enumerate(points[:_MOST_NUMBERS], 1):
            if np.isfinite(row):
                axis.annotate(
                    str(number), (column, row), (4, 3), textcoords="offset points", fontsize=7,
                    color=LANDMARK, path_effects=casing, annotation_clip=True,
                )  # fmt: skip
        given = name == pair.points_in
        axis.set_title(
            f"{name.capitalize()}: points as given" if given else f"{name.capitalize()}: carried here"
        )
    way = (
        "fixed to moving: p + u(p)"
        if pair.points_in == "fixed"
        else "moving to fixed: the inverse of p + u(p)"
    )
    figure.supxlabel(f"carried from {way}", fontsize=9)
    return figure


def _images(panels: Mapping[str, np.ndarray]) -> Figure:
    figure, axes = _panels([image.shape[:2] for image in panels.values()])
    for axis, (title, image) in zip(axes, panels.items()):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title)
        bare(axis, *image.shape[:2])
    return figure


def _panels(shapes: list[tuple[int, ...]], extra: float = 0.0) -> tuple[Figure, Any]:
    """Axes side by side for images of these shapes."""
    ratio = max(height / width for height, width in shapes)
    figure = Figure(
        figsize=(_PANEL * len(shapes) + 0.4 + extra, _PANEL * min(ratio, 2.5) + 0.7),
        layout=ConstrainedLayoutEngine(compress=True, w_pad=0.04, h_pad=0.04, wspace=0.02),
    )
    return figure, figure.subplots(1, len(shapes), squeeze=False)[0]


def _show(axis: Any, image: np.ndarray) -> None:
    axis.imshow(_shrunk(image), cmap="gray", vmin=0, vmax=1, extent=_extent(image))
    bare(axis, *image.shape)


def _extent(image: np.ndarray) -> tuple[float, float, float, float]:
    """Extent that keeps the unit of the axes one pixel of the image, at any reduction."""
    height, width = image.shape[:2]
    return -0.5, width - 0.5, height - 0.5, -0.5


def _shrunk(image: np.ndarray) -> np.ndarray:
    """The image reduced by block means to at most _MOST_PIXELS rows and columns."""
    return _blocks(image).mean(axis=(1, 3))


def _any(image: np.ndarray) -> np.ndarray:
    """The image reduced by block maxima, so that rare values stay visible."""
    return _blocks(image).max(axis=(1, 3))


def _blocks(image: np.ndarray) -> np.ndarray:
    """The image as blocks, (rows, factor, columns, factor, ...); incomplete blocks at the end are dropped."""
    factor = -(-max(image.shape[:2]) // _MOST_PIXELS)
    rows, columns = (side // factor for side in image.shape[:2])
    cut = image[: rows * factor, : columns * factor]
    return cut.reshape(rows, factor, columns, factor, *image.shape[2:])
