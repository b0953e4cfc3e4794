"""report.html: complete, self-contained, escaped, and graceful where pieces are missing."""

from __future__ import annotations

import base64
import html.parser
import shutil

import pytest

from tests.unit.tfmetareg.report.workdirs import write_metrics, write_result
from tfmetareg.errors import UserError
from tfmetareg.report.page import write_report
from tfmetareg.report.results import read_results
from tfmetareg.report.tables import build_table, to_csv

FIGURES = ["curves.png", "distances.png", "field.png", "overlays.png", "training.png"]
VOID = {"meta", "img", "br", "link"}


class Page(html.parser.HTMLParser):
    """Tags, addresses, text and cells of a page; fails on tags that do not match."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.addresses, self.text, self.bold, self._open = [], [], "", [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "strong" in self._open:
            self.bold.append(data)


@pytest.fixture(scope="module")
def page(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "run"
    shutil.copytree(workdir, folder)
    return Page(write_report(folder)), folder


def test_the_page_is_self_contained(page):
    parsed, folder = page
    assert parsed.addresses
    assert all(address.startswith("data:") for address in parsed.addresses)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert "url(" not in parsed.source
    assert "@import" not in parsed.source


def test_the_embedded_figures_are_the_files(page):
    parsed, folder = page
    assert sorted(path.name for path in (folder / "figures").iterdir()) == FIGURES
    start = "data:image/png;base64,"
    embedded = [
        base64.b64decode(a[len(start) :], validate=True) for a in parsed.addresses if a.startswith(start)
    ]
    assert sorted(embedded) == sorted((folder / "figures" / name).read_bytes() for name in FIGURES)
    assert all(content.startswith(b"\x89PNG\r\n\x1a\n") for content in embedded)
    assert "Left out" not in parsed.text


def test_the_page_shows_the_table_and_its_best_values(page):
    parsed, folder = page
    assert "1.25 ± 0.50" in parsed.text
    assert parsed.bold == ["1.25 ± 0.50"]  # all other columns are equal in every row
    csv = base64.b64decode(next(a for a in parsed.addresses if a.startswith("data:text/csv")).split(",")[1])
    assert csv.decode() == to_csv(build_table(read_results(folder)))


def test_the_page_says_what_was_compared(page):
    text = " ".join(page[0].text.split())
    assert "3 methods compared on the test split of octa_scp: 2 image pairs registered by each." in text
    assert "6 pairs of corresponding landmarks" in text
    assert "corresponding landmarks lie 6.00 px apart" in text
    assert "The smallest mean distance is 1.25 px, by Ours (10)." in text
    assert "meta-trained with Reptile" in text
    assert "Epochs of fine-tuning: 10." in text
    assert "3f2c1ab" in text
    assert "target: <octa> & co" in text


def test_odd_names_are_escaped(tmp_path):
    odd = "<script>alert('x')</script> & \"co\""
    write_result(tmp_path, "transfer", task=odd)
    write_result(tmp_path, "<b>mine", task=odd, per_pair="mine.csv")
    (tmp_path / "run.json").write_text('{"<i>": ["</dl>", null, {"a": 1.5}], "wall": {}}')
    parsed = Page(write_report(tmp_path))
    assert not {"script", "b", "i"} & set(parsed.tags)
    assert odd in parsed.text
    assert "<b>mine" in parsed.text
    assert "</dl>" in parsed.text


def test_missing_pieces_are_left_out_with_a_sentence(tmp_path):
    write_result(tmp_path, "transfer", distance=None)
    (tmp_path / "results" / "transfer.examples.npz").unlink()
    parsed = Page(write_report(tmp_path))
    assert "img" not in parsed.tags
    assert parsed.text.count("Left out") == 7
    assert "Without landmarks there is no distance" in parsed.text
    assert not (tmp_path / "figures").exists()


def test_rows_of_different_pairs_are_warned_about(tmp_path):
    write_result(tmp_path, "transfer", pairs=12)
    write_result(tmp_path, "ours_10", pairs=11)
    text = Page(write_report(tmp_path)).text
    assert "The rows differ in the number of pairs (11, 12)" in text
    assert "The rows differ in the task" not in text


def test_an_empty_workdir_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"holds no results; .*train\.py --mode evaluate") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_run_card_is_a_user_error_and_keeps_the_old_page(tmp_path):
    write_result(tmp_path, "transfer", distance=None)
    write_metrics(tmp_path, "reptile", [])
    page = write_report(tmp_path)
    before = page.read_bytes()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is not JSON"):
        write_report(tmp_path)
    assert page.read_bytes() == before
