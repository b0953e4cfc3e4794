"""What the pages at the top of the repository name is there. (mkdocs checks the pages in docs/.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "tfrecords_builder/README.md",
    "benchmarks/README.md",
]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page))
    assert not [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_tells_to_edit_exists(page):
    paths = re.findall(r"`((?:tfmetareg|tfrecords_builder|tests|configs)/[\w./-]*)`", text_of(page))
    assert len(paths) > 5
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_readme_shows_every_room_and_is_short():
    readme = text_of("README.md")
    picture = readme[readme.index("## Architecture") :]
    rooms = [path.parent.name for path in (ROOT / "tfmetareg").glob("*/__init__.py")]
    assert len(rooms) > 8
    assert not [room for room in rooms if not re.search(rf"\b{room}/", picture)]
    assert len(readme.splitlines()) < 120


def test_the_newest_version_of_the_changelog_is_the_packages():
    import tfmetareg

    newest = re.search(r"^## ([\d.]+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert newest[1] == tfmetareg.__version__
    headings = set(re.findall(r"^### (.+)$", text_of("CHANGELOG.md"), re.MULTILINE))
    assert headings <= {"Added", "Changed", "Fixed", "Removed"}
