"""The comparisons: contenders, and cases of work that they do."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parents[1]
FEATURES = [[16, 32, 32, 32], [32, 32, 32, 32, 32, 16, 16]]
# The tasks on disk, and the number of pairs in each, which is also that of a fine-tuning epoch.
SOURCES = ("one", "two", "three")
TARGET = "target"
PAIRS = 20
# The paper's whole meta-training: 23,000 meta-iterations of m = 3 tasks and k = 10 steps.
PAPER_STEPS = 23_000 * 3 * 10

_PYTORCH = ROOT / ".venv-pytorch" / "bin" / "python"
_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One process in one environment.

    Attributes:
        title: title in the tables.
        module: module in `benchmarks.contenders`.
        python: Python interpreter that runs it.
        environment: its environment variables.
        options: options added to those of each case.
        ours: whether it is this project, which the others are compared with.
    """

    title: str
    module: str
    python: Path = Path(sys.executable)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    ours: bool = False


def _ours(precision: str) -> Contender:
    options = {"precision": precision}
    return Contender(f"tfmetareg, {precision}", "tfmetareg_contender", options=options, ours=True)


CONTENDERS = {
    "ours": Contender("tfmetareg, train.py as it comes", "tfmetareg_contender", ours=True),
    "ours_mixed": _ours("mixed_bfloat16"),
    "ours_float32": _ours("float32"),
    "keras": Contender("voxelmorph 0.2, Keras", "keras_peer"),
    "keras_onednn": Contender("voxelmorph 0.2, Keras, oneDNN on", "keras_peer", environment=_ONEDNN),
    "pytorch": Contender("voxelmorph 0.2, PyTorch", "pytorch_peer", python=_PYTORCH),
    "records": Contender("tfmetareg, records", "readers", ours=True),
    "png": Contender("PNG files through tf.data", "readers"),
    "raw_scan": Contender("TFRecordDataset alone", "readers"),
    "machine": Contender("ceiling", "ceilings", environment=_ONEDNN),
}
_OURS = ("ours_mixed", "ours_float32")
_PEERS = ("keras", "keras_onednn", "pytorch")


@dataclasses.dataclass(frozen=True)
class Case:
    """The same work for several contenders.

    Attributes:
        name: name for `--only` and in the JSON file.
        title: title in the tables.
        work: name of the work in the contenders; None means the contender's own name.
        contenders: names of the contenders, in the order of their turns.
        options: options of the work.
        count: units of work in a repetition.
        unit: noun for a unit.
        measure: key of the measured value in the reply; "seconds" are divided by `count`.
        fresh: runs each repetition in a new process, timed from its start.
        repetitions: largest number of repetitions; None for no limit.
        projected_to: number of units to project the time to; 0 for no projection.
    """

    name: str
    title: str
    work: Optional[str]
    contenders: tuple[str, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    count: int = 1
    unit: str = "run"
    measure: str = "seconds"
    fresh: bool = False
    repetitions: Optional[int] = None
    projected_to: int = 0

    @property
    def needs_data(self) -> bool:
        """Whether the work reads records or PNG files."""
        return self.work in ("training", "finetune_epoch", "start_up", None)


def _meta_step(
    size: int,
    batch: int,
    tasks: int,
    inner_steps: int,
    repetitions: Optional[int] = None,
    projected_to: int = 0,
) -> Case:
    options = {"size": size, "batch": batch, "tasks": tasks, "inner_steps": inner_steps}
    return Case(
        f"meta_step_{size}_b{batch}",
        f"Gradient step within a meta-step (m = {tasks}, k = {inner_steps}), {size}×{size}, batch {batch}",
        "meta_step",
        (*_OURS, *_PEERS),
        options,
        tasks * inner_steps,
        "gradient step",
        repetitions=repetitions,
        projected_to=projected_to,
    )


def _finetune(size: int, pairs: int) -> Case:
    return Case(
        f"finetune_{size}",
        f"Fine-tuning epoch of {pairs} pairs, data feeding included, {size}×{size}, batch 1",
        "finetune_epoch",
        (*_OURS, "keras", "pytorch"),
        {"size": size, "pairs": pairs},
        pairs,
        "gradient step",
    )


def _register(size: int) -> Case:
    return Case(
        f"register_{size}",
        f"Registering one pair in a warm process, {size}×{size}",
        "register",
        (*_OURS, *_PEERS),
        {"size": size},
        unit="pair",
    )


def _peak_memory(inner_steps: int, *peers: str) -> Case:
    # `training` does one meta-step before the timed ones: with none of these, that is the whole work.
    return Case(
        f"memory_400_k{inner_steps}",
        f"Peak memory of a fresh process after a meta-step (m = 3, k = {inner_steps}), 400×400, batch 1",
        "training",
        (*_OURS, *peers),
        {"size": 400, "batch": 1, "tasks": 3, "inner_steps": inner_steps, "meta_steps": 0},
        measure="max_rss_mib",
        fresh=True,
        repetitions=1,
    )


_CEILINGS = (
    Case(
        "matrix_product_float32",
        "Matrix products, float32",
        "matrix_product",
        ("machine",),
        {"dtype": "float32"},
        measure="flops_per_second",
    ),
    Case(
        "matrix_product_bfloat16",
        "Matrix products, bfloat16",
        "matrix_product",
        ("machine",),
        {"dtype": "bfloat16"},
        measure="flops_per_second",
    ),
    Case("memory_traffic", "Memory traffic", "memory", ("machine",), measure="bytes_per_second"),
)

CASES = (
    *_CEILINGS,
    _meta_step(128, 1, 3, 10),
    _meta_step(128, 8, 3, 2),
    _meta_step(400, 1, 3, 3, projected_to=PAPER_STEPS),
    _meta_step(400, 8, 1, 2, repetitions=3),
    _finetune(128, 20),
    _finetune(400, 10),
    _register(128),
    _register(400),
    Case(
        "waiting_400",
        "Waiting for data: meta-steps (m = 3, k = 2) on episodes from records, 400×400, batch 1",
        "training",
        _OURS,
        {"size": 400, "batch": 1, "tasks": 3, "inner_steps": 2, "meta_steps": 6},
        36,
        "gradient step",
        measure="waiting_percent",
    ),
    Case(
        "reading_400",
        "Reading pairs in a random order, 400×400",
        None,
        ("records", "png", "raw_scan"),
        {"size": 400, "reads": 600},
        600,
        "pair",
    ),
    Case(
        "start_up_128",
        "From the start of a process to the end of its first meta-step (m = 3, k = 10), 128×128, batch 1",
        "start_up",
        ("ours", "keras", "pytorch"),
        {"size": 128, "batch": 1, "tasks": 3, "inner_steps": 10},
        unit="start",
        fresh=True,
    ),
    _peak_memory(1, "keras"),
    _peak_memory(10, "keras", "pytorch"),
    _peak_memory(50, "keras"),
)

# Cases short enough for a test.
QUICK_CASES = (*_CEILINGS, _meta_step(128, 1, 2, 2), _register(128))
