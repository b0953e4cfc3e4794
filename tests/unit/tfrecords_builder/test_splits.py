from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmetareg.errors import UserError
from tfrecords_builder.splits import (
    PairInfo,
    SplitFile,
    assign_splits,
    held_out_subjects,
    read_splits,
    subjects_by_image,
)


def members(*subjects, splits=None):
    splits = splits or [None] * len(subjects)
    return [
        PairInfo(f"p{index}", subject, split) for index, (subject, split) in enumerate(zip(subjects, splits))
    ]


def split(pairs, role, **draw):
    """Of the only task of a build."""
    return assign_splits(pairs, role, held_out_subjects([pairs], **draw))


@settings(deadline=None)
@given(
    subjects=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40),
    seed=st.integers(0, 5),
    fraction=st.floats(0.01, 0.9),
)
def test_a_subject_is_never_divided(subjects, seed, fraction):
    pairs = members(*subjects)
    splits = split(pairs, "source", test_fraction=fraction, seed=seed)
    assert set(splits) == {pair.key for pair in pairs}
    homes = {subject: {splits[pair.key] for pair in pairs if pair.subject == subject} for subject in subjects}
    assert all(len(home) == 1 for home in homes.values())
    held_out = sum(home == {"test"} for home in homes.values())
    if len(homes) == 1:
        assert held_out == 0
    else:
        assert held_out == min(max(1, round(fraction * len(homes))), len(homes) - 1)


@settings(deadline=None)
@given(
    tasks=st.lists(st.sets(st.sampled_from("abcdefghij"), min_size=1), min_size=1, max_size=4),
    seed=st.integers(0, 5),
    fraction=st.floats(0.01, 0.9),
)
def test_a_subject_of_two_tasks_is_held_out_in_both_or_in_none(tasks, seed, fraction):
    builds = [members(*sorted(subjects)) for subjects in tasks]
    held_out = held_out_subjects(builds, test_fraction=fraction, seed=seed)
    for subjects, pairs in zip(tasks, builds):
        splits = assign_splits(pairs, "source", held_out)
        assert {pair.subject for pair in pairs if splits[pair.key] == "test"} == held_out & subjects
        assert "train" in splits.values()
        alone = held_out_subjects([pairs], test_fraction=fraction, seed=seed)
        if all(other == subjects or not other & subjects for other in tasks):
            assert held_out & subjects == alone


def test_what_is_held_out_where_tasks_overlap():
    """Each task of a chain has something to test on; a subject that is all of a task stays to learn from."""
    chain = [members(*"abc"), members(*"cde"), members(*"efg")]
    for seed in range(20):
        held_out = held_out_subjects(chain, seed=seed)
        assert all(any(pair.subject in held_out for pair in pairs) for pairs in chain)
        assert held_out_subjects([members("a"), members(*"ab")], seed=seed) == {"b"}


def test_the_subjects_held_out_are_those_of_earlier_versions():
    """Records of one task, and of several of the same subjects, are made as before."""
    pairs = members(*(f"eye{number}" for number in range(12)))
    assert held_out_subjects([pairs, pairs]) == {"eye2", "eye3"}


def test_roles_name_the_learning_split():
    pairs = members(*"abcdefghij")
    assert sorted(split(pairs, "source").values()) == ["test"] * 2 + ["train"] * 8
    assert sorted(split(pairs, "target").values()) == ["finetune"] * 8 + ["test"] * 2


def test_seed_decides_and_order_does_not():
    pairs = members(*"abcdefghij")
    first = split(pairs, "source", seed=1)
    assert split(pairs[::-1], "source", seed=1) == first
    assert any(split(pairs, "source", seed=seed) != first for seed in range(2, 6))


def test_nothing_held_out_on_request():
    assert set(split(members(*"abc"), "source", test_fraction=0).values()) == {"train"}


def test_the_sources_split_holds():
    pairs = members("a", "b", "a", splits=["test", "finetune", "test"])
    assert split(pairs, "target") == {"p0": "test", "p1": "finetune", "p2": "test"}


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
        split(members(*subjects, splits=splits), role)
    lines = str(error.value).split("\n")
    assert len(lines) == len(rules)
    for rule in rules:
        with pytest.raises(UserError, match=rule):
            raise error.value


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), min_size=1, max_size=20),
    seed=st.integers(0, 5),
    fraction=st.floats(0.01, 0.9),
)
def test_pairs_that_share_an_image_are_never_divided(pairs, seed, fraction):
    subjects = subjects_by_image(pairs)
    found = [PairInfo(str(number), subjects[one], None) for number, (one, _) in enumerate(pairs)]
    splits = split(found, "target", test_fraction=fraction, seed=seed)
    homes = {}
    for number, pair in enumerate(pairs):
        for image in pair:
            assert homes.setdefault(image, splits[str(number)]) == splits[str(number)]


def write(path, text):
    path.write_text(text)
    return path


@settings(deadline=None)
@given(
    subjects=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40),
    chosen=st.dictionaries(st.sampled_from("abcdefghij"), st.sampled_from(["finetune", "test"])),
)
def test_a_file_decides_by_subject_and_divides_none(subjects, chosen):
    file = SplitFile(Path("splits.csv"), "subject", chosen)
    if {*subjects} - {*chosen}:
        with pytest.raises(UserError, match="splits.csv: no line for subject"):
            file.check_complete(members(*subjects))
    else:
        file.check_complete(members(*subjects))
    splits = split(file.prescribe(members(*subjects)), "target")
    assert splits == {
        f"p{index}": chosen[subject] for index, subject in enumerate(subjects) if subject in chosen
    }


def test_many_names_are_not_all_listed():
    file = SplitFile(Path("splits.csv"), "subject", {f"eye{number}": "test" for number in range(23)})
    with pytest.raises(UserError) as error:
        file.check_used(members("eye0"))
    assert str(error.value).count("`eye") == 20
    assert "`eye20` and 2 more; correct" in str(error.value)


def test_a_file_by_key_overrules_the_source(tmp_path):
    path = write(tmp_path / "s.csv", "split;key\r\ntest;p0\r\n Train ;p1\r\n")
    file = read_splits(path)
    given_members = file.prescribe(members("a", "b", splits=["train", "test"]))
    assert split(given_members, "source") == {"p0": "test", "p1": "train"}
    file.check_used(given_members)
    with pytest.raises(UserError, match="the input has no key `p1`"):
        file.check_used(given_members[:1])


def test_a_file_cannot_divide_a_subject(tmp_path):
    file = read_splits(write(tmp_path / "s.csv", "key,split\np0,test\np1,train\n"))
    with pytest.raises(UserError, match="subject a is in two splits, test and train"):
        split(file.prescribe(members("a", "a")), "source")


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
