"""Figures of one registered pair, made from arrays in the style of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from tfmetareg.report.contrast import checkerboard, overlay
from tfmetareg.report.figures import LANDMARK, bare, grid_lines, styled
from tfmetareg.report.labels import draw_outlines, outline_legend
from tfmetareg.report.registration_panels import RegistrationPanels, shrunk, shrunk_to_maxima

# Inches: side of a panel, least room for its title, between panels, below and above them.
_PANEL, _TITLE, _BETWEEN, _BELOW = 4.2, 2.2, 0.12, 0.35
_GRID = "#ffb000"
_FOLDING = "#ff00c8"
_MOST_NUMBERS = 30
# Determinants are clipped to this range.
_SHRUNK, _GROWN = 0.0, 2.0


def draw_registered(pair: RegistrationPanels) -> Mapping[str, Figure]:
    """All figures of a pair by name; no overlay of images that differ in contrast."""
    figures = {
        **({"overlay": figure_overlay(pair)} if pair.comparison == "overlay" else {}),
        "checkerboard": figure_checkerboard(pair),
        "grid": figure_grid(pair),
        "jacobian": figure_jacobian(pair),
    }
    if pair.fixed_points is not None:
        figures["points"] = figure_points(pair)
    if pair.warped_labels is not None:
        figures["labels"] = figure_labels(pair)
    return figures


@styled
def figure_overlay(pair: RegistrationPanels) -> Figure:
    """Overlay of moving (magenta) and fixed (green), before and after registration; white: agreement."""
    return _before_and_after(pair, overlay, "moving magenta, fixed green, white where they agree")


@styled
def figure_checkerboard(pair: RegistrationPanels) -> Figure:
    """Alternating tiles of fixed and moving, before and after: edges are continuous where they agree."""
    return _before_and_after(pair, checkerboard, "tiles in turn: fixed (first one), moving")


def figure_compared(pair: RegistrationPanels) -> Figure:
    """The picture that suits the pair, before and after registration."""
    return figure_overlay(pair) if pair.comparison == "overlay" else figure_checkerboard(pair)


def _before_and_after(
    pair: RegistrationPanels, combine: Callable[[np.ndarray, np.ndarray], np.ndarray], legend: str
) -> Figure:
    """The moving image before and after registration, each combined with the fixed one, side by side."""
    figure, axes = _panels([pair.fixed_shape] * 2)
    for axis, title, image in zip(axes, ("Before", "After"), (pair.before, pair.warped)):
        _show(axis, combine(image, pair.fixed), pair.fixed_shape)
        axis.set_title(title)
    figure.supxlabel(legend, fontsize=9)
    return figure


@styled
def figure_grid(pair: RegistrationPanels) -> Figure:
    """A regular grid on the fixed image, its position in the moving one, and the displacement's length."""
    displacement = pair.displacement
    images = (pair.fixed, pair.fixed_shape), (pair.moving, pair.moving_shape)
    lines = {"Fixed": np.zeros_like(displacement), "Moving, with p + u(p)": displacement}
    figure, axes = _panels([pair.fixed_shape, pair.moving_shape, pair.fixed_shape])
    for axis, (image, shape), (title, field) in zip(axes, images, lines.items()):
        _show(axis, image, shape)
        axis.add_collection(LineCollection(grid_lines(field), colors=_GRID, linewidths=0.7))
        axis.set_title(title)
    length = np.linalg.norm(displacement, axis=-1)
    shown = axes[2].imshow(
        shrunk(length),
        cmap="viridis",
        vmin=0,
        vmax=max(float(length.max()), 1e-3),
        extent=_extent(pair.fixed_shape),
    )
    axes[2].set_title("Length of u (px)")
    bare(axes[2], *pair.fixed_shape)
    _colour_bar(shown, axes[2])
    return figure


