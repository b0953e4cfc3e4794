"""Figures of the report: matplotlib Figures made from arrays, without global plotting state."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from tfmetareg.files import StrPath, published
from tfmetareg.methods import STARTS, label, start_colour
from tfmetareg.report.contrast import Comparison, checkerboard, overlay
from tfmetareg.report.labels import draw_outlines
from tfmetareg.report.results import ExamplePairs, PairImages, Result, series
from tfmetareg.report.shots import ShotPoint

DPI = 120
# Of PNG files: half the time of zlib's own choice, for a few per cent more bytes.
_COMPRESSION = 3
MAX_COLUMNS = 6
# Letters to a line: of a label beside a row, of a title above a panel, in a legend.
LABEL_LETTERS, TITLE_LETTERS, LEGEND_LETTERS = 28, 20, 40
LETTERS_PER_INCH, LINE_INCHES = 12, 0.17
PAIR_INCHES = 2.8
MAX_LANDMARKS = 24
LANDMARK = "#ffd400"
_LINE_POINTS = 400
DASHED = frozenset({"matched", "matched_10", "matched_long"})
LOSS_TERMS = {
    "total": ("#222222", "total (what is minimised)"),
    "similarity": ("#0072b2", "similarity"),
    "smoothness": ("#d55e00", "smoothness (unweighted)"),
}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titley": 1.0,  # Else each drawing measures all ticks, to keep titles clear of those above an axis.
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # Names of pairs and methods may hold any character.
}
styled = matplotlib.rc_context(_STYLE)


def wrapped(text: str, width: int) -> str:
    """The whole text in lines of at most `width` letters: no name is ever cut.

    Lines break behind blanks and punctuation where they can.

    >>> wrapped("images/pair_1.png", 10).split()
    ['images/', 'pair_1.png']
    """
    lines = [""]
    for part in re.findall(rf"[^\s/:_-]{{1,{max(width - 1, 1)}}}[\s/:_-]?|[\s/:_-]", " ".join(text.split())):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def save_figure(figure: Figure, path: StrPath, *, cut: bool = True) -> Path:
    """Writes a figure as a PNG file whose bytes depend on the figure alone.

    Args:
        figure: the figure.
        path: of the file.
        cut: to what is drawn; else the figure's whole size, which is drawn once only.

    Returns:
        The path.
    """
    path = Path(path)
    with matplotlib.rc_context(_STYLE), published(path) as temporary:
        figure.savefig(
            temporary,
            dpi=DPI,
            facecolor="white",
            metadata={"Software": None},
            bbox_inches="tight" if cut else None,
            pad_inches=0.06,
            pil_kwargs={"compress_level": _COMPRESSION},
        )
    return path


def landmark_residuals(displacement: np.ndarray, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Landmark errors p_fixed + displacement(p_fixed) - p_moving, with bilinear interpolation.

    Args:
        displacement: (height, width, 2) pixels, (row, column).
        fixed, moving: (k, 2) landmarks, (row, column), matched row by row.

    Returns:
        (k, 2) float64 pixels, (row, column).
    """
    limits = np.asarray(displacement.shape[:2]) - 1
    points = np.clip(np.asarray(fixed, np.float64), 0, limits)
    low = np.minimum(points.astype(int), np.maximum(limits - 1, 0))
    (row, column), (row_part, column_part) = low.T, (points - low).T[..., None]
    next_row, next_column = np.minimum(low + 1, limits).T
    upper = displacement[row, column] * (1 - column_part) + displacement[row, next_column] * column_part
    lower = (
        displacement[next_row, column] * (1 - column_part) + displacement[next_row, next_column] * column_part
    )
    return fixed + upper * (1 - row_part) + lower * row_part - moving


