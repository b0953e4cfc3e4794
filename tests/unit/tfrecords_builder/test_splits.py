from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmetareg.errors import UserError
from tfrecords_builder.splits import Member, SplitFile, assign_splits, read_splits, subjects_by_image


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


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), min_size=1, max_size=20),
    seed=st.integers(0, 5),
    fraction=st.floats(0.01, 0.9),
)
def test_pairs_that_share_an_image_are_never_divided(pairs, seed, fraction):
    subjects = subjects_by_image(pairs)
    found = [Member(str(number), subjects[one], None) for number, (one, _) in enumerate(pairs)]
    splits = assign_splits(found, "target", test_fraction=fraction, seed=seed)
    homes = {}
    for number, pair in enumerate(pairs):
        for image in pair:
            assert homes.setdefault(image, splits[str(number)]) == splits[str(number)]


def write(path, text):
    path.write_text(text)
    return path


@given(
    subjects=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40),
    chosen=st.dictionaries(st.sampled_from("abcdefghij"), st.sampled_from(["finetune", "test"])),
)
def test_a_file_decides_by_subject_and_divides_none(subjects, chosen):
    file = SplitFile(Path("splits.csv"), "subject", chosen)
    missing = {*subjects} - {*chosen}
    if missing:
        with pytest.raises(UserError, match="splits.csv: no line for subject"):
            file.prescribe(members(*subjects))
        return
    splits = assign_splits(file.prescribe(members(*subjects)), "target")
    assert splits == {f"p{index}": chosen[subject] for index, subject in enumerate(subjects)}


def test_a_file_by_key_overrules_the_source(tmp_path):
    path = write(tmp_path / "s.csv", "split;key\r\ntest;p0\r\n Train ;p1\r\n")
    file = read_splits(path)
    given_members = file.prescribe(members("a", "b", splits=["train", "test"]))
    assert assign_splits(given_members, "source") == {"p0": "test", "p1": "train"}
    file.check_used(given_members)
    with pytest.raises(UserError, match="the input has no key `p1`"):
        file.check_used(given_members[:1])


def test_a_file_cannot_divide_a_subject(tmp_path):
    file = read_splits(write(tmp_path / "s.csv", "key,split\np0,test\np1,train\n"))
    with pytest.raises(UserError, match="subject a is in two splits, test and train"):
        assign_splits(file.prescribe(members("a", "a")), "source")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("subject,split\n", ["no splits; add a line"]),
        ("split,split2\n", ["first line must be"]),
        ("subject,key,split\na,b,test\n", ["first line must be"]),
        ("subject,split\na,\n,test\n", ["line 2: split must be", "line 3: `subject` is empty"]),
        ("subject,split\na,test\na,train\n", ["line 3: subject `a` is in test already"]),
    ],
)
def test_wrong_split_files(tmp_path, text, rules):
    with pytest.raises(UserError) as error:
        read_splits(write(tmp_path / "s.csv", text))
    lines = str(error.value).splitlines()
    assert len(lines) == len(rules)
    assert all(rule in line for rule, line in zip(rules, lines))