@styled
def figure_jacobian(pair: RegistrationPanels) -> Figure:
    """Jacobian determinant: blue where moving is stretched, red where it is compressed; folds are marked."""
    # A determinant above 1 maps a large area of moving to one fixed pixel: moving is compressed there.
    determinant, folded = pair.determinant, pair.determinant <= 0
    figure, (axis,) = _panels([determinant.shape])
    norm = TwoSlopeNorm(vmin=_SHRUNK, vcenter=1, vmax=_GROWN)
    shown = axis.imshow(
        np.clip(shrunk(determinant), _SHRUNK, _GROWN),
        cmap="RdBu_r",
        norm=norm,
        extent=_extent(determinant.shape),
    )
    marked = np.zeros((*folded.shape, 4), np.float32)
    marked[folded] = [1.0, 0.0, 0.78, 1.0]
    if folded.any():
        axis.imshow(shrunk_to_maxima(marked), extent=_extent(determinant.shape), interpolation="nearest")
        axis.legend(
            handles=[Patch(color=_FOLDING, label="folded")], loc="upper center", bbox_to_anchor=(0.5, 0.0)
        )
    axis.set_title(f"Determinant of the Jacobian; {100 * folded.mean():.2f} % folded")
    bare(axis, *determinant.shape)
    bar = _colour_bar(shown, axis, extend="max")
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
    shapes = (pair.fixed_shape, pair.moving_shape)
    figure, axes = _panels(shapes)
    images = {"fixed": (pair.fixed, pair.fixed_points), "moving": (pair.moving, pair.moving_points)}
    casing = [Stroke(linewidth=2.2, foreground="black"), Normal()]
    for axis, shape, (name, (image, points)) in zip(axes, shapes, images.items()):
        _show(axis, image, shape)
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


@styled
def figure_labels(pair: RegistrationPanels) -> Figure:
    """Outlines of the moving image's labels, before and after registration, and of the fixed image's."""
    figure, axes = _panels([pair.fixed_shape] * 2)
    moving = {"Before": pair.before_labels, "After": pair.warped_labels}
    for axis, (title, labels) in zip(axes, moving.items()):
        _show(axis, pair.fixed, pair.fixed_shape)
        draw_outlines(axis, pair.fixed_labels, labels)
        axis.set_title(title)
    outline_legend(figure)
    return figure


def _panels(shapes: Sequence[tuple[int, ...]]) -> tuple[Figure, list[Any]]:
    """Axes side by side for images of these shapes.

    Laid out by hand: matplotlib's layout engines draw a figure several times to find out its sizes.
    """
    ratios = [height / width for height, width in shapes]
    tallest = _PANEL * min(max(ratios), 2.5)
    widths = [min(_PANEL, tallest / ratio) for ratio in ratios]
    room = [max(width, _TITLE) + _BETWEEN for width in widths]
    size = sum(room), tallest + 2 * _BELOW
    figure = Figure(figsize=size)
    axes = []
    for number, (width, ratio) in enumerate(zip(widths, ratios)):
        left = sum(room[:number]) + (room[number] - width) / 2
        bottom = _BELOW + tallest - width * ratio
        place = left / size[0], bottom / size[1], width / size[0], width * ratio / size[1]
        with rc_context({"axes.grid": False}):
            axes.append(figure.add_axes(place))
        axes[-1].set_axis_off()
    return figure, axes


def _colour_bar(shown: Any, axis: Any, **options: Any) -> Any:
    """A colour bar beside the axis, as high as it is."""
    return axis.figure.colorbar(shown, cax=axis.inset_axes((1.02, 0, 0.045, 1)), **options)


def _show(axis: Any, image: np.ndarray, shape: tuple[int, ...]) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, extent=_extent(shape))
    bare(axis, *shape)


def _extent(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Extent that keeps the unit of the axes one pixel of an image of this shape, at any reduction."""
    height, width = shape
    return -0.5, width - 0.5, height - 0.5, -0.5