@styled
def figure_overlays(
    examples: Mapping[str, ExamplePairs], rows: Mapping[str, str], comparison: Comparison = "overlay"
) -> Figure:
    """Fig. 4: warped and fixed image compared, with a row per example pair and a column per method.

    Without "not_deformed", a first column "Before" shows moving and fixed. More than MAX_COLUMNS methods are
    split into bands. Rings are landmarks of the fixed image (at most MAX_LANDMARKS per pair); a line leads
    from each to a dot, displaced by the remaining error. The number below is the mean error over all
    landmarks of the pair.

    Args:
        examples: example pairs by method, in the order of the columns.
        rows: label of each row by the name of its pair, which all methods have.
        comparison: picture of both images.
    """
    columns = _overlay_columns(examples)
    bands = math.ceil(len(columns) / MAX_COLUMNS)
    width = math.ceil(len(columns) / bands)
    height, breadth = columns[0][1].fixed.shape[1:]
    panel = 2.1 if width > 3 else 2.5
    row_inches = max(panel * height / breadth, 1.0) + 0.42
    labels = [wrapped(text, int(row_inches * LETTERS_PER_INCH)) for text in rows.values()]
    titles = [wrapped(title, TITLE_LETTERS) for title, _ in columns]
    size = (
        panel * width + LINE_INCHES * (1 + _most_lines(labels)),
        (row_inches * len(rows) + LINE_INCHES * _most_lines(titles)) * bands + 0.2,
    )
    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=layout)
    axes = figure.subplots(len(rows) * bands, width, squeeze=False)
    for position, (title, (_, pairs)) in enumerate(zip(titles, columns)):
        band, column = divmod(position, width)
        for row, key in enumerate(rows):
            axis, index = axes[band * len(rows) + row, column], pairs.keys.index(key)
            _draw_compared(axis, pairs, index, comparison)
            _tell_error(axis, pairs, index)
        axes[band * len(rows), column].set_title(title)
    for row, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(labels[row % len(rows)], fontsize=8.5)
    for axis in axes[-len(rows) :, width - (bands * width - len(columns)) :].flat:
        axis.set_visible(False)
    return figure


@styled
def figure_pair(pairs: ExamplePairs, index: int, comparison: Comparison = "overlay") -> Figure:
    """One pair before and after registration, side by side, each compared with the fixed image.

    Rings, lines and dots are landmarks as in `figure_overlays`.
    """
    height, width = pairs.fixed.shape[1:]
    figure = Figure(figsize=(2 * PAIR_INCHES, PAIR_INCHES * height / width))
    places = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.02}
    for axis, version in zip(figure.subplots(1, 2, gridspec_kw=places), (undeformed(pairs), pairs)):
        _draw_compared(axis, version, index, comparison)
    return figure


@styled
def figure_curves(stages: Mapping[str, Sequence[dict[str, Any]]], colours: Mapping[str, str]) -> Figure:
    """Fig. 3: landmark distance, NCC and loss on the test pairs over the epochs of fine-tuning.

    Args:
        stages: metrics lines by stage; stages without evaluation lines are left out. If the lines hold the
            lowest and highest value over the seeds, a band shows them.
        colours: by stage.
    """
    shown = evaluated_stages(stages)
    measures = [
        (key, name)
        for key, name in (
            ("test/distance_px", "Landmark distance (px)"),
            ("test/ncc", "NCC"),
            ("test/total", "Loss"),
        )
        if any(len(series(lines, "epoch", key)[0]) for lines in shown.values())
    ]
    figure = Figure(figsize=(3.9 * max(len(measures), 2), 3.9), layout="constrained")
    handles = {}
    for axis, (key, name) in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures):
        # The longest run is drawn first, so that a shorter one on the same path stays visible.
        for stage, lines in sorted(shown.items(), key=lambda item: -len(item[1])):
            epochs, values = series(lines, "epoch", key)
            style = {
                "color": colours[stage],
                "linestyle": "--" if stage in DASHED else "-",
                "label": wrapped(label(stage), LEGEND_LETTERS),
            }
            marker = {"marker": "o", "markersize": 3.5} if len(epochs) <= 15 else {}
            (handles[stage],) = axis.plot(epochs, values, **style, **marker)
            _draw_band(axis, lines, key, colours[stage])
        axis.set(title=name, xlabel="Epochs of fine-tuning")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(
        handles=[handles[stage] for stage in shown], loc="outside lower center", ncols=min(len(shown), 4)
    )
    return figure


