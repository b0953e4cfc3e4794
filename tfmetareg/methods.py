"""The rows of the paper's comparison, and the training stages behind them: the one table of both.

Whatever needs a row's name, label, colour, weights, start, length or definition reads it from here: the
choices of `reproduce.rows`, order, labels and colours of the report, what `reproduce` trains, reserved words.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import NamedTuple, Optional

SHORT_EPOCHS = 10
# The word for random weights: a start without a stage.
SCRATCH = "scratch"


class Method(NamedTuple):
    """A row of the comparison.

    Attributes:
        name: in `reproduce.rows` and the names of result files.
        label: shown in tables and figures.
        definition: one sentence on how the row is made.
        colour: in every table and figure. Hues of Okabe-Ito and Tol that stay apart in the common colour
            deficiencies; within a family (fine-tune, ours, matched) the long run is the darker shade.
        weights: the value of `evaluate.weights`: a stage's name, or a word for a row without a network.
        trained: whether there is a stage behind it.
        start: the stage that it is fine-tuned from; empty where it is not fine-tuned.
        length: of its fine-tuning, "short" (`SHORT_EPOCHS`) or "long" (`reproduce.long_epochs`).
        adapted: whether the network is adapted to each test pair alone.
        optional: whether it needs a package, or records, that not everybody has.
    """

    name: str
    label: str
    definition: str
    colour: str
    weights: str
    trained: bool = True
    start: str = ""
    length: str = ""
    adapted: bool = False
    optional: bool = False

    def needs(self, stage: str) -> bool:
        """Whether its weights are those of the stage, or fine-tuned from them."""
        return stage in (self.weights, self.start)


class Stage(NamedTuple):
    """A training stage that is no row: `name` is its mode, section of the configuration and folder."""

    name: str
    label: str
    colour: str


class Start(NamedTuple):
    """What the fine-tuning with few pairs starts from.

    Attributes:
        kind: first part of the names of results, "ours" in "ours-5".
        label: shown in tables and figures.
        stage: the stage with the weights; `SCRATCH` for random ones.
    """

    kind: str
    label: str
    stage: str


METHODS = (
    Method(
        "not_deformed",
        "Not deformed",
        "The moving image as it is: what every other row starts from.",
        colour="#999999",
        weights="none",
        trained=False,
    ),
    Method(
        "affine",
        "Affine only",
        "One affine transform per pair and no deformation.",
        colour="#555555",
        weights="affine",
        trained=False,
        optional=True,
    ),
    Method(
        "model_seen",
        "Model-Seen",
        "VoxelMorph trained from random weights, in one go, on the source tasks and the target's fine-tuning "
        "pairs, with as many gradient steps as pretraining and meta-training took together, on the schedule "
        "of pretraining.",
        colour="#cc79a7",
        weights="model_seen",
    ),
    Method(
        "model_unseen",
        "Model-Unseen",
        "The same on the source tasks alone, applied to the target task, which it has never seen.",
        colour="#882255",
        weights="model_unseen",
    ),
    Method(
        "transfer",
        "Transfer",
        "The network pretrained on the mixed source tasks, applied to the target task without fine-tuning.",
        colour="#b39b00",
        weights="pretrain",
    ),
    Method(
        "fine_tune_10",
        "Fine-tune (10)",
        "The pretrained network, fine-tuned on the target task's fine-tuning pairs for a short time.",
        colour="#f0a13a",
        weights="fine_tune_10",
        start="pretrain",
        length="short",
    ),
    Method(
        "fine_tune_long",
        "Fine-tune (long)",
        "The pretrained network, fine-tuned on the same pairs for a long time.",
        colour="#d55e00",
        weights="fine_tune_long",
        start="pretrain",
        length="long",
    ),
    Method(
        "ours_10",
        "Ours (10)",
        "The pretrained network, meta-trained with Reptile on the source tasks, then fine-tuned on the same "
        "pairs for as long. It has taken more gradient steps on the source tasks; the run card counts them.",
        colour="#56b4e9",
        weights="ours_10",
        start="reptile",
        length="short",
    ),
    Method(
        "ours_long",
        "Ours (long)",
        "The meta-learned initialisation, fine-tuned on the same pairs for a long time.",
        colour="#0072b2",
        weights="ours_long",
        start="reptile",
        length="long",
    ),
    Method(
        "ours_pair",
        "Ours, pair by pair",
        "The meta-learned initialisation, adapted to each test pair alone by a few gradient steps, which its "
        "time holds; it needs no fine-tuning pairs.",
        colour="#003f5c",
        weights="reptile",
        adapted=True,
    ),
    Method(
        "matched",
        "Matched transfer",
        "The control for Ours: the pretrained network, trained on the mixed source tasks for exactly as many "
        "further gradient steps as meta-training took; without fine-tuning.",
        colour="#9bc53d",
        weights="matched",
    ),
    Method(
        "matched_10",
        "Matched (10)",
        "Matched transfer, fine-tuned for a short time.",
        colour="#33b38c",
        weights="matched_10",
        start="matched",
        length="short",
    ),
    Method(
        "matched_long",
        "Matched (long)",
        "Matched transfer, fine-tuned for a long time.",
        colour="#117733",
        weights="matched_long",
        start="matched",
        length="long",
    ),
    Method(
        "elastix",
        "elastix B-spline",
        "Classical B-spline registration with elastix, optimised anew for every pair.",
        colour="#8c6bd1",
        weights="elastix",
        trained=False,
        optional=True,
    ),
    Method(
        "syn",
        "ANTs SyN",
        "Classical symmetric diffeomorphic registration with ANTs, optimised anew for every pair.",
        colour="#332288",
        weights="syn",
        trained=False,
        optional=True,
    ),
)
STAGES = (
    Stage("pretrain", "Pretraining", "#b39b00"),  # Its weights are those of `transfer`.
    Stage("reptile", "Meta-training (Reptile)", "#ff8778"),
    Stage("finetune", "Fine-tuning", "#7a4a2b"),
)
STAGE_LABELS = {stage.name: stage.label for stage in STAGES}
STARTS = (
    Start("ours", "Ours", "reptile"),
    Start("fine_tune", "Fine-tune", "pretrain"),
    Start("matched", "Matched", "matched"),
    Start("scratch", "From scratch", SCRATCH),
)

METHOD_NAMES = tuple(method.name for method in METHODS)
# What `evaluate.weights` takes for a row without a network, and that row.
UNTRAINED = {method.weights: method for method in METHODS if not method.trained}
# Colours of results under names that a user gave; further ones are made.
_OTHER_COLOURS = ("#c21f3a", "#000000", "#e52bd0", "#00b400", "#3d5aff")
# Words that stand for weights, so that no stage may have them for a name; "start" is kept for weights
# shipped with the package.
RESERVED_WEIGHTS = (*UNTRAINED, SCRATCH, "start")


def method_named(name: str) -> Optional[Method]:
    """The row of that name; None where there is none.

    >>> method_named("ours_10").start
    'reptile'
    """
    return next((method for method in METHODS if method.name == name), None)


def colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each row, stage or result, as #rrggbb: one to a name, and no two unknown names alike.

    A result with few pairs has its start's colour. Colours of unknown names depend on all of `names`: give
    all that are shown together.

    >>> colours(["ours_10", "ours-5", "mine"])
    {'ours_10': '#56b4e9', 'ours-5': '#0072b2', 'mine': '#c21f3a'}
    """
    names = list(dict.fromkeys(names))
    known = {name: colour for name in names if (colour := _known_colour(name))}
    others = {name: _other_colour(index) for index, name in enumerate(sorted({*names} - {*known}))}
    return {name: known.get(name) or others[name] for name in names}


