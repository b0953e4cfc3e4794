"""The typed configuration: every option's default, type, range and help line; its command line.

The defaults are those of `configs/<mode>.yaml`, for 128x128 images on two CPU
cores. `configs/reproduce_paper.yaml` holds the paper's own values.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Union, get_args

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt, restricted_number_type

from tfmetareg.errors import UserError

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
Side = restricted_number_type("Side", int, [(">=", 16), ("<=", 1024)], join="and")
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
class Data:
    """Where the records are and which tasks of them play which part.

    Args:
        root: Records folder. Without it, the embedded tasks in data/embedded, built on first use.
        embedded_size: Side of the embedded tasks' images in pixels; another than 128 has its own folder.
        embedded_align: How their pairs are aligned first; another than none has its own folder, too.
        embedded_share: Of their pairs that is made; another than 1 has its own folder, too.
        sources: Source tasks. Empty means all tasks of that role.
        target: Target task. Empty means the only task of that role.
        verify: Compares every shard of these tasks with the manifest's SHA-256 before anything else.
    """

    root: Optional[str] = None
    embedded_size: Side = 128
    embedded_align: Literal["none", "rigid", "affine"] = "none"
    embedded_share: Rate = 1.0
    sources: List[str] = dataclasses.field(default_factory=list)
    target: str = ""
    verify: bool = False


@dataclasses.dataclass(frozen=True)
class Model:
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
class Loss:
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
class Pretrain:
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
class Reptile:
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
class Finetune:
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
class Evaluate:
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
class Register:
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
class Export:
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
class Reproduce:
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
class Study:
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
    data: Data = dataclasses.field(default_factory=Data)
    model: Model = dataclasses.field(default_factory=Model)
    loss: Loss = dataclasses.field(default_factory=Loss)
    pretrain: Pretrain = dataclasses.field(default_factory=Pretrain)
    reptile: Reptile = dataclasses.field(default_factory=Reptile)
    finetune: Finetune = dataclasses.field(default_factory=Finetune)
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    register: Register = dataclasses.field(default_factory=Register)
    export: Export = dataclasses.field(default_factory=Export)
    reproduce: Reproduce = dataclasses.field(default_factory=Reproduce)
    study: Study = dataclasses.field(default_factory=Study)

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


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for on the command line."""

    mode: str
    workdir: Path
    config: Config


def build_parser() -> ArgumentParser:
    """The parser of `train.py`."""
    parser = ArgumentParser(
        prog="train.py",
        exit_on_error=False,
        allow_abbrev=False,
        description="Meta-learned medical image registration: pretrain, Reptile, fine-tune, evaluate.",
    )
    parser.add_argument("--mode", type=Literal[MODES], required=True, help="What to do.")
    parser.add_argument(
        "--config", action="config", help="YAML file of options; configs/<mode>.yaml without it."
    )
    parser.add_argument("--workdir", type=Optional[str], help="Where results go; runs/<mode> without it.")
    parser.add_class_arguments(Config, as_group=True)
    return parser


def parse_command(arguments: Sequence[str], configs: Path) -> Command:
    """Reads the command line.

    Args:
        arguments: without the program's name.
        configs: folder whose `<mode>.yaml` is read where no `--config` is given.

    Raises:
        UserError: an unknown key, a wrong type, a value out of range, a missing
            or damaged file; one line that names the key, the rule and the value.
    """
    parser = build_parser()
    arguments = list(arguments)
    mode, files = _ahead(arguments)
    default = configs / f"{mode}.yaml"
    if default.is_file() and not files:
        arguments = ["--config", str(default), *arguments]
    for path in filter(None, files):
        _check_file(path)
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        raise UserError(_explain(str(error), parser)) from None
    config = _instantiated(parser, values)
    return Command(values.mode, Path(values.workdir or f"runs/{values.mode}"), config)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with some keys changed.

    Args:
        config: the configuration.
        changes: new values by `section.key`.

    Raises:
        UserError: as `parse_command`.
    """
    values = {**config.to_dict(), "mode": MODES[0]}
    for key, value in changes.items():
        section, _, name = str(key).rpartition(".")
        if key not in flat_keys():
            raise UserError(_unknown(str(key)))
        if value is None:
            raise UserError(f"`{key}` must have a value, got none.")
        (values[section] if section else values)[name] = value
    parser = build_parser()
    try:
        return _instantiated(parser, parser.parse_object(values))
    except ArgumentError as error:
        raise UserError(_explain(str(error), parser)) from None


def _instantiated(parser: ArgumentParser, values: Any) -> Config:
    """The configuration out of what the parser read."""
    # jsonargparse names the call `instantiate_classes` up to 4.48, where `instantiate` is missing.
    values = getattr(parser, "instantiate", parser.instantiate_classes)(values)
    return _checked(Config(**{field.name: values[field.name] for field in dataclasses.fields(Config)}))


def _ahead(arguments: list[str]) -> tuple[Optional[str], list[Optional[str]]]:
    """The mode and the files, read ahead of everything else: the mode decides on the default file."""
    ahead = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ahead.add_argument("--mode", nargs="?")
    ahead.add_argument("--config", nargs="?", action="append", default=[])
    found = ahead.parse_known_args(arguments)[0]
    return found.mode, found.config


def _check_file(path: str) -> None:
    """Refuses a file that holds no configuration by its name, which jsonargparse leaves out."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"`config` ({path}) must be a file that can be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections with their keys, got {content!r:.40}.")


