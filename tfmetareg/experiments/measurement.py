"""The measurement of a row, as a value: what it depends on, whether it is current, and how to make it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from tfmetareg.cache import DEPENDS_ON, digest, is_current
from tfmetareg.config import EvaluateOptions
from tfmetareg.device import resolve_precision
from tfmetareg.files import published, sha256, write_json
from tfmetareg.modes.evaluate import evaluate
from tfmetareg.modes.stage import Stage, State
from tfmetareg.modes.workdir import Workdir, numbered

# Suffixes of the files of a result; the last one is there only with the others.
_SUFFIXES = (".csv", ".examples.npz", ".json")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Weights measured on the test pairs of the target: a row of a table.

    Attributes:
        workdir: where the result is written, with the configuration and the data.
        method: name of the result.
        weights: value of `evaluate.weights`.
        stage: the stage with the weights; None for a row without a network.
        pair_steps: gradient steps on each pair before it is measured.
        examples: number of pairs whose images are kept for the figures; 0 for as many as configured.
        optional: whether the comparison goes on without it where it cannot be made.
    """

    workdir: Workdir
    method: str
    weights: str
    stage: Optional[Stage] = None
    pair_steps: int = 0
    examples: int = 0
    optional: bool = False

    @property
    def result(self) -> Path:
        """The JSON file of the result."""
        return self.workdir.path / "results" / f"{self.method}.json"

    @property
    def options(self) -> EvaluateOptions:
        """How the weights are measured."""
        configured, default = self.workdir.config.evaluate, EvaluateOptions()
        return dataclasses.replace(
            configured,
            weights=self.weights,
            task="",
            split="test",
            method=self.method,
            examples=self.examples or configured.examples,
            adapt_steps=self.pair_steps,
            # No adaptation steps: the learning rate is unused.
            adapt_learning_rate=(configured if self.pair_steps else default).adapt_learning_rate,
        )

    def depends_on(self) -> str:
        """Digest of all that decides on the result: the weights, the test pairs, how they are measured."""
        config, manifest, target = self.workdir.config, self.workdir.records.manifest, self.workdir.target
        values: dict[str, Any] = {
            **dataclasses.replace(config, evaluate=self.options).flat("model", "loss", "evaluate"),
            "model.precision": resolve_precision(config.model.precision),
            "evaluate.weights": sha256(self.stage.weights) if self.stage else self.weights,
            "records": [manifest.image_shape, manifest.preprocessing_of(target)],
            "test pairs": manifest.task(target).describe(),
        }
        return digest(values)

    def is_current(self) -> bool:
        """Whether its result is there and what it depends on has not changed."""
        if self.stage and self.stage.state() is not State.FINISHED:
            return False
        return is_current(self.result, self.depends_on())

    def make(self) -> None:
        """Measures the weights, which have to be there, unless a current result is there.

        A result without a network is copied from another seed of the same comparison that has it.

        Raises:
            UserError: see `evaluate`.
        """
        depends_on = self.depends_on()
        if is_current(self.result, depends_on):
            return
        self.result.unlink(missing_ok=True)  # The files beside it are about to change.
        others = () if self.stage else self._of_other_seeds()
        same = next((other for other in others if is_current(other, depends_on)), None)
        if same:
            _copy_result(same, self.result)
        else:
            evaluate(self.workdir, self.options)
        content = json.loads(self.result.read_text())
        write_json(self.result, {**content, "seed": self.workdir.config.seed, DEPENDS_ON: depends_on})

    def _of_other_seeds(self) -> Iterable[Path]:
        return self.workdir.path.parent.glob(f"seed-*/results/{self.method}.json")


def set_results_aside(workdir: Workdir, methods: Iterable[str]) -> None:
    """Moves the results of these names to a new folder in `replaced/`."""
    place = numbered(workdir.path / "replaced" / "results")
    place.mkdir(parents=True)
    for method in methods:
        for suffix in reversed(_SUFFIXES):
            path = (workdir.path / "results" / f"{method}.json").with_suffix(suffix)
            if path.is_file():
                path.rename(place / path.name)
    print(f"{', '.join(methods)}: not of this configuration, moved to {place}", file=sys.stderr)


def _copy_result(result: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    for suffix in _SUFFIXES:
        with published(place.with_suffix(suffix)) as temporary:
            shutil.copyfile(result.with_suffix(suffix), temporary)
