"""What every mode starts from: the work directory, the data, the run card."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

import tensorflow as tf

from tfmetareg.config import MODES, Config, DataOptions, LossOptions, ModelOptions
from tfmetareg.data.embedded import embedded_records
from tfmetareg.data.records import Records
from tfmetareg.device import accelerator, resolve_precision, set_precision
from tfmetareg.errors import UserError
from tfmetareg.files import write_json, write_text
from tfmetareg.models.build import build_network, resolve_network
from tfmetareg.models.registry import (
    Architecture,
    RegistrationModel,
)
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.steps import LossFn

_PACKAGES = ("tensorflow", "keras", "voxelmorph", "neurite", "tensorflow-addons", "numpy")


class NotTrainedError(UserError):
    """A stage is not finished, and nothing may be trained."""

    def __init__(self, stage: str):
        super().__init__(f"{stage}: not trained yet.")
        self.stage = stage


@dataclasses.dataclass(frozen=True)
class Workdir:
    """One work directory under one configuration, with its data opened.

    Attributes:
        replaces: whether a stage that was begun with another configuration is set
            aside and trained anew, in place of being refused.
        trains: whether a stage that is not finished is trained, in place of being
            reported as `NotTrainedError`.
    """

    config: Config
    workdir: Path
    records: Records
    sources: tuple[str, ...]
    target: str
    replaces: bool = False
    trains: bool = True

    def model(self) -> RegistrationModel:
        """The configured network with fresh weights, the same for the same seed."""
        tf.keras.utils.set_random_seed(self.config.seed)
        return build_configured(self.config.model, self.records.manifest.image_shape)

    def starting_from(self, weights: Optional[Path]) -> Workdir:
        """This run with its network settled, see `resolve_network`."""
        model = resolve_options(self.config.model, weights)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, model=model))

    def loss_fn(self) -> LossFn:
        """Eq. (1) with the configured window, weight and similarity."""
        return loss_function(self.config.loss)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that plays a part, the target last."""
        return (*self.sources, *([self.target] if self.target else []))

    def stage_weights(self, name: str) -> Path:
        """Where the stage of that name leaves its weights."""
        return self.workdir / name / "model.h5"

    def weights(self, init: str) -> Path:
        """The file that `init` names, see `find_weights`."""
        return find_weights(self.workdir, init)

    def decided(self, stage: str) -> dict[str, Any]:
        """Configuration that a stage of this work directory was trained with; empty if it is no stage."""
        path = self.workdir / stage / "checkpoints" / "config.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def set_aside(self, stage: str, *, unless: Optional[dict[str, Any]] = None) -> None:
        """Moves a stage to `replaced/`, unless it was trained with just this configuration."""
        found = self.decided(stage)
        if not found or found == json.loads(json.dumps(unless)):
            return
        place = unused(self.workdir / "replaced" / stage)
        place.parent.mkdir(parents=True, exist_ok=True)
        (self.workdir / stage).rename(place)
        stages = read_card(self.workdir).get("stages", {})
        self.note(stages={name: entries for name, entries in stages.items() if name != stage})
        print(f"{stage}: begun with another configuration, moved to {place}", file=sys.stderr)

    def begin(self) -> None:
        """Writes the configuration and the run card of what is about to be done.

        Raises:
            UserError: the work directory cannot be written.
        """
        try:
            write_text(self.workdir / "config.yaml", self.config.to_yaml())
        except OSError as error:
            raise UserError(
                f"{self.workdir}: cannot be written ({error.strerror}); name another --workdir."
            ) from None
        packages = {name: metadata.version(name) for name in _PACKAGES}
        self.note(
            schema=1,
            revision=_revision(),
            versions={"python": platform.python_version(), **packages},
            seed=self.config.seed,
            data={"root": str(self.records.root), "digest": self.records.manifest.digest()},
            device=_device(),
            precision=resolve_precision(self.config.model.precision),
            time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )

    def note(self, **entries: Any) -> None:
        """Adds entries to the run card."""
        write_json(self.workdir / "run.json", {**read_card(self.workdir), **entries})

    def note_stage(self, name: str, **entries: Any) -> None:
        """Adds a stage to the run card; seconds add up over interruptions."""
        stages = read_card(self.workdir).get("stages", {})
        before = stages.get(name, {}).get("seconds", 0.0)
        entries["seconds"] = round(before + entries["seconds"], 3)
        self.note(stages={**stages, name: entries})