def _checked(config: Config) -> Config:
    """Rules that span more than one value's type."""
    if config.loss.window % 2 == 0:
        raise UserError(f"`loss.window` ({config.loss.window}) must be odd: the window has a centre pixel.")
    if config.reptile.side_by_side and config.reptile.reset_inner != "task":
        raise UserError(
            "`reptile.side_by_side` (true) must be false, unless `reptile.reset_inner` is task: "
            "tasks that are adapted at once cannot hand their slots on."
        )
    features = config.model.features
    if features and (len(features) != 2 or not features[0] or len(features[1]) < len(features[0])):
        raise UserError(
            f"`model.features` ({features}) must be [encoder, decoder], the decoder at least as long."
        )
    for key in ("features", "precision"):
        if key in config.model.options:
            raise UserError(f"`model.options` must not hold {key}; give `model.{key}`.")
    if config.reptile.inner_annealing != "none" and config.reptile.reset_inner == "task":
        raise UserError(
            "`reptile.inner_annealing` (linear) must be none, unless `reptile.reset_inner` is never: "
            "an optimizer that is reset begins its schedule anew."
        )
    for key, seeds in (("reproduce.seeds", config.reproduce.seeds), ("study.seeds", config.study.seeds)):
        if isinstance(seeds, list) and len(set(seeds)) != max(len(seeds), 1):
            raise UserError(f"`{key}` ({seeds}) must be a number or a list of different seeds.")
    for name in config.study.schedules:
        if not re.fullmatch(r"\w[\w.-]*", str(name)) or re.match(r"(start|control)-", str(name)):
            raise UserError(
                "`study.schedules` must have plain names of letters, digits, '_', '-' and '.' that do not "
                f"begin with `start-` or `control-`, got {name!r}."
            )
    for key in ("finetune.name", "evaluate.method", "export.name"):
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if not re.fullmatch(r"[\w.-]*", value) or value.startswith(".") or (name == "name" and not value):
            raise UserError(f"`{key}` ({value!r}) must be a plain name of letters, digits, '_', '-' and '.'.")
    if config.finetune.name in _RESERVED:
        raise UserError(
            f"`finetune.name` must not be one of {', '.join(_RESERVED)}: they have a meaning already."
        )
    return config


_REWORDED = (
    (r'^Parser key "([\w.]+)":', r"`\1`:"),
    (
        r"Does not validate against any of the Union subtypes .*Given value: (.*)$",
        r"must be as `--help` says, got \1.",
    ),
    (r"Not of type \w+: (.+) does not conform to restriction (.+)$", r"must be \2 (v: the value), got \1."),
    (r"Not of type (\w+): .*(?:: | not )'(.*)'$", r"must be of type \1, got \2."),
    (r"Expected a typing\.Literal\[(.+)\]\. Got value: (.*)$", r"must be one of \1, got \2."),
    (r"Expected a <class '(\w+)'>\. Got value: (.*)$", r"must be of type \1, got \2."),
)


def _explain(message: str, parser: ArgumentParser) -> str:
    """One line out of jsonargparse's message; names the nearest known key where one is unknown."""
    line = " ".join(message.split())
    for pattern, plain in _REWORDED:
        line = re.sub(pattern, plain, line)
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line)
    option = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", line)
    if not group and not option:
        return line
    return _unknown(".".join(group.groups()) if group else next(filter(None, option.groups())))


def _unknown(unknown: str) -> str:
    """The line on a key that does not exist."""
    known = ["mode", "config", "workdir", *flat_keys()]
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    hint = f"; did you mean `{near[0]}`?" if near else "; `--help` lists them."
    return f"`{unknown}` is not an option{hint}"


def flat_keys() -> list[str]:
    """Every key as the command line spells it."""
    sections = [field.name for field in dataclasses.fields(Config)]
    whole = dataclasses.asdict(Config())
    return list(Config().flat("", *[name for name in sections if isinstance(whole[name], dict)]))
