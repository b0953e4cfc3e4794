from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmetareg.errors import UserError
from tfrecords_builder.splits import Member, assign_splits


def members(*subjects, splits=None):
    splits = splits or [None] * len(subjects)
    return [
        Member(f"p{index}", subject, split) for index, (subject, split) in enumerate(zip(subjects, splits))
    ]


@given(
    subjects=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40),
    seed=st.integers(0, 5),
    fraction=st.floats(0.01, 0.9),
)
def test_a_subject_is_never_divided(subjects, seed, fraction):
    pairs = members(*subjects)
    splits = assign_splits(pairs, "source", test_fraction=fraction, seed=seed)
    assert set(splits) == {pair.key for pair in pairs}
    homes = {subject: {splits[pair.key] for pair in pairs if pair.subject == subject} for subject in subjects}
    assert all(len(home) == 1 for home in homes.values())
    held_out = sum(home == {"test"} for home in homes.values())
    if len(homes) == 1:
        assert held_out == 0
    else:
        assert held_out == min(max(1, round(fraction * len(homes))), len(homes) - 1)


def test_roles_name_the_learning_split():
    pairs = members(*"abcdefghij")
    assert sorted(assign_splits(pairs, "source").values()) == ["test"] * 2 + ["train"] * 8
    assert sorted(assign_splits(pairs, "target").values()) == ["finetune"] * 8 + ["test"] * 2


def test_seed_decides_and_order_does_not():
    pairs = members(*"abcdefghij")
    first = assign_splits(pairs, "source", seed=1)
    assert assign_splits(pairs[::-1], "source", seed=1) == first
    assert any(assign_splits(pairs, "source", seed=seed) != first for seed in range(2, 6))


def test_nothing_held_out_on_request():
    assert set(assign_splits(members(*"abc"), "source", test_fraction=0).values()) == {"train"}


def test_the_sources_split_holds():
    pairs = members("a", "b", "a", splits=["test", "finetune", "test"])
    assert assign_splits(pairs, "target") == {"p0": "test", "p1": "finetune", "p2": "test"}


@pytest.mark.parametrize(
    ("role", "subjects", "splits", "rules"),
    [
        (
            "source",
            "ab",
            ["train", "val"],
            ["pair p1: split of a source task must be train or test, got `val`"],
        ),
        ("source", "abc", ["finetune", "finetune", "test"], ["p0 and 1 more.*got `finetune`.*--role target"]),
        ("target", "ab", ["train", "test"], ["got `train`.*--role source"]),
        ("source", "ab", ["train", None], ["pair p1: no split"]),
        ("source", "aab", ["train", "test", "x"], ["subject a is in two splits, test and train", "got `x`"]),
    ],
)
def test_wrong_splits_are_all_named(role, subjects, splits, rules):
    with pytest.raises(UserError) as error:
        assign_splits(members(*subjects, splits=splits), role)
    lines = str(error.value).split("\n")
    assert len(lines) == len(rules)
    for rule in rules:
        with pytest.raises(UserError, match=rule):
            raise error.value
