"""The table of methods, and that everything else is read from it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from skimage.color import rgb2lab

from tfmetareg.command_line import parse_command
from tfmetareg.config import MODES, RESERVED_NAMES, Config, EvaluateOptions, FinetuneOptions
from tfmetareg.errors import UserError
from tfmetareg.evaluation.peers import PEERS
from tfmetareg.methods import (
    METHOD_NAMES,
    METHODS,
    SCRATCH,
    STAGE_LABELS,
    STARTS,
    UNTRAINED,
    colours,
    definition,
    label,
    method_named,
)


def test_the_rows_are_those_of_the_result_files():
    assert METHOD_NAMES == (
        "not_deformed",
        "affine",
        "model_seen",
        "model_unseen",
        "transfer",
        "fine_tune_10",
        "fine_tune_long",
        "ours_10",
        "ours_long",
        "ours_pair",
        "matched",
        "matched_10",
        "matched_long",
        "elastix",
        "syn",
    )
    assert len(set(METHOD_NAMES)) == len({method.label for method in METHODS}) == len(METHODS)


def test_every_row_has_a_label_a_sentence_and_a_colour():
    for method in METHODS:
        assert label(method.name) == method.label != method.name
        assert definition(method.name) == method.definition and method.definition.endswith(".")
        assert colours([method.name]) == {method.name: method.colour}


def test_colours_tell_all_methods_and_stages_apart():
    own = [f"mine_{number}" for number in range(6)]
    names = [name for name in (*METHOD_NAMES, *STAGE_LABELS, *own) if name != "pretrain"]
    found = colours(names)
    assert list(found) == names and all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in found.values())
    hexadecimal = [[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in found.values()]
    perceived = rgb2lab(np.array([hexadecimal]))[0]
    apart = np.linalg.norm(perceived[:, None] - perceived, axis=-1)
    assert apart[~np.eye(len(names), dtype=bool)].min() > 15  # 2.3 are just noticeable.
    # The weights of one stage are this row.
    assert colours(["pretrain"])["pretrain"] == found["transfer"]


def test_a_result_has_one_colour_whatever_stands_beside_it_in_a_figure():
    everything = ["ours_long", "mine", "another", "syn"]
    assert colours(reversed(everything)) == colours(everything)
    assert colours(["ours-5", "ours_long"])["ours-5"] == colours(everything)["ours_long"]


def test_the_weights_of_a_row_are_those_of_its_own_stage_or_of_a_mode():
    weights = {method.name: method.weights for method in METHODS if method.weights != method.name}
    assert weights == {"not_deformed": "none", "transfer": "pretrain", "ours_pair": "reptile"}


def test_only_a_row_that_is_fine_tuned_has_a_start_and_a_length():
    fine_tuned = {method.name: (method.start, method.length) for method in METHODS if method.start}
    assert fine_tuned == {
        "fine_tune_10": ("pretrain", "short"),
        "fine_tune_long": ("pretrain", "long"),
        "ours_10": ("reptile", "short"),
        "ours_long": ("reptile", "long"),
        "matched_10": ("matched", "short"),
        "matched_long": ("matched", "long"),
    }
    assert not [method for method in METHODS if method.length and not method.start]
    assert {start.stage for start in STARTS} == {start for start, _ in fine_tuned.values()} | {SCRATCH}


def test_rows_without_a_network_are_the_images_the_alignment_and_the_peers():
    assert {word: method.name for word, method in UNTRAINED.items()} == {
        "none": "not_deformed",
        "affine": "affine",
        **{peer: peer for peer in PEERS},
    }
    assert [method.name for method in METHODS if method.optional] == ["affine", *PEERS]


def test_results_with_few_pairs_are_labelled_by_their_start():
    assert label("scratch-2") == "From scratch (2 pairs)"
    assert label("fine_tune-10") == "Fine-tune (10 pairs)"
    assert label("mine") == label("mine") == "mine"
    assert definition("finetune") == "The weights of the stage `finetune` of this work directory."
    assert definition("mine") == "A result under a name given by the user."
    assert method_named("mine") is None


def test_reproduce_makes_all_rows_unless_told_otherwise():
    assert Config().reproduce.rows == list(METHOD_NAMES)


@pytest.mark.parametrize("row", METHOD_NAMES)
def test_every_row_is_a_choice_of_the_command_line(row):
    assert parse_command(["--mode=reproduce", f"--reproduce.rows=[{row}]"]).config.reproduce.rows == [row]


def test_no_fine_tuning_stage_takes_a_name_with_a_meaning():
    assert {"pretrain", "reptile", SCRATCH, "start", "shots", *UNTRAINED} <= set(RESERVED_NAMES)
    for name in RESERVED_NAMES:
        with pytest.raises(UserError, match="`finetune.name` must not be one of pretrain"):
            parse_command(["--mode=finetune", f"--finetune.name={name}"])
    assert FinetuneOptions().name == EvaluateOptions().weights == "finetune" in STAGE_LABELS
    assert set(STAGE_LABELS) <= set(MODES)
