"""Which pairs the report shows, and what it says of their images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.tfmetareg.report.test_pair_scores import score
from tests.unit.tfmetareg.report.workdirs import write_result
from tfmetareg.report.pictures import chosen_comparison, chosen_pairs, draw_pictures
from tfmetareg.report.results import PairImages, read_examples, read_results

SCORES = [score(f"p{place}", float(place), before=20.0 - place) for place in range(9)]


def test_the_worst_the_median_and_the_best_pair_are_chosen():
    keys = [one.key for one in SCORES]
    assert chosen_pairs(SCORES, keys, "after") == {"p8": "Worst", "p4": "Median", "p0": "Best"}
    assert chosen_pairs(SCORES, keys, "before") == {"p0": "Worst", "p4": "Median", "p8": "Best"}


def test_without_a_picture_of_theirs_the_nearest_pairs_tell_their_rank():
    assert chosen_pairs(SCORES, ["p7", "p3", "gone"], "after") == {"p7": "Rank 2", "p3": "Rank 6"}
    assert chosen_pairs(SCORES[:2], ["p0", "p1"], "after") == {"p1": "Worst", "p0": "Best"}
    assert chosen_pairs([], ["a", "b", "c", "d"], "after") == {"a": "", "b": "", "c": ""}


def examples(tmp_path, **changes):
    write_result(tmp_path, "ours_10")
    (result,) = read_results(tmp_path)
    return dataclasses.replace(read_examples(result), **changes)


def test_the_user_chooses_the_picture(tmp_path):
    pairs = examples(tmp_path)
    alike = dataclasses.replace(pairs, warped=pairs.fixed)
    assert chosen_comparison({"ours_10": alike}) == "overlay"
    assert chosen_comparison({"ours_10": pairs}) == "checkerboard"  # Noise agrees with nothing.
    chosen = dataclasses.replace(pairs, comparison="overlay")
    assert chosen_comparison({"ours_10": chosen}) == "overlay"


@pytest.mark.parametrize(
    ("intensity", "said"),
    [
        ("equalize", "as the records hold them, their histogram equalised; evaluated with --evaluate.images"),
        ("percentile", "as the records hold them, their grey values scaled linearly."),
        ("", "The images are as the records hold them."),
    ],
)
def test_the_caption_says_what_images_these_are(tmp_path, intensity, said):
    write_result(tmp_path, "ours_10")
    path = tmp_path / "results" / "ours_10.examples.npz"
    arrays = dict(np.load(path))
    np.savez(path, **arrays, intensity=intensity)
    pictures = draw_pictures(tmp_path, read_results(tmp_path))
    assert said in pictures.pairs_text and said in pictures.images[0].text
    for index in range(2):
        for name in PairImages._fields:
            arrays[f"original_{name}_{index}"] = np.zeros((32, 32, 3), np.uint8)
    np.savez(path, **arrays, intensity=intensity)
    text = draw_pictures(tmp_path, read_results(tmp_path)).pairs_text
    assert text.endswith("The images are the originals, brought to the records' size.")
