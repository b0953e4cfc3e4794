"""Files whose names are spelled otherwise in a table than on disk."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmetareg.errors import UserError
from tfmetareg.imaging.names import name_on_disk, why_missing
from tfmetareg.imaging.read import open_image

FORMS = ("NFC", "NFD", "NFKD")
# Letters with marks, Korean syllables, and two signs that only one form has: they must not be mixed up.
LETTERS = st.text(st.sampled_from("aéüñçǖ각조Åß"), min_size=1, max_size=6)


def spelled(name: str, form: str) -> str:
    return unicodedata.normalize(form, name)


@settings(max_examples=50, deadline=None)
@given(st.lists(LETTERS, min_size=1, max_size=3), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_a_file_is_found_whatever_unicode_form_the_table_has_it_in(tmp_path_factory, parts, there, written):
    folder = tmp_path_factory.mktemp("names")
    stored = "/".join(spelled(part, there) for part in parts) + ".nii"
    (folder / stored).parent.mkdir(parents=True, exist_ok=True)
    (folder / stored).write_text("volume")
    (folder / "other.nii").write_text("another")
    name = "/".join(spelled(part, written) for part in parts) + ".nii"
    for separator in "/\\":
        for place in ("", "#3", "#3,1"):
            assert name_on_disk(folder, name.replace("/", separator) + place) == stored + place


def test_a_name_that_is_there_is_left_as_it_is(tmp_path):
    """Also where another file has the same name in the other form, or with a slash."""
    (tmp_path / "a").mkdir()
    for name in (spelled("ü.png", "NFC"), spelled("ü.png", "NFD"), "a\\b.png", "a/b.png", "x#1.nii"):
        (tmp_path / name).touch()
        assert name_on_disk(tmp_path, name) == name
    assert name_on_disk(tmp_path, "./a/../a/b.png") == "./a/../a/b.png"
    assert name_on_disk(Path("/nowhere"), str(tmp_path / "a")) == str(tmp_path / "a")


@pytest.mark.parametrize("name", ["", "none.png", "a\\none.png", "a/b/c.png", "#", "file.png/more"])
def test_a_name_that_nothing_has_is_left_as_it_is(tmp_path, name):
    (tmp_path / "file.png").touch()
    assert name_on_disk(tmp_path, name) == name


def test_files_that_came_meanwhile_are_found(tmp_path):
    for letter in "äöü":
        assert name_on_disk(tmp_path, spelled(letter, "NFC")) == spelled(letter, "NFC")
        (tmp_path / spelled(letter, "NFD")).touch()
        os.utime(tmp_path, ns=(0, hash(letter) % 10**18))
        assert name_on_disk(tmp_path, spelled(letter, "NFC")) == spelled(letter, "NFD")


@pytest.mark.parametrize(
    ("there", "wanted", "said"),
    [
        ("A.PNG", "a.png", "but there is `A.PNG`: case and spaces count"),
        ("eye 1.png", "eye1.png", "but there is `eye 1.png`: case and spaces count"),
        ("10\u202f30.png", "10 30.png", "case and spaces count"),  # As macOS names screenshots.
        ("b.png", "a.png", "put it there, or correct its name"),
    ],
)
def test_a_missing_file_is_told_with_the_one_that_was_meant(tmp_path, there, wanted, said):
    (tmp_path / there).touch()
    line = why_missing(tmp_path / wanted)
    assert line.startswith("no such file") and said in line and "\n" not in line


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "mac_roman"])
def test_a_name_in_a_foreign_encoding_is_told(tmp_path, encoding):
    """As unpacked from an archive of Windows; the file system is handed bytes."""
    raw = os.fsencode(tmp_path) + b"/" + "Müller.png".encode(encoding)
    Path(os.fsdecode(raw)).touch()
    assert f"in the encoding {encoding}" in why_missing(tmp_path / "Müller.png")
    assert "encoding" not in why_missing(tmp_path / "Möller.png")


def test_a_missing_folder_is_no_reason_to_fail(tmp_path):
    assert why_missing(tmp_path / "none" / "a.png").startswith("no such file; put it there")


def test_a_name_in_another_form_is_told_where_it_is_not_looked_up(tmp_path):
    (tmp_path / spelled("Müller.png", "NFD")).touch()
    with pytest.raises(UserError, match="no such file, but there is `Mu.*: the Unicode form of names counts"):
        open_image(tmp_path / spelled("Müller.png", "NFC"))
