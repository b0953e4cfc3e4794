"""What the figures show: colours, points and lines, read back from the axes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from tests.unit.tfmetareg.report.workdirs import (
    SIZE,
    evaluation_line,
    training_line,
    write_examples,
    write_result,
)
from tfmetareg.methods import METHOD_NAMES, STAGE_LABELS, colours, label
from tfmetareg.report import figures
from tfmetareg.report.contrast import overlay
from tfmetareg.report.results import PairImages, read_examples, read_results
from tfmetareg.report.shots import ShotPoint

COLOURS = colours([*METHOD_NAMES, *STAGE_LABELS])
ROWS = {"pair0": "pair0", "pair1": "pair1"}


def examples_of(tmp_path, *methods, shift=1.0, **keywords):
    """{method: its example pairs}, with `shift` pixels where 3 would be right."""
    for method in methods:
        write_result(tmp_path, method)
        write_examples(
            tmp_path / "results" / f"{method}.examples.npz",
            shift=shift,
            landmarks=keywords.get("landmarks", 3),
        )
    return {result.method: read_examples(result) for result in read_results(tmp_path)}


def test_residuals_read_the_displacement_bilinearly():
    displacement = np.zeros((4, 5, 2))
    rows, columns = np.mgrid[:4, :5]
    displacement[..., 0] = 2 * rows + 10 * columns
    displacement[..., 1] = rows * columns
    fixed = np.array([[1.25, 2.5], [3.0, 4.0], [0.0, 0.0]])
    moving = np.array([[0.0, 1.0], [3.0, 4.0], [0.0, -1.0]])
    # By hand: (1.25, 2.5) has displacement (2.5 + 25, 3.125), the corner (3, 4) has (46, 12).
    expected = [[1.25 + 27.5, 2.5 + 3.125 - 1], [46, 12], [0, 1]]
    np.testing.assert_allclose(figures.landmark_residuals(displacement, fixed, moving), expected)


def test_residuals_outside_the_image_read_its_border():
    displacement = np.full((4, 5, 2), 2.0)
    displacement[3, 4] = 7.0
    residuals = figures.landmark_residuals(displacement, np.array([[9.0, 9.0]]), np.array([[9.0, 9.0]]))
    np.testing.assert_allclose(residuals, [[7.0, 7.0]])


def test_overlays_have_a_row_per_pair_and_a_column_per_method(tmp_path):
    examples = examples_of(tmp_path, "not_deformed", "transfer", "ours_10")
    figure = figures.figure_overlays(examples, {"pair0": "Worst: pair0", "pair1": "pair1"})
    axes = figure.axes
    assert [axis.get_title() for axis in axes] == ["Not deformed", "Transfer", "Ours (10)", "", "", ""]
    assert [axis.get_ylabel() for axis in axes] == ["Worst: pair0", "", "", "pair1", "", ""]
    shown = axes[4].get_images()[0].get_array()
    pairs = examples["transfer"]
    np.testing.assert_allclose(shown, overlay(pairs.warped[1], pairs.fixed[1]))


def test_a_checkerboard_takes_the_place_of_the_overlay(tmp_path):
    examples = examples_of(tmp_path, "ours_10")
    figure = figures.figure_overlays(examples, ROWS, "checkerboard")
    shown = figure.axes[1].get_images()[0].get_array()
    pairs = examples["ours_10"]
    np.testing.assert_array_equal(shown[:4, :4], pairs.fixed[0][:4, :4])
    np.testing.assert_array_equal(shown[:4, 4:8], pairs.warped[0][:4, 4:8])


def test_originals_are_shown_in_place_of_the_records_images(tmp_path):
    pairs = examples_of(tmp_path, "ours_10")["ours_10"]
    red = np.zeros((SIZE, SIZE, 3), np.float32) + np.float32([1, 0, 0])
    pairs = dataclasses.replace(pairs, originals=(PairImages(red, red / 2, red), None))
    before, after = figures.figure_pair(pairs, 0, "checkerboard").axes
    np.testing.assert_allclose(before.get_images()[0].get_array()[0, [0, 4]], [[0.5, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(after.get_images()[0].get_array()[0, 4], [1, 0, 0])
    recorded = figures.figure_pair(pairs, 1).axes[1].get_images()[0].get_array()
    np.testing.assert_allclose(recorded, overlay(pairs.warped[1], pairs.fixed[1]))


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=120)


# The same names each time: a line of the widest letters there are (mathematical bold) still leaves its panel.
@settings(max_examples=4, deadline=None, derandomize=True)
@given(pair=NAMES, method=NAMES)
def test_no_name_is_cut_or_read_as_a_formula(tmp_path_factory, pair, method):
    folder = tmp_path_factory.mktemp("names")
    examples = {method: examples_of(folder, "ours_10")["ours_10"]}
    figure = figures.figure_overlays(examples, {"pair0": pair, "pair1": r"$\frac{$ and more" * 9})
    titles, labels = ([getattr(axis, name)() for axis in figure.axes] for name in ("get_title", "get_ylabel"))
    assert without_blanks(titles[1]) == without_blanks(label(method))
    assert [without_blanks(text) for text in labels[::2]] == [
        without_blanks(pair),
        without_blanks(r"$\frac{$ and more" * 9),
    ]
    distances = figures.figure_distances({method: [1.0, 2.0]}, {method: "#123456"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # The font has not every letter.
        for each in (figure, distances):
            assert everything_lies_within(each)
            figures.save_figure(each, folder / "a.png")


def without_blanks(text):
    return "".join(text.split())


def everything_lies_within(figure):
    """Whether every label is on the page, and every panel keeps a size."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page, renderer = figure.bbox, canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes if axis.get_visible()]
    sizes = [axis.get_window_extent(renderer) for axis in figure.axes]
    inside = all(
        box.x0 > -2 and box.y0 > -2 and box.x1 < page.x1 + 2 and box.y1 < page.y1 + 2 for box in boxes
    )
    return inside and all(size.width > 40 and size.height > 10 for size in sizes)


