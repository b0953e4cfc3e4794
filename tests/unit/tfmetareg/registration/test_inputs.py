"""What the results of a pair are called."""

from __future__ import annotations

from pathlib import Path

from tfmetareg.registration.inputs import find_pairs


def names(folder: Path, *pairs: tuple[str, str]) -> list[str]:
    rows = "".join(f"{moving},{fixed}\n" for moving, fixed in pairs)
    (folder / "pairs.csv").write_text(f"moving,fixed\n{rows}")
    return [pair.name for pair in find_pairs(pairs=str(folder))]


def test_no_two_pairs_have_the_same_name(tmp_path):
    pairs = ("a/x.png", "f.png"), ("b/x.png", "f.png"), ("x.png", "f_2.png"), ("c/x.png", "f.png")
    assert names(tmp_path, *pairs) == ["x-to-f", "x-to-f_3", "x-to-f_2", "x-to-f_4"]


def test_long_names_are_shortened_and_told_apart(tmp_path):
    found = names(tmp_path, ("ä" * 120 + ".png", "b.png"), ("ä" * 121 + ".png", "b.png"))
    assert len({*found}) == 2
    assert max(len(f".{name}.12345678.tmp".encode()) for name in found) < 255
