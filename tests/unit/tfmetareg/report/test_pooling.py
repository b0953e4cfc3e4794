"""Several seeds' results as one."""

from __future__ import annotations

import json

import pytest

from tests.unit.tfmetareg.report.workdirs import (
    evaluation_line,
    write_metrics,
    write_result,
)
from tfmetareg.errors import UserError
from tfmetareg.report.curves import epochs_until, mean_curves, read_seed_stages
from tfmetareg.report.page import write_report
from tfmetareg.report.pictures import draw_pictures
from tfmetareg.report.pooling import pool_results
from tfmetareg.report.results import read_examples, read_results, read_scores
from tfmetareg.report.tables import build_table, to_markdown


@pytest.fixture
def seeds(tmp_path):
    """Two seeds of one method: distances 1.5, 2.5 and 3.5, 4.5; a curve each."""
    folders = [tmp_path / f"seed-{seed}" for seed in (0, 4)]
    for number, folder in enumerate(folders):
        write_result(folder, "ours_10", distance=2.0 + 2 * number, seed=4 * number, epochs=10)
        curve = [evaluation_line(0, 0, 6.0), evaluation_line(4, 10, 2.0 + 2 * number)]
        write_metrics(folder, "ours_10", curve)
    return folders


def test_the_pooled_result_is_over_seeds_and_pairs(seeds, tmp_path):
    pool_results(seeds, tmp_path)
    record = json.loads((tmp_path / "results" / "ours_10.json").read_text())
    assert record["distance_px"]["mean"] == 3.0
    assert record["distance_px"]["std"] == pytest.approx(5**0.5 / 2)  # of 1.5, 2.5, 3.5, 4.5
    assert record["distance_px"]["before_mean"] == 6.0 and record["distance_px"]["landmarks"] == 6
    assert (record["seed"], record["seeds"], record["pairs"]) == (None, [0, 4], 2)
    assert record["over_seeds"]["distance_px"] == {"means": [2.0, 4.0], "std": 1.0}
    (result,) = read_results(tmp_path)
    assert [score.distance_px for score in read_scores(result)] == [2.5, 3.5]
    assert result.seed_distances == (2.0, 4.0)
    assert read_examples(result).keys == ("pair0", "pair1")


def test_a_method_that_a_seed_lacks_is_not_pooled(seeds, tmp_path):
    write_result(tmp_path, "transfer", over_seeds={}, seeds=[0, 4])  # of an earlier call
    write_result(seeds[0], "transfer")
    pool_results(seeds, tmp_path)
    assert [result.method for result in read_results(tmp_path)] == ["ours_10"]


def test_seeds_of_different_pairs_are_refused(seeds, tmp_path):
    path = seeds[1] / "results" / "ours_10.csv"
    path.write_text(path.read_text().replace("pair1", "pair7"))
    with pytest.raises(UserError, match="different pairs"):
        pool_results(seeds, tmp_path)


def test_the_time_of_the_alignment_is_kept_apart(seeds, tmp_path):
    for seconds, folder in zip((1.0, 3.0), seeds):
        times = {"median": seconds, "alignment_median": seconds / 2}
        write_result(folder, "ours_10", seconds_per_pair=times)
    pool_results(seeds, tmp_path)
    (result,) = read_results(tmp_path)
    assert (result.seconds_per_pair, result.seconds_alignment) == (2.0, 1.0)
    assert "| ms/pair | of it alignment |\n" in to_markdown(build_table([result]))


def test_figures_of_one_seed_say_so(seeds, tmp_path):
    pool_results(seeds, tmp_path)
    pictures = draw_pictures(tmp_path, read_results(tmp_path))
    shown = {picture.title: picture.text for picture in pictures.images}
    said = {title for title, text in shown.items() if "Of the first seed, 0." in text}
    assert {"The same pairs by every method", "Deformation of one pair"} <= said
    assert "Of the first seed, 0." in pictures.pairs_text
    assert "Fine-tuning curves" not in said


def test_the_curves_are_means_with_a_band(seeds, tmp_path):
    pool_results(seeds, tmp_path)
    stages = read_seed_stages(tmp_path, read_results(tmp_path))
    (line, last) = mean_curves(stages)["ours_10"]
    assert (line["epoch"], line["test/distance_px"]) == (0, 6.0)
    assert (last["epoch"], last["test/distance_px"]) == (10, 3.0)
    assert (last["test/distance_px/low"], last["test/distance_px/high"]) == (2.0, 4.0)
    write_report(tmp_path)
    assert (tmp_path / "figures" / "curves.png").is_file()


def test_how_soon_one_curve_reaches_the_others_end():
    def curve(*distances):
        return [evaluation_line(epoch, epoch, distance) for epoch, distance in enumerate(distances)]

    one, other = curve(5.0, 2.0, 2.5, 2.0, 1.0), curve(6.0, 1.9, 2.1, 3.0, 2.0, 1.5, 2.0)
    # From then on each stays there; that it was there before and left again does not count.
    assert epochs_until({"a": one, "b": other}, "a", "b") == (3.0, 4.0)
    assert epochs_until({"a": one[:3], "b": other}, "a", "b") == (float("inf"), 4.0)
    assert epochs_until({"a": one}, "a", "b") is None
