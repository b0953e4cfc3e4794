"""The revision in the run card is that of this package, never of a repository around it."""

from __future__ import annotations

import subprocess

import pytest

from tfmetareg.modes import workdir


def commit(folder):
    """Makes the folder a repository with all its files; returns its revision."""

    def git(*words):
        command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", "--all")
    git("commit", "-qm", "All")
    return git("rev-parse", "--short=12", "HEAD")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts the package into a folder of a new project; returns the source file there."""

    def put(folder):
        source = tmp_path / folder / "tfmetareg" / "modes" / "workdir.py"
        source.parent.mkdir(parents=True)
        source.write_text("")
        monkeypatch.setattr(workdir, "__file__", str(source))
        return source

    return put


def test_a_checkout_tells_its_revision_and_whether_it_was_changed(tmp_path, installed):
    source = installed(".")
    revision = commit(tmp_path)
    assert workdir._revision() == revision
    source.write_text("changed = True\n")
    assert workdir._revision() == f"{revision}-dirty"


@pytest.mark.parametrize("folder", [".venv/lib/site-packages", "vendor"])
def test_the_repository_of_another_project_is_not_ours(tmp_path, installed, folder):
    installed(folder)
    assert commit(tmp_path)
    assert workdir._revision() == "unknown"


def test_an_environment_at_the_top_of_another_repository(tmp_path, installed):
    (tmp_path / ".gitignore").write_text("tfmetareg/\n")
    installed(".")
    commit(tmp_path)
    assert workdir._revision() == "unknown"
