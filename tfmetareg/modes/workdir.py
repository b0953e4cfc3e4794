"""The work directory: its data, the weights in it, and its run card."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

import tensorflow as tf

import tfmetareg
from tfmetareg.config import MODES, Config, DataOptions
from tfmetareg.data.embedded import embedded_records
from tfmetareg.data.records import Records
from tfmetareg.device import resolve_precision
from tfmetareg.errors import UserError
from tfmetareg.files import write_json, write_text
from tfmetareg.imaging.names import name_on_disk
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.modes.configured import build_configured, configure_tensorflow, loss_function, resolve_options
from tfmetareg.registration.weights import SHIPPED
from tfmetareg.training.steps import LossFn

_REPOSITORY_OF_A_HOOK = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
)
_PACKAGES = ("tensorflow", "keras", "voxelmorph", "neurite", "tensorflow-addons", "numpy")


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A work directory under one configuration, with its data opened.

    Attributes:
        config: the configuration.
        path: the folder.
        records: the data.
        sources: names of the source tasks.
        target: name of the target task; empty where there is none.
    """

    config: Config
    path: Path
    records: Records
    sources: tuple[str, ...]
    target: str

    def model(self) -> RegistrationModel:
        """The configured network with fresh weights, the same for the same seed."""
        tf.keras.utils.set_random_seed(self.config.seed)
        return build_configured(self.config.model, self.records.manifest.image_shape)

    def with_network_of(self, weights: Optional[Path]) -> Workdir:
        """The same with the options of the network filled in, see `resolve_options`."""
        model = resolve_options(self.config.model, weights)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, model=model))

    def loss_fn(self) -> LossFn:
        """The configured loss, Eq. (1)."""
        return loss_function(self.config.loss)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The source tasks and the target."""
        return (*self.sources, *([self.target] if self.target else []))

    def require_sources(self) -> None:
        """Raises a UserError where there is no source task."""
        if not self.sources:
            raise UserError(f"{self.records.root}: holds no source task; build one with --role source.")

    def require_target(self) -> None:
        """Raises a UserError where there is no target task."""
        if not self.target:
            raise UserError(f"{self.records.root}: holds no target task; build one with --role target.")

    def weights(self, name: str) -> Path:
        """The file that a value of `init` or `weights` stands for, see `find_weights`."""
        return find_weights(self.path, name)

    def stage_fingerprint(self, stage: str) -> dict[str, Any]:
        """What the stage of that name was begun with: values by key; empty if there is none."""
        path = self.path / stage / "checkpoints" / "config.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def begin(self) -> None:
        """Writes the configuration and the run card of what is about to be done.

        Raises:
            UserError: the work directory cannot be written.
        """
        try:
            write_text(self.path / "config.yaml", self.config.to_yaml())
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); name another --workdir."
            ) from None
        packages = {name: metadata.version(name) for name in _PACKAGES}
        self.note(
            schema=1,
            revision=_revision(),
            versions={
                "tfmetareg": tfmetareg.__version__,
                "python": platform.python_version(),
                **packages,
            },
            seed=self.config.seed,
            data={"root": str(self.records.root), "digest": self.records.manifest.digest()},
            device=_device(),
            precision=resolve_precision(self.config.model.precision),
            time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )

    def note(self, **entries: Any) -> None:
        """Sets entries of the run card."""
        write_json(self.path / "run.json", {**read_card(self.path), **entries})

    def note_stage(self, name: str, *, seconds: float, **entries: Any) -> None:
        """Sets the entries of a stage on the run card; the seconds of interrupted runs add up."""
        stages = read_card(self.path).get("stages", {})
        before = stages.get(name, {}).get("seconds", 0.0)
        self.note(stages={**stages, name: {"seconds": round(before + seconds, 3), **entries}})

    def forget_stage(self, name: str) -> None:
        """Takes a stage off the run card."""
        stages = read_card(self.path).get("stages", {})
        self.note(stages={other: entries for other, entries in stages.items() if other != name})


def read_card(workdir: Path) -> dict[str, Any]:
    """The run card of a work directory; empty where there is none yet."""
    path = workdir / "run.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def numbered(path: Path) -> Path:
    """The path with the lowest number behind its name that nothing has yet, "reptile-1" for instance."""
    candidates = (path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def find_weights(workdir: Path, name: str) -> Path:
    """The weights file that a value of `init` or `weights` stands for.

    Args:
        workdir: where stages are looked for.
        name: weights that come with the package, a finished stage of the work directory, or an .h5 file.

    Raises:
        UserError: it is none of these.
    """
    path = Path(workdir) / name / "model.h5"
    if path.is_file():  # Ahead of the shipped ones: version 0.1.0 let a stage be called "start".
        return path
    if name in SHIPPED:
        return SHIPPED[name]
    if Path(name).suffix == ".h5":
        return Path(name_on_disk(Path(), name))
    if name in MODES:
        raise UserError(
            f"{path}: no such weights; run `--mode {name} --workdir {workdir}` first, or name an .h5 file, "
            "or `start`."
        )
    stages = sorted(file.parent.name for file in Path(workdir).glob("*/model.h5"))
    raise UserError(
        f"`{name}` must be an .h5 file or a finished stage of {workdir}, or `start`; "
        f"there are: {', '.join(stages) or 'none'}."
    )


def is_file_name(name: str) -> bool:
    """Whether a value of `init` or `weights` stands for a file, in place of a stage of the work directory.

    >>> is_file_name("best.h5"), is_file_name("start"), is_file_name("reptile")
    (True, True, False)
    """
    return name in SHIPPED or Path(name).suffix == ".h5"


def open_workdir(config: Config, path: Path) -> Workdir:
    """Opens the data, building the embedded tasks where no records are named, and sets the seed.

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
    workdir = Workdir(config, Path(path), records, sources, target)
    if config.data.verify:
        for task in workdir.tasks:
            for split in manifest.task(task).splits:
                records.verify(task, split)
    return workdir


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
    """The git revision of the source, marked where it was changed since; "unknown" outside a checkout.

    The package may be installed within the repository of another project, whose revision says nothing of it.
    """
    source = Path(__file__).resolve()
    checkout = source.parents[2]
    try:
        if Path(_git(checkout, "rev-parse", "--show-toplevel")) != checkout:
            return "unknown"
        _git(checkout, "ls-files", "--error-unmatch", str(source))
        return _git(checkout, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    """What git says in a folder, whatever repository the environment names, as it does in a git hook."""
    environment = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_OF_A_HOOK}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return ", ".join(
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
        )
    threads = len(os.sched_getaffinity(0))
    return f"{platform.processor() or platform.machine()} CPU, {threads} cores"