def _known_colour(name: str) -> Optional[str]:
    by_name = {row.name: row.colour for row in (*STAGES, *METHODS)}
    kind, _, _ = name.rpartition("-")
    start = next((start for start in STARTS if start.kind == kind), None)
    return by_name.get(name) or (start and start_colour(start))


def start_colour(start: Start) -> str:
    """The colour of its row after a long fine-tuning, or that of images as they are.

    >>> start_colour(STARTS[0])
    '#0072b2'
    """
    rows = {method.start: method.colour for method in METHODS if method.length == "long"}
    return rows.get(start.stage, METHODS[0].colour)


def _other_colour(index: int) -> str:
    if index < len(_OTHER_COLOURS):
        return _OTHER_COLOURS[index]
    # Steps of the golden section never meet a hue twice.
    channels = colorsys.hls_to_rgb(0.6180339887 * index % 1, 0.38 + 0.12 * (index % 3), 0.6)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def label(name: str) -> str:
    """Name shown for a row, a stage or a result with few pairs; an unknown one is shown as it is.

    >>> label("ours_10"), label("pretrain"), label("ours-5"), label("mine")
    ('Ours (10)', 'Pretraining', 'Ours (5 pairs)', 'mine')
    """
    kind, _, pairs = name.rpartition("-")
    for start in STARTS:
        if start.kind == kind:
            return f"{start.label} ({pairs} pairs)"
    method = method_named(name)
    return method.label if method else STAGE_LABELS.get(name, name)


def definition(name: str) -> str:
    """One sentence on how a row is made.

    >>> definition("affine")
    'One affine transform per pair and no deformation.'
    """
    method = method_named(name)
    if method:
        return method.definition
    if name in STAGE_LABELS:
        return f"The weights of the stage `{name}` of this work directory."
    return "A result under a name given by the user."