def read_card(workdir: Path) -> dict[str, Any]:
    """The run card of a work directory; empty where there is none yet."""
    path = workdir / "run.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def unused(path: Path) -> Path:
    """The path with the lowest number behind it that makes it new."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(candidate for candidate in numbered if not candidate.exists())


def resolve_options(options: ModelOptions, weights: Optional[Path]) -> ModelOptions:
    """The options with everything that they leave open filled in, see `resolve_network`."""
    network = _resolved(options, weights)
    others = dict(network.options)
    features = others.pop("features", [])
    return dataclasses.replace(options, name=network.name, features=features, options=others)


def build_configured(
    options: ModelOptions, image_shape: tuple[int, int], weights: Optional[Path] = None
) -> RegistrationModel:
    """The configured network with the weights of a file, or with fresh ones."""
    network = _resolved(options, weights)
    return build_network(network, image_shape, precision=options.precision, weights=weights)


def _resolved(options: ModelOptions, weights: Optional[Path]) -> Architecture:
    return resolve_network(
        weights, name=options.name, features=options.features, options=options.options, module=options.module
    )


@functools.cache
def loss_function(options: LossOptions) -> LossFn:
    """Eq. (1) with the configured window, weight and similarity; the same object for the same options."""
    return functools.partial(registration_loss, **dataclasses.asdict(options))


def configure_tensorflow(config: Config) -> None:
    """Seeds everything random and sets how operations are computed, before the first of them."""
    # The seed fixes the data's order too: tf.data mixes TensorFlow's global one into each stream's own.
    tf.keras.utils.set_random_seed(config.seed)
    # For a GPU, XLA has no deterministic gradient of max pooling: it would refuse to train.
    if config.deterministic and not accelerator():
        tf.config.experimental.enable_op_determinism()
    set_precision(config.model.precision)


def find_weights(workdir: Path, init: str) -> Path:
    """The file that `init` names: a finished stage of the work directory, else a path.

    Raises:
        UserError: it is neither.
    """
    path = Path(workdir) / init / "model.h5"
    if path.is_file():
        return path
    if Path(init).suffix == ".h5":
        return Path(init)
    if init in MODES:
        raise UserError(
            f"{path}: no such weights; run `--mode {init} --workdir {workdir}` first, or name an .h5 file."
        )
    stages = sorted(found.parent.name for found in Path(workdir).glob("*/model.h5"))
    raise UserError(
        f"`{init}` must be an .h5 file or a finished stage of {workdir}; "
        f"there are: {', '.join(stages) or 'none'}."
    )


def open_workdir(config: Config, workdir: Path) -> Workdir:
    """Opens the data, building the embedded tasks where none are named, and sets the seed.

    Raises:
        UserError: the data root does not exist, a task is not in it, named
            twice or both source and target, or the target is ambiguous.
    """
    configure_tensorflow(config)
    records = _open_records(config.data)
    manifest = records.manifest
    target = _target(config, records)
    others = [name for name in manifest.names("source") if name != target]
    sources = tuple(config.data.sources or others)
    for name in sources:
        manifest.task(name)
    if target in sources:
        raise UserError(f"`data.sources` ({', '.join(sources)}) must not hold the target, `{target}`.")
    if len(set(sources)) < len(sources):
        raise UserError(f"`data.sources` ({', '.join(sources)}) must name each task once.")
    run = Workdir(config, Path(workdir), records, sources, target)
    if config.data.verify:
        for task in run.tasks:
            for split in manifest.task(task).splits:
                records.verify(task, split)
    return run


def _open_records(data: DataOptions) -> Records:
    """The named records, or the embedded ones."""
    return Records(embedded_records(data.embedded) if data.root is None else data.root)


def _target(config: Config, records: Records) -> str:
    """The target task's name; empty where the records hold none."""
    if config.data.target:
        return records.manifest.task(config.data.target).name
    targets = records.manifest.names("target")
    if len(targets) > 1:
        raise UserError(f"`data.target` must name one of the targets {', '.join(targets)}; got none.")
    return targets[0] if targets else ""


def _revision() -> str:
    """The source's git revision, with a mark where it was changed since; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return ", ".join(
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
        )
    threads = len(os.sched_getaffinity(0))
    return f"{platform.processor() or platform.machine()} CPU, {threads} cores"
