"""The page of one registered pair: its words, pictures and escapes."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.unit.tfmetareg.report.test_page import Page
from tests.unit.tfmetareg.report.test_registration import POINTS, pair
from tfmetareg.report.contrast import overlay
from tfmetareg.report.figures import save_figure
from tfmetareg.report.registration import draw_registered
from tfmetareg.report.registration_page import changes, render_registration, sentences, views

ODD = '<img src=x onerror=alert(1)> $\\frac{$ & "co".png'


CARRIED = {
    "given_in": "fixed",
    "carried_to": "moving",
    "count": 5,
    "outside": 1,
    "without_partner": 1,
}


def summary(**changed):
    return {
        "schema": 1,
        "shapes": {"moving": [50, 40], "fixed": [60, 80], "network": [64, 64]},
        "similarity": {
            "ncc": {"before": 0.2, "after": 0.8},
            "local_ncc": {"before": 0.1, "after": 0.6},
        },
        "folding_percent": 0.0,
        "displacement_px": {"mean": 2.0, "max": 5.0},
        "seen_percent": {"moving": 100.0, "fixed": 100.0},
        "overlap_percent": 100.0,
        "alignment": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        "adaptation_loss": None,
        "landmarks": None,
        "points": None,
        "warnings": [],
        **changed,
    }


def page_of(folder, panels, names=("m.png", "f.png"), **changed):
    files = {
        name: save_figure(figure, folder / f"{name}.png").read_bytes()
        for name, figure in draw_registered(panels).items()
    }
    path = folder / "registration.html"
    path.write_text(render_registration(panels, names, summary(**changed), files), encoding="utf-8")
    return Page(path)


def test_the_page_holds_everything_it_shows(tmp_path):
    panels = pair(fixed_points=POINTS, moving_points=POINTS + 1)
    page = page_of(tmp_path, panels, warnings=["the images hardly agree."])
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "link" not in page.tags and "url(" not in page.source and "@import" not in page.source
    assert page.tags.count("script") == 1
    # Four views of two pictures; grid, Jacobian and points.
    assert len(page.addresses) == len(page.alts) == 2 * 4 + 3 and all(page.alts)
    text = " ".join(page.text.split())
    assert "m.png (40 × 50 px) was registered onto f.png (80 × 60 px)." in text
    assert "The images hardly agree." in text and "No warnings" not in text
    assert "No warnings" in page_of(tmp_path, panels).text


def test_the_slider_shows_the_pair_before_and_after():
    panels = pair()
    found = views(panels)
    assert [view.title for view in found] == [
        "Overlay", "Checkerboard", "Fixed and registered", "Moving and registered",
    ]  # fmt: skip
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))) / 255
        for source in (found[0].left_source, found[0].right_source)
    ]
    for picture, image in zip(pictures, (panels.before, panels.warped)):
        np.testing.assert_allclose(picture, overlay(image, panels.fixed), atol=0.003)


def test_images_of_two_contrasts_are_not_overlaid(tmp_path):
    page = page_of(tmp_path, pair(comparison="checkerboard"))
    assert "Overlay" not in page.text and "magenta" not in page.text
    assert len(page.addresses) == 2 * 3 + 2


def test_names_and_warnings_are_escaped(tmp_path):
    page = page_of(
        tmp_path, pair(), names=(f"folder/{ODD}", ODD), warnings=[f"look at {ODD}"], inputs={ODD: ODD}
    )
    assert page.tags.count("script") == 1 and all(address.startswith("data:") for address in page.addresses)
    # Title, heading, sentence, two each; the warning; inputs in the summary.
    assert page.text.count(ODD) == 2 * 3 + 1 + 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "The images became more alike: local NCC 0.100 before, 0.600 after."),
        ({}, "lies 2.0 px from its partner on average, 5.0 px at most; nothing folds."),
        ({"folding_percent": 0.001}, "less than 0.01 % of the pixels fold."),
        ({"folding_percent": 1.5}, "1.50 % of the pixels fold."),
        ({"overlap_percent": 71.2}, "71 % of the fixed image have a partner."),
        (
            {"landmarks": {"count": 9, "distance_before_px": 4.0, "distance_px": 1.25}},
            "9 landmarks lay 4.00 px from their partners on average, now 1.25 px.",
        ),
        (
            {"points": CARRIED},
            "5 points of the fixed image were carried to the moving one, 2 of them in vain.",
        ),
        (
            {"similarity": {name: {"before": 0.5, "after": 0.4} for name in ("ncc", "local_ncc")}},
            "The images became no more alike",
        ),
    ],
)  # fmt: skip
def test_the_summary_in_words(changed, said):
    assert said in " ".join(sentences("m.png", "f.png", summary(**changed)))


def test_what_became_worse_is_marked():
    landmarks = {"count": 9, "distance_before_px": 4.0, "distance_px": 6.0}
    found = {change.name: change.worse for change in changes(summary(landmarks=landmarks))}
    assert found == {"NCC": False, "Local NCC": False, "Landmark distance (px)": True}
    assert json.dumps(summary())