@styled
def figure_shots(points: Sequence[ShotPoint]) -> Figure:
    """Landmark distance over the number of fine-tuning pairs, with a curve per start.

    With several seeds, a band shows their lowest and highest mean.

    Args:
        points: points as from `shots.read_shots`.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for start in STARTS:
        mine = [point for point in points if point.start == start.kind]
        pairs, colour = [point.pairs for point in mine], start_colour(start)
        style = "--" if start.stage in DASHED else "-"
        if mine:
            axis.plot(
                pairs,
                [p.distance for p in mine],
                color=colour,
                linestyle=style,
                marker="o",
                markersize=4,
                label=start.label,
            )
        if mine and all(point.over_seeds for point in mine):
            low, high = zip(*((min(point.over_seeds), max(point.over_seeds)) for point in mine))
            axis.fill_between(pairs, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    counts = sorted({point.pairs for point in points})
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="Fine-tuning pairs", ylabel="Landmark distance (px)")
    axis.legend()
    return figure


def _draw_band(axis: Any, lines: Sequence[dict[str, Any]], key: str, colour: str) -> None:
    epochs, low = series(lines, "epoch", f"{key}/low")
    _, high = series(lines, "epoch", f"{key}/high")
    if len(epochs):
        axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def evaluated_stages(stages: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Evaluation lines with an epoch, by stage; stages without such lines are left out."""
    lines = {
        stage: [line for line in lines if line.get("epoch") is not None and line.get("test/ncc") is not None]
        for stage, lines in stages.items()
    }
    return {stage: evaluated for stage, evaluated in lines.items() if evaluated}