def test_landmarks_are_drawn_with_their_residual(tmp_path):
    examples = examples_of(tmp_path, "not_deformed", "ours_10", shift=2.5)
    axis = figures.figure_overlays(examples, ROWS).axes[1]
    fixed = examples["ours_10"].fixed_landmarks[0]
    rings = axis.get_lines()[0].get_xydata()
    np.testing.assert_allclose(rings, fixed[:, ::-1], rtol=1e-6)
    (lines,) = [item for item in axis.collections if isinstance(item, LineCollection)]
    starts, ends = np.array(lines.get_segments()).transpose(1, 0, 2)
    np.testing.assert_allclose(starts, fixed[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(ends - starts, np.tile([0, -0.5], (3, 1)), atol=1e-5)
    assert axis.get_xlabel() == "0.50 px"


def test_without_not_deformed_a_column_shows_the_pair_before(tmp_path):
    examples = examples_of(tmp_path, "ours_10")
    axis = figures.figure_overlays(examples, ROWS).axes[0]
    pairs = examples["ours_10"]
    assert axis.get_title() == "Before"
    assert axis.get_xlabel() == "3.00 px"
    np.testing.assert_allclose(axis.get_images()[0].get_array(), overlay(pairs.moving[0], pairs.fixed[0]))


def test_many_methods_break_into_bands(tmp_path):
    methods = ["not_deformed", "affine", "transfer", "fine_tune_10", "ours_10", "elastix", "syn"]
    figure = figures.figure_overlays(examples_of(tmp_path, *methods, landmarks=0), ROWS)
    visible = [axis for axis in figure.axes if axis.get_visible()]
    assert len(visible) == 7 * 2
    titles = [axis.get_title() for axis in visible if axis.get_title()]
    assert titles == [
        "Not deformed",
        "Affine only",
        "Transfer",
        "Fine-tune (10)",
        "Ours (10)",
        "elastix B-spline",
        "ANTs SyN",
    ]
    assert not any(axis.get_xlabel() for axis in visible)


def curve_stages():
    return {
        "reptile": [training_line(1, -0.5)],
        "fine_tune_10": [
            evaluation_line(0, 0, 4.0, 0.3),
            training_line(3, 9.0),
            evaluation_line(6, 10, 2.0, 0.6),
        ],
        "ours_long": [
            evaluation_line(0, 0, 3.0, 0.5),
            evaluation_line(90, 100, 1.0, 0.8),
            evaluation_line(5, None, 9),
        ],
    }


def test_curves_draw_the_evaluation_lines(tmp_path):
    figure = figures.figure_curves(curve_stages(), COLOURS)
    drawn = [
        {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()} for axis in figure.axes
    ]
    assert [axis.get_title() for axis in figure.axes] == ["Landmark distance (px)", "NCC", "Loss"]
    assert drawn[0] == {"Fine-tune (10)": [[0, 4], [10, 2]], "Ours (long)": [[0, 3], [100, 1]]}
    assert drawn[1] == {"Fine-tune (10)": [[0, 0.3], [10, 0.6]], "Ours (long)": [[0, 0.5], [100, 0.8]]}
    assert drawn[2]["Ours (long)"] == [[0, -0.5], [100, -0.8]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Fine-tune (10)", "Ours (long)"]


def test_curves_without_distances_have_two_panels():
    stages = {"finetune": [evaluation_line(0, 0, None), evaluation_line(5, 1, None)]}
    figure = figures.figure_curves(stages, COLOURS)
    assert [axis.get_title() for axis in figure.axes] == ["NCC", "Loss"]


def test_training_draws_every_term_of_every_stage():
    stages = {
        "pretrain": [training_line(step, -0.5) for step in (10, 20, 30)],
        "empty": [evaluation_line(0, 0, 1.0)],
        "reptile": [training_line(5, -0.7)],
    }
    figure = figures.figure_training(stages)
    assert [axis.get_title() for axis in figure.axes] == ["Pretraining", "Meta-training (Reptile)", "", ""]
    total, _, similarity, _ = figure.axes[0].get_lines()
    np.testing.assert_allclose(total.get_xydata(), [[10, -0.5], [20, -0.5], [30, -0.5]])
    np.testing.assert_allclose(similarity.get_ydata(), -0.6)
    np.testing.assert_allclose(figure.axes[2].get_lines()[0].get_ydata(), 0.1)


def test_the_running_mean_is_centred_and_keeps_the_ends():
    values = np.zeros(40)
    values[0], values[20] = 6.0, 3.0
    mean = figures._running_mean(values)
    np.testing.assert_allclose(mean[[0, 1, 2, 19, 20, 21, 22]], [3, 2, 0, 1, 1, 1, 0])


def test_distances_draw_every_pair_at_its_value():
    figure = figures.figure_distances({"transfer": [3.0, 1.0, 2.0], "ours_10": [1.0, 1.5, 1.0]}, COLOURS)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["Transfer", "Ours (10)"]
    points = [item.get_offsets() for item in axis.collections if len(item.get_offsets()) == 3]
    assert [sorted(item[:, 0].tolist()) for item in points] == [[1, 2, 3], [1, 1, 1.5]]
    box = axis.patches[0]
    assert (box.get_x(), box.get_width()) == (1.5, 1.0)
    assert axis.get_xscale() == "linear"
    assert axis.get_xlim()[0] == 0


@pytest.mark.parametrize(("values", "scale"), [([0.5, 43.0], "log"), ([0.0, 43.0], "linear")])
def test_a_wide_range_of_distances_takes_a_log_axis(values, scale):
    assert figures.figure_distances({"transfer": values}, COLOURS).axes[0].get_xscale() == scale


def test_the_field_draws_where_the_grid_samples(tmp_path):
    examples = examples_of(tmp_path, "ours_10", shift=2.0)["ours_10"]
    axes = figures.figure_field(examples).axes
    lines = axes[0].collections[0].get_segments()
    np.testing.assert_allclose(lines[0], np.stack([np.arange(SIZE), np.full(SIZE, 2.0)], axis=-1))
    np.testing.assert_allclose(axes[3].get_images()[0].get_array(), 2.0)


def test_the_field_is_of_the_projects_own_method_if_it_deforms(tmp_path):
    examples = examples_of(tmp_path, "transfer", "ours_10", "syn")
    results = read_results(tmp_path)
    assert figures.field_method(results, examples) == "ours_10"
    del examples["ours_10"]
    assert figures.field_method(results, examples) == "syn"
    assert figures.field_method(results, {}) == ""


def test_a_method_has_one_colour_in_every_figure():
    box = figures.figure_distances({"ours_long": [1.0, 2.0]}, COLOURS).axes[0].patches[0]
    curves = figures.figure_curves(curve_stages(), COLOURS).axes[0].get_lines()
    shots = figures.figure_shots([ShotPoint("ours", 2, 1.0, None, ())]).axes[0].get_lines()
    drawn = [line.get_color() for line in (*curves, *shots) if line.get_label() in ("Ours (long)", "Ours")]
    assert [to_hex(box.get_edgecolor()), *drawn] == [COLOURS["ours_long"]] * 3


def test_a_saved_figure_is_a_png_with_the_same_bytes_each_time(tmp_path):
    paths = [
        figures.save_figure(
            figures.figure_distances({"transfer": [1.0, 2.0]}, COLOURS), tmp_path / "figures" / name
        )
        for name in ("a.png", "b.png")
    ]
    content = paths[0].read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content == paths[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["a.png", "b.png"]


def test_the_report_needs_neither_tensorflow_nor_pyplot():
    heavy = "{'tensorflow', 'matplotlib.pyplot'}"
    code = f"import sys, tfmetareg.report.page; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_curves_of_several_seeds_have_a_band_between_their_extremes():
    lines = [
        {
            **evaluation_line(epoch, epoch, 3.0 - epoch),
            "test/distance_px/low": 2.5 - epoch,
            "test/distance_px/high": 3.25 - epoch,
        }
        for epoch in range(3)
    ]
    distance, ncc, _ = figures.figure_curves({"ours_10": lines}, COLOURS).axes
    (band,) = distance.collections
    corners = {tuple(corner) for path in band.get_paths() for corner in path.vertices.tolist()}
    assert {(0, 2.5), (0, 3.25), (2, 0.5), (2, 1.25)} <= corners
    assert not ncc.collections


def test_shots_are_a_curve_per_start_over_the_number_of_pairs():
    points = [ShotPoint("ours", pairs, 2.0 / pairs, 0.5, ()) for pairs in (2, 5, 294)]
    points.append(ShotPoint("scratch", 5, 3.0, 0.5, ()))
    (axis,) = figures.figure_shots(points).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert drawn == {"Ours": [[2, 1], [5, 0.4], [294, 2.0 / 294]], "From scratch": [[5, 3.0]]}
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2", "5", "294"]


@pytest.mark.parametrize("shape", [(30, 50), (1500, 900)])
def test_grid_lines_are_where_the_displacement_carries_the_grid(shape):
    rng = np.random.default_rng(0)
    displacement = rng.normal(size=(*shape, 2))
    lines = figures.grid_lines(displacement)
    spacing = min(shape) // 20
    row, column = spacing // 2, spacing // 2
    first, down = lines[0], lines[len(range(row, shape[0], spacing))]
    assert len(first) == min(shape[1], 400) and len(down) == min(shape[0], 400)
    for place in (0, -1):
        x = place % shape[1]
        np.testing.assert_allclose(first[place], displacement[row, x][::-1] + [x, row])
        y = place % shape[0]
        np.testing.assert_allclose(down[place], displacement[y, column][::-1] + [column, y])
