"""registration.html: one self-contained page of a registered pair, with a slider from before to after."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfmetareg.report.contrast import checkerboard, overlay
from tfmetareg.report.markup import data_uri, image_uri, render
from tfmetareg.report.registration_panels import RegistrationPanels

PAGE = "registration.html"
# Smaller images are enlarged with their pixels visible.
_SMALL = 300


class View(NamedTuple):
    """Two pictures of one size under one slider.

    Attributes:
        title, text: of the view.
        left, right: captions.
        left_source, right_source: pictures as data URIs.
        left_alt, right_alt: what they show.
    """

    title: str
    text: str
    left: str
    right: str
    left_source: str
    right_source: str
    left_alt: str
    right_alt: str


class PageFigure(NamedTuple):
    """A figure of the page: heading, caption, picture as a data URI, what it shows, if it has many panels."""

    title: str
    text: str
    source: str
    alt: str
    wide: bool


class Change(NamedTuple):
    """A measure before and after registration, as text, and whether it became worse."""

    name: str
    before: str
    after: str
    worse: bool


def render_registration(
    pair: RegistrationPanels,
    names: tuple[str, str],
    summary: Mapping[str, Any],
    figures: Mapping[str, bytes],
) -> str:
    """The page as HTML without references to other files.

    Args:
        pair: the pair.
        names: of the moving and of the fixed image, paths for instance.
        summary: as `registration.measures.measure` gives it, with what `summary.json` tells besides.
        figures: PNG files by name, as `draw_registered` names them.
    """
    moving, fixed = (os.path.basename(name) or name for name in names)
    return render(
        "registration.html.j2",
        moving=moving,
        fixed=fixed,
        sentences=sentences(moving, fixed, summary),
        warnings=summary["warnings"],
        views=views(pair),
        ratio=f"{pair.fixed_shape[1] / pair.fixed_shape[0]:.4f}",
        small=max(pair.fixed_shape) < _SMALL,
        changes=changes(summary),
        figures=page_figures(pair, summary, figures),
        summary={name: value for name, value in summary.items() if name != "warnings"},
    )


def views(pair: RegistrationPanels) -> list[View]:
    """What the slider shows; the picture that suits the pair comes first."""
    combined = {
        "Overlay": (overlay, "Moving image magenta, fixed image green: grey to white where they agree."),
        "Checkerboard": (
            checkerboard,
            "Tiles of the fixed and of the moving image in turn: edges run on where they agree.",
        ),
    }
    if pair.comparison == "checkerboard":  # The images differ in contrast, or the user wants no overlay.
        del combined["Overlay"]
    found = []
    for title, (combine, text) in combined.items():
        before, after = (image_uri(combine(image, pair.fixed)) for image in (pair.before, pair.warped))
        described = f"{title} of the moving and the fixed image"
        found.append(
            View(
                title, text, "Before", "After", before, after, f"{described} before registration",
                f"{described} after registration",
            )
        )  # fmt: skip
    fixed, registered, before = map(image_uri, (pair.fixed, pair.warped, pair.before))
    return [
        *found,
        View(
            "Fixed and registered",
            "The fixed image, and the moving image once it is registered to it.",
            "Fixed", "Registered", fixed, registered, "Fixed image", "Registered moving image",
        ),
        View(
            "Moving and registered",
            "The moving image on the fixed image's grid before it is registered, and after it.",
            "Moving", "Registered", before, registered, "Moving image", "Registered moving image",
        ),
    ]  # fmt: skip


def page_figures(
    pair: RegistrationPanels, summary: Mapping[str, Any], figures: Mapping[str, bytes]
) -> list[PageFigure]:
    """The figures below the slider, which shows overlay and checkerboard already."""
    longest = summary["displacement_px"]["max"]
    told = {
        "grid": (
            "Deformation",
            "A regular grid on the fixed image, where the moving image is sampled for it, and how far each "
            "pixel lies from its partner, in pixels.",
            f"The grid on the fixed and on the moving image, and a map of the displacement's length, at most "
            f"{longest:.1f} px",
        ),
        "jacobian": (
            "Change of area",
            "Determinant of the Jacobian: how much area of the moving image each pixel takes; at or below 0 "
            "the deformation folds.",
            f"Map of the determinant; {summary['folding_percent']:.2f} % of the pixels fold",
        ),
        "points": (
            "Points",
            "Points in both images, numbered in the order of their file.",
            f"{0 if pair.fixed_points is None else len(pair.fixed_points)} numbered points on both images",
        ),
        "labels": (
            "Labels",
            "Outlines on the fixed image: orange the moving image's labels, before registration and after "
            "it; cyan the fixed image's, if it has some.",
            f"Outlines of labels on the fixed image{_dice(summary, '; ')}",
        ),
    }
    return [
        PageFigure(title, text, data_uri("image/png", figures[name]), alt, wide=name in ("grid", "labels"))
        for name, (title, text, alt) in told.items()
        if name in figures
    ]


def changes(summary: Mapping[str, Any]) -> list[Change]:
    """The measures that are known before and after registration."""
    rows = []
    for name, key in (("NCC", "ncc"), ("Local NCC", "local_ncc")):
        before, after = (summary["similarity"][key][when] for when in ("before", "after"))
        rows.append(Change(name, f"{before:.3f}", f"{after:.3f}", after < before))
    landmarks = summary["landmarks"]
    if landmarks:
        before, after = landmarks["distance_before_px"], landmarks["distance_px"]
        rows.append(Change("Landmark distance (px)", f"{before:.2f}", f"{after:.2f}", after > before))
    return [*rows, *_label_changes(summary.get("labels") or {})]


def _label_changes(labels: Mapping[str, Any]) -> Iterator[Change]:
    """Dice and distances of the labels, these in mm where the pixel size is known."""
    unit = "px" if labels.get("hd95_mm") is None else "mm"
    for name, key, digits in (("Dice", "dice", 3), ("HD95", "hd95", 2), ("ASSD", "assd", 2)):
        suffix = "" if key == "dice" else f"_{unit}"
        before, after = labels.get(f"{key}_before{suffix}"), labels.get(f"{key}{suffix}")
        if before is not None and after is not None:
            worse = after < before if key == "dice" else after > before
            title = name if key == "dice" else f"{name} ({unit})"
            yield Change(title, f"{before:.{digits}f}", f"{after:.{digits}f}", worse)


def sentences(moving: str, fixed: str, summary: Mapping[str, Any]) -> list[str]:
    """The summary in words."""
    shapes, local = summary["shapes"], summary["similarity"]["local_ncc"]
    mean, longest = (summary["displacement_px"][name] for name in ("mean", "max"))
    folding = summary["folding_percent"]
    said = [
        f"{moving} ({_size(shapes['moving'])}) was registered onto {fixed} ({_size(shapes['fixed'])}).",
        f"The images became {'more' if local['after'] > local['before'] else 'no more'} alike: local NCC "
        f"{local['before']:.3f} before, {local['after']:.3f} after.",
    ]
    landmarks, points = summary["landmarks"], summary["points"]
    if landmarks:
        said.append(
            f"{landmarks['count']} landmarks lay {landmarks['distance_before_px']:.2f} px from their "
            f"partners on average, now {landmarks['distance_px']:.2f} px."
        )
    if _dice(summary):
        said.append(f"{_dice(summary)}.")
    said.append(
        f"A pixel of the fixed image lies {mean:.1f} px from its partner on average, {longest:.1f} px at "
        "most; " + ("nothing folds." if not folding else f"{_percent(folding)} of the pixels fold.")
    )
    if summary["overlap_percent"] < 99.5:
        said.append(f"{summary['overlap_percent']:.0f} % of the fixed image have a partner.")
    if points:
        missing = points["outside"] + points["without_partner"]
        said.append(
            f"{points['count']} points of the {points['given_in']} image were carried to the "
            f"{points['carried_to']} one" + (f", {missing} of them in vain." if missing else ".")
        )
    return said


def _dice(summary: Mapping[str, Any], ahead: str = "") -> str:
    """What became of the labels, with a text ahead of it; empty unless both images have some."""
    labels = summary.get("labels")
    if not labels or labels["dice"] is None:
        return ""
    count = len(labels["per_label"])
    named = "the label" if count == 1 else f"{count} labels on average"
    return f"{ahead}Dice of {named}: {labels['dice_before']:.3f} before, {labels['dice']:.3f} after"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} × {shape[0]} px"


def _percent(value: float) -> str:
    return "less than 0.01 %" if value < 0.005 else f"{value:.2f} %"
