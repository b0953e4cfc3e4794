"""Digests of values, and files that are kept while the values stay."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfmetareg.cache import as_json, differing_names, digest, is_current, keep_arrays, text_digest


def test_digests_are_those_of_earlier_versions():
    """Computed with hashlib by hand: files in work directories hold them."""
    values = {"b": [1, 2.5], "a": None}
    assert digest(values) == "6b1d84977084473f"
    assert digest(values, sort_keys=False, length=8) == "44c4247f"
    assert text_digest("rigid 1a 2b", length=16) == "5dfa9c1df843c177"


def test_the_order_of_keys_counts_only_if_asked():
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert digest(one) == digest(other)
    assert digest(one, sort_keys=False) != digest(other, sort_keys=False)


def test_differing_names_take_tuples_for_lists_and_ignore_further_names():
    kept = {"shape": [64, 64], "seed": 0, "time": "now"}
    assert differing_names(kept, {"shape": (64, 64), "seed": 0}) == []
    assert differing_names(kept, {"shape": (64, 32), "steps": 3, "seed": 0}) == ["shape", "steps"]
    assert differing_names(None, {"seed": 0}) == ["seed"]
    assert as_json({"shape": (64, 64)}) == {"shape": [64, 64]}


def test_a_json_file_is_current_while_its_digest_stays(tmp_path):
    path = tmp_path / "row.json"
    assert not is_current(path, "abc")
    path.write_text(json.dumps({"depends_on": "abc"}))
    assert is_current(path, "abc") and not is_current(path, "abd")
    path.write_text(json.dumps({"mean": 1}))
    assert not is_current(path, "abc")


@pytest.fixture
def counted():
    """A function that makes arrays and counts its calls."""

    def make():
        make.calls += 1
        return {"shifts": np.full((2, 3), make.calls, np.float32)}

    make.calls = 0
    return make


def test_arrays_are_made_once_and_again_for_other_values(tmp_path, counted):
    path = tmp_path / "results" / "shifts.npz"
    first = keep_arrays(path, "abc", counted)
    second = keep_arrays(path, "abc", counted)
    assert counted.calls == 1 and list(second) == ["shifts"]
    np.testing.assert_array_equal(first["shifts"], second["shifts"])
    assert second["shifts"].dtype == np.float32
    assert keep_arrays(path, "abd", counted)["shifts"][0, 0] == 2
    with np.load(path) as kept:
        assert str(kept["depends_on"]) == "abd"


def test_nothing_is_kept_where_the_arrays_cannot_be_made(tmp_path):
    def fail():
        raise ValueError("no arrays")

    with pytest.raises(ValueError, match="no arrays"):
        keep_arrays(tmp_path / "shifts.npz", "abc", fail)
    assert list(tmp_path.iterdir()) == []
