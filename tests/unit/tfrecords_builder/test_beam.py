from __future__ import annotations

import sys

import pytest


def command(folder, output, *more):
    words = ["build", "--source", "pairs", "--input", folder, "--output", output, "--image-size", 32, 32]
    return [*words, *more]


def many(pairs_folder):
    """18 pairs: three batches."""
    names = [row[:2] for row in pairs_folder.rows]
    pairs_folder.columns = ["moving", "fixed", "split"]
    pairs_folder.rows = [
        [names[row][0], names[column][1], "train"] for row in range(6) for column in range(3)
    ]
    return pairs_folder.table()


def test_beam_gives_the_records_of_a_local_build(pairs_folder, run, tmp_path, listing):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    root = many(pairs_folder)
    assert run(*command(root, tmp_path / "local"))[0] == 0
    beam = command(root, tmp_path / "beam", "--engine", "beam", "--workers", 2)
    status, out, err = run(*beam)
    assert status == 0, err
    assert listing(tmp_path / "beam") == listing(tmp_path / "local")
    assert len(listing(tmp_path / "beam")) == 5


def test_beam_names_every_problem(pairs_folder, run, tmp_path, listing):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    root = many(pairs_folder)
    for name in ("m1.png", "f2.png"):
        pairs_folder.text(name, "x")
    before = listing(tmp_path)
    runner = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
    status, _, err = run(*command(root, tmp_path / "beam", "--engine", "beam", "--", *runner))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(errors) == 2
    for name in ("m1.png", "f2.png"):
        assert any(f"{name}: unreadable image" in error for error in errors)
    assert listing(tmp_path) == before


def test_an_unknown_runner_is_told_in_one_line(pairs_folder, run, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    root = pairs_folder.table()
    status, _, err = run(*command(root, tmp_path / "beam", "--engine", "beam", "--", "--runner=Nobody"))
    assert status == 2
    assert err.splitlines()[-1].startswith("error: `--engine beam`: Unexpected pipeline runner: Nobody.")


def test_without_beam_the_extra_is_named(pairs_folder, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # as if it were not installed
    status, _, err = run(*command(pairs_folder.table(), tmp_path / "beam", "--engine", "beam"))
    assert (status, len(err.splitlines())) == (2, 1)
    assert "install it with `pip install 'tfmetareg[beam]'`" in err
    assert not (tmp_path / "beam").exists()


def test_pipeline_options_without_beam_are_refused(pairs_folder, run, tmp_path):
    status, _, err = run(*command(pairs_folder.table(), tmp_path / "r", "--", "--runner=FlinkRunner"))
    assert (status, len(err.splitlines())) == (2, 1)
    assert "options after `--` are for `--engine beam`" in err
