"""The typed configuration: every option's default, type, range and help line.

The defaults, listed in `configs/reference.yaml`, are for 128x128 images on two CPU
cores. `configs/reproduce_paper.yaml` holds the paper's own values.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict, List, Literal, NamedTuple, Optional, Tuple, Union

import yaml
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt, restricted_number_type

from tfmetareg.methods import METHOD_NAMES, RESERVED_WEIGHTS, STAGE_LABELS


class Mode(NamedTuple):
    """What can be done, in a line, and the sections of options that it reads beside the shared ones."""

    summary: str
    sections: Tuple[str, ...]


_TRAINING = ("pretrain", "reptile", "finetune")
MODES = {
    "pretrain": Mode("joint training on the source tasks (stage 1)", ("pretrain",)),
    "reptile": Mode(
        "meta-training over the source tasks (stage 2; pretrains first)", ("pretrain", "reptile")
    ),
    "finetune": Mode("adaptation to the target task (stage 3)", ("finetune",)),
    "evaluate": Mode("measures weights on a split; table, figures, report.html", ("evaluate",)),
    "register": Mode("registers image files of any size", ("register",)),
    "export": Mode("writes a SavedModel for TF Serving", ("export",)),
    "reproduce": Mode("the paper's comparison: all stages and rows", (*_TRAINING, "evaluate", "reproduce")),
    "study": Mode("compares training schedules on the source tasks alone", (*_TRAINING, "study")),
}

# Folders of a work directory that hold no fine-tuning stage.
_FOLDERS = (
    *(stage for stage in STAGE_LABELS if stage != "finetune"),
    *("results", "tables", "figures", "export", "register", "tasks", "shots", "replaced"),
)
# Names that no fine-tuning stage may have.
RESERVED_NAMES = (*_FOLDERS, *RESERVED_WEIGHTS)

Annealing = Literal["none", "linear"]
FieldFormat = Literal["npz", "nii.gz", "h5", "tfm"]
# mypy alone takes MYPY for true: to it a restricted number is a number, and a row's name a string.
# TYPE_CHECKING would not do: jsonargparse reads what stands under it, and no range would be checked.
MYPY = False
if MYPY:
    Rate = float
    Momentum = float
    Weight = float
    Window = int
    Seed = int
    RowName = str
else:
    Rate = restricted_number_type("Rate", float, [(">", 0), ("<=", 1)], join="and")
    Momentum = restricted_number_type("Momentum", float, [(">=", 0), ("<", 1)], join="and")
    Weight = restricted_number_type("Weight", float, [(">=", 0), ("<", float("inf"))], join="and")
    Window = restricted_number_type("Window", int, [(">=", 3), ("<=", 99)], join="and")
    Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**31)], join="and")
    RowName = Literal[METHOD_NAMES]


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The records, and which of their tasks are the sources and the target.

    Args:
        root: Records folder. Without one: the embedded tasks in data/embedded, built on first use.
        embedded: Options for building the embedded tasks, for instance "--image-size 96 96" (see
            `tfrecords_builder build --source embedded --help`); each choice gets its own folder.
        sources: Source tasks; all tasks with the role "source" where empty.
        target: Target task; the only task with the role "target" where empty.
        verify: Check the SHA-256 of every shard of these tasks before anything else.
    """

    root: Optional[str] = None
    embedded: str = ""
    sources: List[str] = dataclasses.field(default_factory=list)
    target: str = ""
    verify: bool = False


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The registration network. An empty option is read from the start weights, else it is the default.

    Args:
        name: Name in the model registry; vxm_dense by default.
        features: U-Net features, [encoder, decoder]; further decoder entries are layers at full resolution;
            [[16,32,32,32],[32,32,32,32,32,16,16]] by default.
        options: Further options of the network, for instance {"int_steps": 7}; docs/networks.md lists them.
        module: Python file or dotted module name that registers your own networks.
        precision: "float32"; "tensorfloat32" (matrix products on a GPU); "mixed_bfloat16" (the U-Net only);
            "auto" is mixed_bfloat16 where the device computes it faster than float32, else float32.
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
        window: Side of the window that the similarity compares, in pixels.
        smoothness_weight: lambda, the weight of the squared displacement gradient.
        similarity: "ncc" leaves out flat windows and padding; "voxelmorph" is the NCC of voxelmorph 0.2;
            "mind" (MIND-SSC) compares structure, not grey levels: for images of different contrast.
    """

    window: Window = 9
    smoothness_weight: Weight = 1.0
    similarity: Literal["ncc", "voxelmorph", "mind"] = "ncc"


@dataclasses.dataclass(frozen=True)
class PretrainOptions:
    """Stage 1: joint training on the pooled source tasks.

    Args:
        steps: Gradient steps.
        batch_size: Pairs per gradient step.
        optimizer: Optimizer of the gradient steps.
        learning_rate: Learning rate of the optimizer.
        annealing: "linear" lowers the learning rate to zero over the stage.
        augment: Change grey levels, orientation and motion of each pair at random, as if of another task.
        init: Start weights: "scratch" (random), "start" (shipped with the package) or a voxelmorph .h5 file.
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
        meta_batch_size: Tasks per outer update (m in the paper).
        inner_steps: Inner updates per task (k in the paper).
        inner_batch_size: Pairs per inner update.
        inner_optimizer: Optimizer of the inner loop.
        inner_learning_rate: Learning rate of the inner loop.
        inner_annealing: "linear" lowers the inner learning rate to zero over the whole meta-training.
        outer_optimizer: "sgd" is Eq. (2), which has no momentum; "adam" is the paper's meta-optimizer.
        outer_learning_rate: Outer step size (alpha in the paper) of sgd; learning rate of adam.
        outer_momentum: Nesterov momentum of outer sgd; 0 for none. Adam ignores it.
        outer_annealing: "linear" lowers the outer learning rate to zero over the outer updates.
        reset_inner: When to zero the state of the inner optimizer: "never", or at the start of each "task".
        augment: Change grey levels, orientation and motion of each sampled task at random.
        side_by_side: Adapt to the m tasks at once, with m times the memory; needs reset_inner "task".
        init: Start weights: "pretrain" (stage of the same workdir), "scratch" (random), "start" (shipped with
            the package) or a .h5 weights file.
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
        pairs: Number of fine-tuning pairs, 0 for all; smaller subsets are nested in larger ones.
        batch_size: Pairs per gradient step.
        learning_rate: Learning rate of Adam.
        annealing: "linear" lowers the learning rate to zero over the stage.
        init: Start weights: "reptile" or "pretrain" (stages of the same workdir), "scratch" (random), "start"
            (shipped with the package) or a .h5 weights file.
        evaluate_every: Epochs between evaluations on the test split; 0 for none.
        name: Name of the stage, a folder in the workdir.
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
        weights: Stage of the workdir, .h5 weights file or "start" (shipped with the package); or no network:
            "none" (images as they are), "affine" (alignment of the records, else affine), "elastix", "syn".
            A list measures several, one after the other in one process.
        task: Task to evaluate on; the target where empty. A list measures each, with the results in
            <workdir>/tasks/<task>.
        split: Split of the task.
        method: Name of the result; the name of the stage or of the file where empty. Only for one `weights`.
        examples: Number of pairs whose images are kept for the figures, evenly from the worst to the best
            after registration; as many again from before it.
        images: Folder that the records were built from (the builder's --input): figures show its images in
            place of the records', which may be equalised, where they give the records' very pixels. Where
            empty, the folder that the source `pairs` noted beside the records, if it is still there.
        comparison: Picture that compares two images: magenta-green overlay, checkerboard, or by what the
            images are: a checkerboard where they differ in contrast or stain.
        adapt_steps: Gradient steps on each pair before it is measured, always from the same weights; they
            count in its time.
        adapt_learning_rate: Learning rate of Adam in these steps.
    """

    weights: Union[List[str], str] = "finetune"
    task: Union[List[str], str] = ""
    split: Literal["train", "finetune", "test"] = "test"
    method: str = ""
    examples: PositiveInt = 3
    images: str = ""
    comparison: Literal["auto", "overlay", "checkerboard"] = "auto"
    adapt_steps: NonNegativeInt = 0
    adapt_learning_rate: Rate = 5e-4


@dataclasses.dataclass(frozen=True)
class RegisterOptions:
    """Registers image files of any size.

    Args:
        moving: Image file; or a folder of images that pair up with those of `fixed` by name.
        fixed: Image file onto which `moving` is registered; or a folder of images.
        pairs: In place of both: a pairs.csv, or the folder that holds it.
        weights: Stage of the workdir, .h5 weights file or "start" (shipped with the package).
        output: Folder of the results, one folder for each pair; <workdir>/register where empty.
        points: File of points to map (docs/landmarks.md: CSV, 3D Slicer, ANTs, ImageJ, elastix); or a folder
            with one for each pair, <pair>.csv or of another ending.
        labels: Label map of the moving image (PNG, TIFF, NIfTI, npy) to carry to the fixed one; or a folder
            with one named like each moving image. A pairs.csv names them in its column moving_labels.
        fixed_labels: Likewise of the fixed image: the overlap (Dice) of both is then measured.
        points_in: Image in which the points lie. Points of the fixed image are mapped to the moving image by
            p + u(p), points of the moving image to the fixed image by the inverse.
        fit: "records" resizes images to the size at which the weights were trained; "native" keeps their
            pixels.
        align: Alignment before the network; "records" is the alignment of the training records, and "affine"
            for the weights shipped with the package.
        adapt_steps: Gradient steps on each pair before it is registered, always from the same weights.
        adapt_epochs: Passes over all pairs before the first is registered.
        adapt_learning_rate: Learning rate of Adam in both.
        similarity: Similarity of both: "auto" takes "mind" where the images differ in contrast, else
            `loss.similarity`; "ncc", "voxelmorph" or "mind" takes that one, see `loss.similarity`.
        formats: File formats of the displacement: "npz" is in pixels, the others are in mm and read by ITK.
        figures: Draw figures and the page of the pair; without them a pair takes a fraction of the time.
        comparison: Picture that compares both images: magenta-green overlay, checkerboard, or by what the
            images are: a checkerboard where they differ in contrast or stain.
    """

    moving: str = ""
    fixed: str = ""
    pairs: str = ""
    weights: str = "finetune"
    output: str = ""
    points: str = ""
    labels: str = ""
    fixed_labels: str = ""
    points_in: Literal["fixed", "moving"] = "fixed"
    fit: Literal["records", "native"] = "records"
    align: Literal["records", "none", "rigid", "affine"] = "records"
    adapt_steps: NonNegativeInt = 0
    adapt_epochs: NonNegativeInt = 0
    adapt_learning_rate: Rate = 5e-4
    similarity: Literal["auto", "ncc", "voxelmorph", "mind"] = "auto"
    formats: List[FieldFormat] = dataclasses.field(default_factory=lambda: ["npz", "nii.gz", "h5"])
    figures: bool = True
    comparison: Literal["auto", "overlay", "checkerboard"] = "auto"


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Writes a SavedModel for TF Serving.

    Args:
        weights: Stage of the workdir, .h5 weights file or "start" (shipped with the package).
        name: Name of the model, which is written to export/<name>/<next version>.
        onnx: Write export/<name>-<version>.onnx too; needs tf2onnx.
    """

    weights: str = "finetune"
    name: str = "tfmetareg"
    onnx: bool = False


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """The paper's comparison on one target.

    Args:
        rows: Rows of the table. Stages that they need are trained, unless the workdir holds them unchanged.
        seeds: List of seeds, or their number, counted from `seed`; each of several seeds has its own folder.
        long_epochs: Epochs of the rows that are fine-tuned for long.
        pair_steps: Gradient steps on each pair in the row `ours_pair`.
        shots: Numbers of fine-tuning pairs for the curve of accuracy over pairs, "all" for the whole split;
            [] for no curve.
        shot_steps: Gradient steps for each point of that curve; 0 for as many as ten epochs of the split.
    """

    rows: List[RowName] = dataclasses.field(default_factory=lambda: list(METHOD_NAMES))
    seeds: Union[PositiveInt, List[Seed]] = 1
    long_epochs: PositiveInt = 40
    pair_steps: PositiveInt = 20
    shots: List[Union[PositiveInt, Literal["all"]]] = dataclasses.field(default_factory=list)
    shot_steps: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """Compares training schedules by leaving out one source task at a time; the target is not used.

    Args:
        schedules: Options that each schedule changes, {k50: {reptile.inner_steps: 50}, ...}; {} for none.
        left_out: Source tasks to leave out, one at a time; [] for each of them.
        seeds: List of seeds, or their number, counted from `seed`.
    """

    schedules: Dict[str, Dict[str, Any]] = dataclasses.field(default_factory=lambda: {"as_configured": {}})
    left_out: List[str] = dataclasses.field(default_factory=list)
    seeds: Union[PositiveInt, List[Seed]] = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration; every stage reads its own section and the shared ones.

    Args:
        seed: Seed of the initial weights and of the order of the data.
        deterministic: Use bit-for-bit repeatable operations on a CPU; without effect on a GPU.
        checkpoint_seconds: Seconds between checkpoints in training.
        log_every: Steps between lines of the training log.
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
        """Values by `section.key` in the named sections; "" names the keys outside of sections."""
        values = self.to_dict()
        keys = {key: value for key, value in values.items() if not isinstance(value, dict)}
        chosen = keys if "" in sections else {}
        for section in sections:
            if section:
                chosen.update({f"{section}.{key}": value for key, value in values[section].items()})
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """The sections as JSON values, without the restricted number types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_yaml(self) -> str:
        """The configuration as YAML that `--config` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)
