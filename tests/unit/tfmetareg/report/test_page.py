"""report.html: complete, self-contained, escaped, and graceful where pieces are missing."""

from __future__ import annotations

import base64
import html.parser
import json
import shutil
from collections import Counter

import pytest

from tests.unit.tfmetareg.report.workdirs import write_metrics, write_result
from tfmetareg.errors import UserError
from tfmetareg.methods import colours
from tfmetareg.report.page import write_report
from tfmetareg.report.results import read_results
from tfmetareg.report.tables import build_table, to_csv

METHODS = ("not_deformed", "transfer", "ours_10")
FIGURES = sorted([
    *("curves.png", "distances.png", "field.png", "overlays.png", "training.png"),
    *(f"pair-{method}-{number}.png" for method in METHODS for number in (1, 2)),
])  # fmt: skip
VOID = {"meta", "img", "br", "link", "wbr", "input"}


class Page(html.parser.HTMLParser):
    """Tags, addresses, text and cells of a page; fails on tags that do not match."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.addresses, self.text, self.bold, self._open = [], [], "", [], []
        self.ids, self.alts, self.swatches = [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.alts += [given.get("alt")] * (tag == "img")
        self.swatches += [given["style"]] if given.get("class") == "swatch" else []
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
    within = [address[1:] for address in parsed.addresses if address.startswith("#")]
    assert within == parsed.ids and len(set(within)) == len(within)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
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
    assert len(parsed.alts) == len(embedded) and all(len(alt) > 30 for alt in parsed.alts)
    boxes = "Box plot of the pairs' landmark distances in pixels. Medians: Not deformed 6.00"
    assert any(alt.startswith(boxes) for alt in parsed.alts)


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
    odd = "<script>alert('x')</script> & \"co\" $\\frac{$"
    write_result(tmp_path, "transfer", task=odd, names=(odd, "plain"), distance=8.0)
    write_result(tmp_path, "<b>mine", task=odd)
    (tmp_path / "run.json").write_text('{"<i>": ["</dl>", null, {"a": 1.5}], "wall": {}}')
    parsed = Page(write_report(tmp_path))
    assert not {"script", "b", "i"} & set(parsed.tags)
    assert odd in parsed.text
    assert parsed.text.count(odd) >= 5 and any(odd in alt for alt in parsed.alts)
    assert "<b>mine" in parsed.text
    assert "</dl>" in parsed.text


def test_missing_pieces_are_left_out_with_a_sentence(tmp_path):
    write_result(tmp_path, "transfer", distance=None)
    (tmp_path / "results" / "transfer.examples.npz").unlink()
    parsed = Page(write_report(tmp_path))
    assert "img" not in parsed.tags
    assert parsed.text.count("Left out") == 5
    assert "No stage was evaluated on test pairs while it was fine-tuned." in parsed.text
    assert "Without landmarks there is no distance" in parsed.text
    assert not (tmp_path / "figures").exists()


def test_the_page_tells_the_spread_the_worst_pair_and_those_made_worse(page):
    parsed, folder = page
    text = " ".join(parsed.text.split())
    assert "Method Pairs Before Mean ± SD Median Quartiles Worst Made worse Worst pair".replace(" ", "") in (
        text.replace(" ", "")
    )
    row = "Not deformed 2 6.00 6.00 ± 0.50 6.00 5.75 … 6.25 6.50 1 of 2 (50 %) pair1"
    assert row.replace(" ", "") in text.replace(" ", "")
    found = json.loads((folder / "tables" / "pairs.json").read_text())
    assert [(spread["method"], spread["made_worse"]) for spread in found["spread"]] == [
        ("not_deformed", 1),
        ("transfer", 0),
        ("ours_10", 0),
    ]
    assert "| Ours (10)" in (folder / "tables" / "pairs.md").read_text()


def test_the_page_warns_where_similarity_rose_and_accuracy_fell(page, tmp_path):
    assert "Not deformed: 1 of 2 pairs became more alike and less accurate" in page[0].text
    write_result(tmp_path, "mine", distance=8.0)
    text = Page(write_report(tmp_path)).text
    assert "mine: on average the images became more alike (NCC 0.300 → 0.700) and less accurate" in text
    assert "2 of 2 pairs became more alike and less accurate, most of all pair1" in text


def test_the_pictures_are_of_the_worst_and_the_best_pair(page):
    text = "".join(page[0].text.split())
    assert "Worstof2pair1Landmarkdistance6.00→1.75px" in text
    assert "Bestof2pair0Landmarkdistance6.00→0.75px" in text
    assert "Worstof2madeworsepair1Landmarkdistance6.00→6.50px" in text


def test_a_method_has_one_colour_in_every_table(page):
    counted = Counter(page[0].swatches)
    shades = colours(METHODS)
    assert set(counted) == {f"background:{shade}" for shade in shades.values()}
    # Table, spread, pictures, how it was made; and one of the pairs that mislead.
    assert counted[f"background:{shades['ours_10']}"] == 4
    assert counted[f"background:{shades['not_deformed']}"] == 5


def test_figures_of_earlier_results_are_removed(tmp_path):
    write_result(tmp_path, "transfer")
    write_result(tmp_path, "mine")
    write_report(tmp_path)
    for path in (tmp_path / "results").glob("mine.*"):
        path.unlink()
    write_report(tmp_path)
    assert sorted(path.name for path in (tmp_path / "figures").glob("pair-*")) == [
        "pair-transfer-1.png",
        "pair-transfer-2.png",
    ]


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
