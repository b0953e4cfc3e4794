"""The typed configuration: every option's default, type, range and help line; its command line.

The defaults are those of `configs/<mode>.yaml`, for 128x128 images on two CPU
cores. `configs/reproduce_paper.yaml` holds the paper's own values.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List, Literal, Optional, Union, get_args

import yaml
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt, restricted_number_type

MODES = ("pretrain", "reptile", "finetune", "evaluate", "register", "export", "reproduce", "study")

# Folders of a work directory that are not a fine-tuning stage's, and words that stand for weights.
_RESERVED = (
    *("pretrain", "reptile", "results", "tables", "figures", "export", "register"),
    *("tasks", "shots", "replaced"),
    *("none", "affine", "elastix", "syn", "scratch"),
)

Rate = restricted_number_type("Rate", float, [(">", 0), ("<=", 1)], join="and")
Momentum = restricted_number_type("Momentum", float, [(">=", 0), ("<", 1)], join="and")
Window = restricted_number_type("Window", int, [(">=", 3), ("<=", 99)], join="and")
Weight = restricted_number_type("Weight", float, [(">=", 0), ("<", float("inf"))], join="and")
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**31)], join="and")
Annealing = Literal["none", "linear"]
FieldFormat = Literal["npz", "nii.gz", "h5", "tfm"]
Rows = Literal[
    "not_deformed",
    "affine",
    "model_seen",
    "model_unseen",
    "transfer",
    "fine_tune_10",
    "fine_tune_long",
    "ours_10",
    "ours_long",
    "ours_pair",
    "matched",
    "matched_10",
    "matched_long",
    "elastix",
    "syn",
]


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where the records are and which tasks of them play which part.

    Args:
        root: Records folder. Without it, the embedded tasks in data/embedded, built on first use.
        embedded: Options of `tfrecords_builder build --source embedded` for those, "--image-size 96 96" for
            instance; each choice has its own folder.
        sources: Source tasks. Empty means all tasks of that role.
        target: Target task. Empty means the only task of that role.
        verify: Compares every shard of these tasks with the manifest's SHA-256 before anything else.
    """

    root: Optional[str] = None
    embedded: str = ""
    sources: List[str] = dataclasses.field(default_factory=list)
    target: str = ""
    verify: bool = False


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The registration network. What is left empty is as in the start weights, or else the default.

    Args:
        name: Name in the model registry; vxm_dense by default.
        features: U-Net features, encoder then decoder (surplus decoder entries at full resolution);
            [[16,32,32,32],[32,32,32,32,32,16,16]] by default.
        options: The network's other options, {"int_steps": 7} for instance; docs/networks.md lists them.
        module: Python file, or dotted name of a module, that registers networks of your own.
        precision: "float32"; "tensorfloat32" (all products on a GPU); "mixed_bfloat16" (the U-Net alone);
            "auto" takes bfloat16 where the device multiplies it faster than float32, else float32.
    """

    name: str = ""
    features: List[List[PositiveInt]] = dataclasses.field(default_factory=list)
    options: Dict[str, Any] = dataclasses.field(default_factory=dict)
    module: str = ""
    precision: Literal["auto", "float32", "tensorfloat32", "mixed_bfloat16"] = "auto"


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """Eq. (1): similarity + lambda * smoothness.

    Args:
        window: Side of the local NCC window in pixels.
        smoothness_weight: lambda, the weight of the squared displacement gradient.
        similarity: "ncc" ignores flat windows and padding; "voxelmorph" is voxelmorph 0.2's NCC.
    """

    window: Window = 9
    smoothness_weight: Weight = 1.0
    similarity: Literal["ncc", "voxelmorph"] = "ncc"


@dataclasses.dataclass(frozen=True)
class PretrainOptions:
    """Stage 1: joint training on the pooled source tasks.

    Args:
        steps: Gradient steps.
        batch_size: Pairs per gradient step.
        optimizer: What takes the gradient steps.
        learning_rate: The optimizer's rate.
        annealing: "linear" takes the rate to zero over the stage.
        augment: Shows each pair as of another task: other grey levels, orientation and motion.
        init: "scratch" or a voxelmorph .h5 weights file.
    """

    steps: NonNegativeInt = 3000
    batch_size: PositiveInt = 1
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Rate = 1e-3
    annealing: Annealing = "linear"
    augment: bool = False
    init: str = "scratch"


@dataclasses.dataclass(frozen=True)
class ReptileOptions:
    """Stage 2: meta-training, Eq. (2).

    Args:
        meta_steps: Outer updates.
        meta_batch_size: m, tasks sampled per outer update.
        inner_steps: k, inner updates per task.
        inner_batch_size: Pairs per inner update.
        inner_optimizer: Optimizer of the inner loop.
        inner_learning_rate: Rate of the inner loop.
        inner_annealing: "linear" takes that rate to zero over the whole meta-training.
        outer_optimizer: "sgd" is Eq. (2), as printed without momentum; "adam" is the paper's meta-optimizer.
        outer_learning_rate: alpha, outer step size (sgd) or rate of the meta-optimizer (adam).
        outer_momentum: Nesterov momentum of outer sgd, by which past mean differences go on; 0 for none. Adam
            has one of its own.
        outer_annealing: "linear" takes alpha to zero over the outer updates.
        reset_inner: "never" carries the inner optimizer's slots from task to task; "task" zeroes them.
        augment: Makes a task of its own out of each one drawn: other grey levels, orientation and motion.
        side_by_side: Adapts the m tasks at once, with m times the memory; needs reset_inner "task".
        init: "pretrain" (that stage of the same workdir), "scratch" or a .h5 weights file.
    """

    meta_steps: PositiveInt = 400
    meta_batch_size: PositiveInt = 3
    inner_steps: PositiveInt = 5
    inner_batch_size: PositiveInt = 1
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    inner_learning_rate: Rate = 2e-3
    inner_annealing: Annealing = "none"
    outer_optimizer: Literal["adam", "sgd"] = "sgd"
    outer_learning_rate: Rate = 0.5
    outer_momentum: Momentum = 0.9
    outer_annealing: Annealing = "linear"
    reset_inner: Literal["never", "task"] = "never"
    augment: bool = True
    side_by_side: bool = False
    init: str = "pretrain"


@dataclasses.dataclass(frozen=True)
class FinetuneOptions:
    """Stage 3: adaptation to the target task.

    Args:
        epochs: Passes over the fine-tuning pairs.
        pairs: Fine-tunes on so many of them only, drawn by `seed`, few within more; 0 for all.
        batch_size: Pairs per gradient step.
        learning_rate: Adam's rate.
        annealing: "linear" takes the rate to zero over the stage.
        init: "reptile" or "pretrain" (stages of the same workdir), "scratch" or a .h5 weights file.
        evaluate_every: Epochs between evaluations on the test split; 0 for none.
        name: Stage folder within the workdir.
    """

    epochs: PositiveInt = 10
    pairs: NonNegativeInt = 0
    batch_size: PositiveInt = 1
    learning_rate: Rate = 5e-4
    annealing: Annealing = "linear"
    init: str = "reptile"
    evaluate_every: NonNegativeInt = 1
    name: str = "finetune"


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Measures a network on a split of one task.

    Args:
        weights: A stage of the workdir or a .h5 weights file; or "none" for undeformed images, "affine" for
            alignment alone (the records' own, else affine), or a classical method: "elastix", "syn".
        task: Task to evaluate on. Empty means the target.
        split: Split of that task.
        method: Name of the result. Empty means the stage's or the file's name.
        examples: Pairs kept whole for the figures.
        adapt_steps: Gradient steps on each pair before it is measured, each time from the weights; its time
            holds them.
        adapt_learning_rate: Adam's rate for those.
    """

    weights: str = "finetune"
    task: str = ""
    split: Literal["train", "finetune", "test"] = "test"
    method: str = ""
    examples: PositiveInt = 4
    adapt_steps: NonNegativeInt = 0
    adapt_learning_rate: Rate = 5e-4


