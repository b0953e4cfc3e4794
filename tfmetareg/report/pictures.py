"""The report's pictures: which pairs they show, and each figure with its caption and its text in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmetareg.methods import colours, label
from tfmetareg.report import figures
from tfmetareg.report.contrast import Comparison, fitting_comparison
from tfmetareg.report.curves import mean_curves, read_seed_stages
from tfmetareg.report.markup import data_uri
from tfmetareg.report.pair_scores import Measure, evenly, measures_of, ranked
from tfmetareg.report.results import ExamplePairs, PairScore, Result, read_examples, read_scores
from tfmetareg.report.shots import ShotPoint, read_shots

# The worst, the median and the best pair.
ROLES = ("Worst", "Median", "Best")
SHOWN_PAIRS = len(ROLES)
LEGENDS = {
    "overlay": "the moving image is magenta, the fixed image green: where they agree the sum is grey to "
    "white, a coloured fringe is an error.",
    "checkerboard": "tiles of the fixed and of the moving image in turn: where they agree, edges run on from "
    "tile to tile.",
}
DIFFERENT = (
    " They are not overlaid in two colours: brightness runs differently in them, as in images of two "
    "contrasts or stains, or in pairs that hardly match."
)
LANDMARKS = (
    f" Rings are landmarks of the fixed image (at most {figures.MAX_LANDMARKS} drawn); a line leads from "
    "each to a dot displaced by the error that remains, to scale: a dot in its middle is right."
)
LABELS = " Outlines are labels, cyan those of the fixed image, orange those of the moving one."
# What the records did to the images that figures show, by `intensity` of the preprocessing.
RECORDS_IMAGES = {
    "equalize": "as the records hold them, their histogram equalised",
    "clahe": "as the records hold them, their contrast equalised locally (CLAHE)",
    "percentile": "as the records hold them, their grey values scaled linearly",
}
SHOW_ORIGINALS = (
    "; evaluated with --evaluate.images FOLDER, the folder that the records were built from, they are shown "
    "as they were"
)


class PageImage(NamedTuple):
    """A figure of the page. Without a file, the text says why the figure is missing.

    Attributes:
        title, text: heading and caption.
        path: of the PNG file.
        alt: what the figure shows, for those who do not see it.
        wide: many panels side by side, which a narrow screen scrolls through.
    """

    title: str
    text: str
    path: Path | None = None
    alt: str = ""
    wide: bool = False

    @property
    def source(self) -> str:
        """The image as a data URI; empty without a file."""
        return data_uri("image/png", self.path.read_bytes()) if self.path else ""


class PairCard(NamedTuple):
    """One pair before and after registration by one method.

    Attributes:
        role: for instance "Worst of 74"; empty if not known.
        pair: its name.
        changes: its measures before and after registration, as text.
        made_worse: whether the first of them was better before.
        image: the picture.
    """

    role: str
    pair: str
    changes: tuple[str, ...]
    made_worse: bool
    image: PageImage


class MethodCards(NamedTuple):
    """The worst, the median and the best pair of one method."""

    method: str
    cards: tuple[PairCard, ...]


class Pictures(NamedTuple):
    """All pictures of a report.

    Attributes:
        pairs: the leading method's first; empty without example pairs.
        pairs_text: how they are drawn.
        images: the figures.
    """

    pairs: tuple[MethodCards, ...]
    pairs_text: str
    images: tuple[PageImage, ...]


def palette(workdir: Path, results: Sequence[Result]) -> dict[str, str]:
    """One colour to each method and stage that any table or figure of the report shows."""
    stages = read_seed_stages(workdir, results)[0]
    return colours([*(result.method for result in results), *stages])


def draw_pictures(workdir: Path, results: Sequence[Result]) -> Pictures:
    """Writes <workdir>/figures/*.png as far as there is data; an image without a path stands for the rest."""
    folder, colour_of = workdir / "figures", palette(workdir, results)
    stored = {result.method: read_examples(result) for result in results}
    examples = {method: pairs for method, pairs in stored.items() if pairs is not None and pairs.keys}
    scores = {result.method: read_scores(result) for result in results}
    comparison = chosen_comparison(examples)
    seeds, of_first = read_seed_stages(workdir, results), _of_first(results)
    shots = [_shots(folder, points) for points in [read_shots(workdir)[0]] if points]
    return Pictures(
        pairs=_all_cards(folder, results, examples, scores, comparison),
        pairs_text=_pairs_text(examples, comparison, of_first),
        images=(
            _overlays(folder, examples, scores, comparison, of_first),
            _distances(folder, scores, colour_of),
            *_dice(folder, scores, colour_of),
            _curves(folder, mean_curves(seeds), len(seeds), colour_of),
            *shots,
            _field(folder, results, examples),
            _training(folder, seeds[0], of_first),
        ),
    )


def chosen_comparison(examples: Mapping[str, ExamplePairs]) -> Comparison:
    """The picture that compares two images: as the user chose, else what suits the pairs."""
    chosen: list[Any] = [pairs.comparison for pairs in examples.values() if pairs.comparison]
    if chosen:
        return chosen[-1]
    versions: dict[str, list[np.ndarray]] = {}
    for pairs in examples.values():
        for index, key in enumerate(pairs.keys):
            images = pairs.images(index)
            versions.setdefault(key, [images.fixed, images.moving]).append(images.warped)
    return fitting_comparison(versions.values())


def chosen_pairs(scores: Sequence[PairScore], keys: Sequence[str], when: str) -> dict[str, str]:
    """The worst, the median and the best of the pairs that there are pictures of: role by name.

    Where the pair of a role has no picture, the nearest one that has is taken, and its role is its rank, from
    the worst. Without scores, the first pairs have no role.

    Args:
        scores: of all pairs of a method.
        keys: names of the pairs with pictures.
        when: "before" or "after" registration, whose measure decides.
    """
    order = [scores[index].key for index in ranked(scores, when)]
    kept = [rank for rank, key in enumerate(order) if key in keys]
    if not kept:
        return dict.fromkeys(keys[:SHOWN_PAIRS], "")
    roles = dict(zip(evenly(len(order), SHOWN_PAIRS), ROLES if len(order) > 2 else ROLES[::2]))
    nearest = dict.fromkeys(min(kept, key=lambda rank: abs(rank - place)) for place in roles)
    return {order[rank]: roles.get(rank, f"Rank {rank + 1}") for rank in nearest}


def _all_cards(
    folder: Path,
    results: Sequence[Result],
    examples: Mapping[str, ExamplePairs],
    scores: Mapping[str, Sequence[PairScore]],
    comparison: Comparison,
) -> tuple[MethodCards, ...]:
    """The cards of every method that moves something; of all if none does."""
    moving = [result for result in results if result.method in examples and _moves(examples[result.method])]
    shown = moving or [result for result in results if result.method in examples]
    leading = figures.field_method(results, examples)
    shown.sort(key=lambda result: result.method != leading)
    found = [_cards(folder, result, examples[result.method], scores, comparison) for result in shown]
    written = {card.image.path for group in found for card in group.cards}
    for path in folder.glob("pair-*.png"):
        if path not in written:  # Of earlier results.
            path.unlink()
    return tuple(found)


def _moves(pairs: ExamplePairs) -> bool:
    return bool(np.any(pairs.displacement))


def _cards(
    folder: Path,
    result: Result,
    pairs: ExamplePairs,
    scores: Mapping[str, Sequence[PairScore]],
    comparison: Comparison,
) -> MethodCards:
    own = {score.key: score for score in scores[result.method]}
    measures = measures_of([*own.values()])
    stem = result.examples_path.name[: -len(".examples.npz")]
    cards = []
    for number, (key, role) in enumerate(chosen_pairs(scores[result.method], pairs.keys, "after").items(), 1):
        measured = [
            (measure, *values) for measure in measures if key in own and (values := measure.values(own[key]))
        ]
        changes = tuple(_change(*each) for each in measured)
        picture = figures.figure_pair(pairs, pairs.keys.index(key), comparison)
        path = figures.save_figure(picture, folder / f"pair-{stem}-{number}.png", cut=False)
        alt = (
            f"Pair {key}, before registration on the left and after {result.label} on the right, as "
            f"{_picture_name(comparison)}. {'; '.join(changes)}"
        )
        worse = bool(measured) and measured[0][0].worse(*measured[0][1:])
        ranks = f"{role} of {len(ranked([*own.values()]))}" if role else ""
        cards.append(PairCard(ranks, key, changes, worse, PageImage(key, "", path, alt)))
    return MethodCards(result.method, tuple(cards))


def _change(measure: Measure, before: float, after: float) -> str:
    text = measure.change(before, after)
    return text[:1].upper() + text[1:]


def _picture_name(comparison: Comparison) -> str:
    return {"overlay": "overlay of moving (magenta) and fixed image (green)"}.get(
        comparison, "checkerboard of the moving and the fixed image"
    )


def _pairs_text(examples: Mapping[str, ExamplePairs], comparison: Comparison, of_first: str) -> str:
    if not examples:
        return "Left out: the results hold no example pairs."
    text = f"Left before registration, right after it: {LEGENDS[comparison]}"
    if comparison == "checkerboard" and not any(pairs.comparison for pairs in examples.values()):
        text += DIFFERENT
    if _has_landmarks(examples):
        text += LANDMARKS
    if _has_labels(examples):
        text += LABELS
    return f"{text} {_told_images(examples)}{of_first}"


def _told_images(examples: Mapping[str, ExamplePairs]) -> str:
    """What images these are: the originals, or what the records made of them."""
    flags = [
        original is not None
        for pairs in examples.values()
        for original in pairs.originals or [None] * len(pairs.keys)
    ]
    if all(flags):
        return "The images are the originals, brought to the records' size."
    intensity = next(iter(examples.values())).intensity
    told = RECORDS_IMAGES.get(intensity, "as the records hold them")
    hint = SHOW_ORIGINALS if intensity in ("equalize", "clahe") else ""
    return f"The images are{' in part' if any(flags) else ''} {told}{hint}."


def _has_labels(examples: Mapping[str, ExamplePairs]) -> bool:
    return any(labels is not None for pairs in examples.values() for labels in pairs.fixed_labels)


def _has_landmarks(examples: Mapping[str, ExamplePairs]) -> bool:
    return any(len(points) for pairs in examples.values() for points in pairs.fixed_landmarks)


def _of_first(results: Sequence[Result]) -> str:
    """A sentence for figures that show the first of several seeds; empty for a single seed."""
    seeds = next((result.seeds for result in results if len(result.seeds) > 1), ())
    return f" Of the first seed, {seeds[0]}." if seeds else ""


def _overlays(
    folder: Path,
    examples: Mapping[str, ExamplePairs],
    scores: Mapping[str, Sequence[PairScore]],
    comparison: Comparison,
    of_first: str,
) -> PageImage:
    title = "The same pairs by every method"
    first = next(iter(examples), "")
    shared = [
        key
        for key in (examples[first].keys if first else ())
        if all(key in e.keys for e in examples.values())
    ]
    if not shared:
        return PageImage(title, "The results hold no example pairs that all methods share.")
    roles = chosen_pairs(scores[first], shared, "before")
    rows = {key: f"{role} before: {key}" if role else key for key, role in roles.items()}
    text = (
        "Each row is one test pair, chosen by how well it matched before registration; each column one "
        f"method. In each picture {LEGENDS[comparison]}"
    )
    if _has_landmarks(examples):
        text += LANDMARKS + " The number below is the mean error over all landmarks of the pair, in pixels."
    if _has_labels(examples):
        text += LABELS
    names = ", ".join(map(label, examples))
    alt = f"{_picture_name(comparison).capitalize()} of the pairs {', '.join(rows)} after: {names}."
    figure = figures.figure_overlays(examples, rows, comparison)
    path = figures.save_figure(figure, folder / "overlays.png")
    return PageImage(title, f"{text} {_told_images(examples)}{of_first}", path, alt, wide=len(examples) > 2)


def _distances(
    folder: Path, scores: Mapping[str, Sequence[PairScore]], colour_of: Mapping[str, str]
) -> PageImage:
    title = "Landmark distance of every pair"
    found = {
        method: [score.distance_px for score in own if score.distance_px is not None]
        for method, own in scores.items()
    }
    distances = {method: values for method, values in found.items() if values}
    if not distances:
        return PageImage(title, "No result holds landmark distances of single pairs.")
    text = (
        "One point per test pair: the mean distance of its landmarks after registration, in pixels of the "
        "fixed image; further left is better. Box: quartiles. Black line: median. Whiskers: to the last pair "
        "within 1.5 box lengths."
    )
    medians = (f"{label(method)} {np.median(values):.2f}" for method, values in distances.items())
    alt = f"Box plot of the pairs' landmark distances in pixels. Medians: {', '.join(medians)}."
    path = figures.save_figure(figures.figure_distances(distances, colour_of), folder / "distances.png")
    return PageImage(title, text, path, alt)


def _dice(
    folder: Path, scores: Mapping[str, Sequence[PairScore]], colour_of: Mapping[str, str]
) -> list[PageImage]:
    """The overlap of labels; nothing where no pair has any."""
    found = {
        method: [score.dice for score in own if score.dice is not None] for method, own in scores.items()
    }
    dice = {method: values for method, values in found.items() if values}
    if not dice:
        return []
    text = (
        "One point per test pair: the mean Dice over its labels after registration; further right is better. "
        "Box: quartiles. Black line: median. Whiskers: to the last pair within 1.5 box lengths."
    )
    medians = (f"{label(method)} {np.median(values):.3f}" for method, values in dice.items())
    alt = f"Box plot of the pairs' Dice. Medians: {', '.join(medians)}."
    path = figures.save_figure(figures.figure_dice(dice, colour_of), folder / "dice.png")
    return [PageImage("Overlap of the labels of every pair", text, path, alt)]


def _curves(
    folder: Path, shown: dict[str, list[dict[str, Any]]], seeds: int, colour_of: Mapping[str, str]
) -> PageImage:
    title = "Fine-tuning curves"
    if not shown:
        return PageImage(title, "No stage was evaluated on test pairs while it was fine-tuned.")
    text = (
        "Measures of the test pairs while the network is fine-tuned; epoch 0 is the initialisation. Landmark "
        "distance (pixels) and loss are better when lower, NCC (at most 1) when higher."
    )
    if seeds > 1:
        text += f" Lines: mean over {seeds} seeds; bands: from the lowest to the highest of them."
    if not any(line.get("test/distance_px") is not None for lines in shown.values() for line in lines):
        text += " Without landmarks there is no distance to show."
    alt = f"Curves over the epochs of fine-tuning of {', '.join(map(label, shown))}."
    path = figures.save_figure(figures.figure_curves(shown, colour_of), folder / "curves.png")
    return PageImage(title, text, path, alt)


def _shots(folder: Path, points: Sequence[ShotPoint]) -> PageImage:
    text = (
        "Mean landmark distance of the test pairs after fine-tuning on so many pairs of the target task, "
        "equally many gradient steps each; the pairs of a smaller number are among those of a larger one."
    )
    if any(point.over_seeds for point in points):
        text += " Bands: from the lowest to the highest mean of the seeds."
    alt = "Curves of the landmark distance over the number of fine-tuning pairs; the table gives the values."
    path = figures.save_figure(figures.figure_shots(points), folder / "shots.png")
    return PageImage("Distance over the number of fine-tuning pairs", text, path, alt)


def _field(folder: Path, results: Sequence[Result], examples: dict[str, ExamplePairs]) -> PageImage:
    title = "Deformation of one pair"
    method = figures.field_method(results, examples)
    if not method:
        return PageImage(title, "The results hold no displacement field.")
    pairs = examples[method]
    text = (
        f"Pair {pairs.keys[0]}, registered by {label(method)}. The orange mesh shows where a regular grid "
        "of the fixed image samples the moving image: warped(x) = moving(x + displacement(x)). Lines that "
        "cross would be folds. Right: length of the displacement in pixels."
    )
    longest = np.linalg.norm(pairs.displacement[0], axis=-1).max()
    alt = (
        f"Moving image of pair {pairs.keys[0]} under a deformed grid, its warped and its fixed image, and a "
        f"map of the displacement's length, at most {longest:.1f} px."
    )
    path = figures.save_figure(figures.figure_field(pairs), folder / "field.png")
    return PageImage(title, text + _of_first(results), path, alt, wide=True)


def _training(folder: Path, stages: dict[str, list[dict[str, Any]]], of_first: str) -> PageImage:
    title = "Training"
    if not any(line.get("total") is not None for lines in stages.values() for line in lines):
        return PageImage(title, "No stage of this work directory logged its loss.")
    text = (
        "Loss terms (no unit) of every stage over its gradient or meta steps; pale: as logged, "
        "strong: running mean over a twentieth of the stage. Lower is better; total = similarity + weight × "
        "smoothness."
    )
    alt = f"Curves of the loss and its two terms over the steps of {', '.join(map(label, stages))}."
    path = figures.save_figure(figures.figure_training(stages), folder / "training.png")
    return PageImage(title, text + of_first, path, alt)
