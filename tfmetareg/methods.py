"""The rows of the paper's comparison, and the training stages behind them: the one table of both.

Whatever needs a row's name, label, weights, start, length or definition reads it from here: the choices of
`reproduce.rows`, the order and the labels of the report, what `reproduce` trains, the reserved words.
"""

from __future__ import annotations

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
    weights: str
    trained: bool = True
    start: str = ""
    length: str = ""
    adapted: bool = False
    optional: bool = False

    def needs(self, stage: str) -> bool:
        """Whether its weights are those of the stage, or fine-tuned from them."""
        return stage in (self.weights, self.start)


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
        weights="none",
        trained=False,
    ),
    Method(
        "affine",
        "Affine only",
        "One affine transform per pair and no deformation.",
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
        weights="model_seen",
    ),
    Method(
        "model_unseen",
        "Model-Unseen",
        "The same on the source tasks alone, applied to the target task, which it has never seen.",
        weights="model_unseen",
    ),
    Method(
        "transfer",
        "Transfer",
        "The network pretrained on the mixed source tasks, applied to the target task without fine-tuning.",
        weights="pretrain",
    ),
    Method(
        "fine_tune_10",
        "Fine-tune (10)",
        "The pretrained network, fine-tuned on the target task's fine-tuning pairs for a short time.",
        weights="fine_tune_10",
        start="pretrain",
        length="short",
    ),
    Method(
        "fine_tune_long",
        "Fine-tune (long)",
        "The pretrained network, fine-tuned on the same pairs for a long time.",
        weights="fine_tune_long",
        start="pretrain",
        length="long",
    ),
    Method(
        "ours_10",
        "Ours (10)",
        "The pretrained network, meta-trained with Reptile on the source tasks, then fine-tuned on the same "
        "pairs for as long. It has taken more gradient steps on the source tasks; the run card counts them.",
        weights="ours_10",
        start="reptile",
        length="short",
    ),
    Method(
        "ours_long",
        "Ours (long)",
        "The meta-learned initialisation, fine-tuned on the same pairs for a long time.",
        weights="ours_long",
        start="reptile",
        length="long",
    ),
    Method(
        "ours_pair",
        "Ours, pair by pair",
        "The meta-learned initialisation, adapted to each test pair alone by a few gradient steps, which its "
        "time holds; it needs no fine-tuning pairs.",
        weights="reptile",
        adapted=True,
    ),
    Method(
        "matched",
        "Matched transfer",
        "The control for Ours: the pretrained network, trained on the mixed source tasks for exactly as many "
        "further gradient steps as meta-training took; without fine-tuning.",
        weights="matched",
    ),
    Method(
        "matched_10",
        "Matched (10)",
        "Matched transfer, fine-tuned for a short time.",
        weights="matched_10",
        start="matched",
        length="short",
    ),
    Method(
        "matched_long",
        "Matched (long)",
        "Matched transfer, fine-tuned for a long time.",
        weights="matched_long",
        start="matched",
        length="long",
    ),
    Method(
        "elastix",
        "elastix B-spline",
        "Classical B-spline registration with elastix, optimised anew for every pair.",
        weights="elastix",
        trained=False,
        optional=True,
    ),
    Method(
        "syn",
        "ANTs SyN",
        "Classical symmetric diffeomorphic registration with ANTs, optimised anew for every pair.",
        weights="syn",
        trained=False,
        optional=True,
    ),
)
# Training stages that are no row: by name, which is their mode, section of the configuration and folder.
STAGE_LABELS = {"pretrain": "Pretraining", "reptile": "Meta-training (Reptile)", "finetune": "Fine-tuning"}
STARTS = (
    Start("ours", "Ours", "reptile"),
    Start("fine_tune", "Fine-tune", "pretrain"),
    Start("matched", "Matched", "matched"),
    Start("scratch", "From scratch", SCRATCH),
)

METHOD_NAMES = tuple(method.name for method in METHODS)
# What `evaluate.weights` takes for a row without a network, and that row.
UNTRAINED = {method.weights: method for method in METHODS if not method.trained}
# Words that stand for weights, so that no stage may have them for a name; "start" is kept for weights
# shipped with the package.
RESERVED_WEIGHTS = (*UNTRAINED, SCRATCH, "start")


def method_named(name: str) -> Optional[Method]:
    """The row of that name; None where there is none.

    >>> method_named("ours_10").start
    'reptile'
    """
    return next((method for method in METHODS if method.name == name), None)


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