@dataclasses.dataclass(frozen=True)
class RegisterOptions:
    """Registers image files of any size.

    Args:
        moving: Image file; or a folder whose images pair up with those of `fixed` by name.
        fixed: Image file that `moving` is brought onto; or a folder.
        pairs: In place of both: a pairs.csv, or the folder that holds it.
        weights: A stage of the workdir or a .h5 weights file.
        output: Where the results go, a folder for each pair. Empty means <workdir>/register.
        points: CSV file of points (x,y or row,col) to carry over; or a folder of such, <pair>.csv for each.
        points_in: Image that the points are given in. Those of the fixed image are carried to the moving one,
            by p + u(p); those of the moving image to the fixed one, by the inverse.
        fit: "records" brings images to the size of the records that the weights were trained on; "native"
            keeps their pixels.
        align: Alignment ahead of the network; "records" takes that of the records.
        adapt_steps: Gradient steps on each pair before it is registered, each time from the weights.
        adapt_epochs: Passes over all pairs before the first is registered.
        adapt_learning_rate: Adam's rate for both.
        formats: Files of the displacement: "npz" holds it in pixels, the others are ITK's, in mm.
        figures: Draws the figures; without them a pair takes a fraction of the time.
    """

    moving: str = ""
    fixed: str = ""
    pairs: str = ""
    weights: str = "finetune"
    output: str = ""
    points: str = ""
    points_in: Literal["fixed", "moving"] = "fixed"
    fit: Literal["records", "native"] = "records"
    align: Literal["records", "none", "rigid", "affine"] = "records"
    adapt_steps: NonNegativeInt = 0
    adapt_epochs: NonNegativeInt = 0
    adapt_learning_rate: Rate = 5e-4
    formats: List[FieldFormat] = dataclasses.field(default_factory=lambda: ["npz", "nii.gz", "h5"])
    figures: bool = True


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Writes a SavedModel for TF Serving.

    Args:
        weights: A stage of the workdir or a .h5 weights file.
        name: Model name; the folder is export/<name>/<next version>.
        onnx: Writes export/<name>-<version>.onnx too; needs tf2onnx.
    """

    weights: str = "finetune"
    name: str = "tfmetareg"
    onnx: bool = False


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """The paper's comparison on one target.

    Args:
        rows: Rows of the table; what a row needs is trained, or taken from the workdir where nothing changed.
        seeds: A list of seeds, or how many, counted up from `seed`; several get a folder each.
        long_epochs: Epochs of the rows fine-tuned for a long time.
        pair_steps: Gradient steps on each pair of the row that is adapted to the pair alone.
        shots: Numbers of fine-tuning pairs for a curve over them, "all" for the whole split; [] for none.
        shot_steps: Gradient steps of each point of that curve; 0 for as many as ten epochs of the split.
    """

    rows: List[Rows] = dataclasses.field(default_factory=lambda: list(get_args(Rows)))
    seeds: Union[PositiveInt, List[Seed]] = 1
    long_epochs: PositiveInt = 40
    pair_steps: PositiveInt = 20
    shots: List[Union[PositiveInt, Literal["all"]]] = dataclasses.field(default_factory=list)
    shot_steps: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """Compares schedules on source tasks left out in turn, without a look at the target.

    Args:
        schedules: By name what each changes, {k50: {reptile.inner_steps: 50}, ...}; {} stands for nothing.
        left_out: Source tasks that are left out, one after the other; [] for all.
        seeds: A list of seeds, or how many, counted up from `seed`.
    """

    schedules: Dict[str, Dict[str, Any]] = dataclasses.field(default_factory=lambda: {"as_configured": {}})
    left_out: List[str] = dataclasses.field(default_factory=list)
    seeds: Union[PositiveInt, List[Seed]] = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration; every stage reads its own section and the shared ones.

    Args:
        seed: Seed of initial weights and of the order of the data.
        deterministic: Bit-for-bit repeatable operations on a CPU; without effect on a GPU.
        checkpoint_seconds: Seconds between checkpoints of a running stage.
        log_every: Steps between logged lines.
    """

    seed: Seed = 0
    deterministic: bool = True
    checkpoint_seconds: NonNegativeFloat = 120.0
    log_every: PositiveInt = 10
    data: DataOptions = dataclasses.field(default_factory=DataOptions)
    model: ModelOptions = dataclasses.field(default_factory=ModelOptions)
    loss: LossOptions = dataclasses.field(default_factory=LossOptions)
    pretrain: PretrainOptions = dataclasses.field(default_factory=PretrainOptions)
    reptile: ReptileOptions = dataclasses.field(default_factory=ReptileOptions)
    finetune: FinetuneOptions = dataclasses.field(default_factory=FinetuneOptions)
    evaluate: EvaluateOptions = dataclasses.field(default_factory=EvaluateOptions)
    register: RegisterOptions = dataclasses.field(default_factory=RegisterOptions)
    export: ExportOptions = dataclasses.field(default_factory=ExportOptions)
    reproduce: ReproduceOptions = dataclasses.field(default_factory=ReproduceOptions)
    study: StudyOptions = dataclasses.field(default_factory=StudyOptions)

    def flat(self, *sections: str) -> dict[str, Any]:
        """`section.key: value` of the named sections; "" names the keys outside any section."""
        values = self.to_dict()
        keys = {key: value for key, value in values.items() if not isinstance(value, dict)}
        chosen = keys if "" in sections else {}
        for section in sections:
            if section:
                chosen.update({f"{section}.{key}": value for key, value in values[section].items()})
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """Sections and their values in plain types; the restricted ones are subclasses of them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_yaml(self) -> str:
        """The configuration as YAML that `--config` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)