@styled
def figure_training(stages: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Loss terms of each stage over its steps: total and similarity above, smoothness below.

    Args:
        stages: metrics lines by stage; stages without training lines are left out.
    """
    shown = [stage for stage, lines in stages.items() if len(series(lines, "step", "total")[0])]
    width = min(len(shown), 3) if len(shown) != 4 else 2
    height = math.ceil(len(shown) / width)
    figure = Figure(figsize=(max(3.9 * width, 5.6), 3.4 * height + 0.4), layout="constrained")
    ratios = [2.2, 1] * height
    axes = figure.subplots(2 * height, width, squeeze=False, gridspec_kw={"height_ratios": ratios})
    for position, stage in enumerate(shown):
        row, column = divmod(position, width)
        _draw_stage(axes[2 * row, column], axes[2 * row + 1, column], stage, stages[stage])
    for axis in axes[2 * height - 2 :, width - (height * width - len(shown)) :].flat:
        axis.set_visible(False)
    handles = [axes[0, 0].get_lines()[1], axes[0, 0].get_lines()[3], axes[1, 0].get_lines()[1]]
    figure.legend(handles, [text for _, text in LOSS_TERMS.values()], loc="outside lower center", ncols=3)
    return figure


@styled
def figure_distances(distances: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> Figure:
    """Landmark distances of all pairs by method: points, box of the quartiles, and median.

    The axis is logarithmic if the largest distance is more than 20 times the smallest.

    Args:
        distances: distances in pixels, one per pair, by method; the first method is the top row.
        colours: by method.
    """
    figure, axis = _boxes(distances, colours)
    axis.set_xlabel("Landmark distance per pair (px)")
    pooled = np.concatenate([np.asarray(values, np.float64) for values in distances.values()])
    if 0 < 20 * pooled.min() < pooled.max():
        _use_log_axis(axis)
        axis.set_xlabel("Landmark distance per pair (px, logarithmic)")
    else:
        axis.set_xlim(left=0)
    return figure


@styled
def figure_dice(dice: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> Figure:
    """Dice of all pairs by method, drawn like the distances.

    Args:
        dice: mean Dice over the labels of each pair, by method; the first method is the top row.
        colours: by method.
    """
    figure, axis = _boxes(dice, colours)
    axis.set(xlabel="Dice per pair", xlim=(0, 1.01))
    return figure


def _boxes(values: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> tuple[Figure, Any]:
    """A row by method, the first on top, with a point for each value and a box of the quartiles."""
    labels = [wrapped(label(name), LABEL_LETTERS) for name in values]
    row_inches = max(0.45, 0.1 + LINE_INCHES * _most_lines(labels))
    figure = Figure(figsize=(8.6, row_inches * len(values) + 1.0), layout="constrained")
    axis = figure.subplots()
    for row, (name, own) in enumerate(values.items()):
        _draw_box(axis, row, np.sort(np.asarray(own, np.float64)), colours[name])
    axis.set_yticks(range(len(values)), labels)
    axis.set_ylim(len(values) - 0.45, -0.55)
    axis.grid(False, axis="y")
    return figure, axis


@styled
def figure_field(examples: ExamplePairs, index: int = 0) -> Figure:
    """The deformation of one pair: moving under the sampling grid, warped, fixed, |displacement|.

    Args:
        examples: pairs of one method.
        index: the pair to draw.
    """
    displacement = examples.displacement[index]
    height, width = displacement.shape[:2]
    figure = Figure(figsize=(13.2, 3.0 * height / width + 0.55), layout="compressed")
    axes = figure.subplots(1, 4)
    for axis, name in zip(axes, ("moving", "warped", "fixed")):
        axis.imshow(getattr(examples.images(index), name), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name.capitalize())
    axes[0].set_title("Moving, with x + displacement(x)")
    axes[0].add_collection(LineCollection(grid_lines(displacement), colors="#ffb000", linewidths=0.8))
    length = np.linalg.norm(displacement, axis=-1)
    image = axes[3].imshow(length, cmap="viridis", vmin=0, vmax=max(float(length.max()), 1e-3))
    axes[3].set_title("Length of the displacement (px)")
    figure.colorbar(image, ax=axes[3], fraction=0.046, pad=0.02)
    for axis in axes:
        bare(axis, height, width)
    return figure


def field_method(results: Sequence[Result], examples: Mapping[str, ExamplePairs]) -> str:
    """Method whose displacement is drawn: ours_long, else ours_10, else the last method that deforms."""
    moved = [name for name in examples if np.any(examples[name].displacement)]
    order = [result.method for result in results if result.method in moved]
    own = [name for name in ("ours_long", "ours_10") if name in order]
    return (own or order[::-1] or [""])[0]


def _overlay_columns(examples: Mapping[str, ExamplePairs]) -> list[tuple[str, ExamplePairs]]:
    columns = [(label(name), pairs) for name, pairs in examples.items()]
    if "not_deformed" in examples:
        return columns
    return [("Before", undeformed(columns[0][1])), *columns]


def undeformed(pairs: ExamplePairs) -> ExamplePairs:
    """The pairs as they are before registration."""
    return dataclasses.replace(
        pairs,
        warped=pairs.moving,
        displacement=np.zeros_like(pairs.displacement),
        originals=tuple(each and each._replace(warped=each.moving) for each in pairs.originals),
        warped_labels=pairs.moving_labels,
    )


def compared(images: PairImages, comparison: Comparison) -> np.ndarray:
    """Warped and fixed image in one picture, (height, width) or (height, width, 3)."""
    combine = {"overlay": overlay, "checkerboard": checkerboard}[comparison]
    return combine(images.warped, images.fixed)


def _draw_compared(axis: Any, pairs: ExamplePairs, index: int, comparison: Comparison) -> None:
    picture = compared(pairs.images(index), comparison)
    axis.imshow(picture, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
    landmarks = pairs.fixed_landmarks[index]
    if len(landmarks):
        segments = np.stack([landmarks, landmarks + _residuals(pairs, index)], axis=1)[..., ::-1]
        _draw_landmarks(axis, segments[_evenly(len(segments), MAX_LANDMARKS)])
    if pairs.fixed_labels:
        draw_outlines(axis, pairs.fixed_labels[index], pairs.warped_labels[index])
    bare(axis, *picture.shape[:2])


def _tell_error(axis: Any, pairs: ExamplePairs, index: int) -> None:
    if len(pairs.fixed_landmarks[index]):
        error = np.linalg.norm(_residuals(pairs, index), axis=1).mean()
        axis.set_xlabel(f"{error:.2f} px", labelpad=2)


def _residuals(pairs: ExamplePairs, index: int) -> np.ndarray:
    return landmark_residuals(
        pairs.displacement[index], pairs.fixed_landmarks[index], pairs.moving_landmarks[index]
    )


def _draw_landmarks(axis: Any, segments: np.ndarray) -> None:
    """Draws a ring at the start of each segment (n, 2, (x, y)), the segment, and a dot at its end."""
    casing = [Stroke(linewidth=2.0, foreground="black"), Normal()]
    axis.add_collection(LineCollection(list(segments), colors=LANDMARK, linewidths=0.9, path_effects=casing))
    for (x, y), size, fill in ((segments[:, 0].T, 5.0, "none"), (segments[:, 1].T, 1.6, LANDMARK)):
        axis.plot(
            x,
            y,
            linestyle="none",
            marker="o",
            markersize=size,
            markerfacecolor=fill,
            markeredgecolor=LANDMARK,
            markeredgewidth=0.7,
            path_effects=casing,
        )


def bare(axis: Any, height: int, width: int) -> None:
    """Removes ticks, grid and frame, and limits the axes to the image."""
    axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.grid(False)
    axis.spines[:].set_visible(False)


def _draw_stage(upper: Any, lower: Any, stage: str, lines: Sequence[dict[str, Any]]) -> None:
    for name, (colour, _) in LOSS_TERMS.items():
        axis = lower if name == "smoothness" else upper
        steps, values = series(lines, "step", name)
        axis.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
        axis.plot(steps, _running_mean(values), color=colour)
    upper.set_title(wrapped(label(stage), 2 * TITLE_LETTERS))
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("Steps")
    for axis in (upper, lower):
        axis.set_xlim(lower.get_xlim())
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    upper.yaxis.set_major_locator(MaxNLocator(5))
    lower.yaxis.set_major_locator(MaxNLocator(3))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a twentieth of the curve; the window shrinks at both ends."""
    half = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    low, high = np.maximum(positions - half, 0), np.minimum(positions + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _draw_box(axis: Any, row: int, values: np.ndarray, colour: str) -> None:
    """Draws a box between the quartiles, with whiskers to the last point within 1.5 box lengths."""
    first, median, third = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    axis.hlines(row, inside[0], inside[-1], color=colour, linewidth=1.2, zorder=1)
    axis.barh(
        row, third - first, left=first, height=0.56, color=colour, alpha=0.28, edgecolor=colour, zorder=2
    )
    # Multiples of the golden ratio spread the points evenly and reproducibly.
    jitter = 0.4 * (np.arange(len(values)) * 0.6180339887 % 1 - 0.5)
    axis.scatter(values, row + jitter, s=14, color=colour, edgecolors="white", linewidths=0.4, zorder=3)
    axis.vlines(median, row - 0.28, row + 0.28, color="black", linewidth=1.8, zorder=4)


def _use_log_axis(axis: Any) -> None:
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)]
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    axis.set_xticks([], minor=True)
    axis.xaxis.set_major_formatter("{x:g}")


def grid_lines(displacement: np.ndarray) -> list[np.ndarray]:
    """Polylines (n, 2), (x, y): where a regular grid of the fixed image samples the moving image."""
    sides = displacement.shape[:2]
    spacing = max(min(sides) // 20, 1)
    rows, columns = (np.arange(spacing // 2, side, spacing) for side in sides)
    # Of larger images not every pixel along a line: a figure shows no more.
    down, along = (np.linspace(0, side - 1, min(side, _LINE_POINTS)).round().astype(int) for side in sides)
    return [*_carried(displacement, rows, along), *_carried(displacement, down, columns).swapaxes(0, 1)]


def _carried(displacement: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The points of the moving image, (x, y), below those in some rows and columns: (rows, columns, 2)."""
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    return (points + displacement[np.ix_(rows, columns)])[..., ::-1]


def _evenly(size: int, count: int) -> np.ndarray:
    """At most `count` evenly spaced indices below `size`, including the first and the last."""
    return np.linspace(0, size - 1, min(size, count)).round().astype(int)


def _most_lines(texts: Iterable[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)
