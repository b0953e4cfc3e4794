"""Measures a registration over a split: per pair, and summed up."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.evaluation import metrics
from tfmetareg.geometry.affine import compose_displacement
from tfmetareg.geometry.warp import warp
from tfmetareg.training.losses import local_ncc
from tfmetareg.training.steps import LossFn
from tfmetareg.types import PairBatch

# Measures that not every pair has, before and after registration.
_OPTIONAL = {
    "distance_before_px": "distance_px",
    "distance_before_mm": "distance_mm",
    "dice_before": "dice",
}

RegisterFn = Callable[[PairBatch], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class PairResult:
    """One pair's figures, before and after registration.

    Before is the moving image as it is, not aligned; after is all that was done, alignment and
    deformation. Distances are None without landmarks, those in mm also without spacing; Dice is None
    where no pixel of either image has a label. `seconds` hold `seconds_alignment`.
    """

    key: str
    subject: str
    distance_before_px: Optional[float]
    distance_px: Optional[float]
    ncc_before: float
    ncc: float
    local_ncc_before: float
    local_ncc: float
    folding_percent: float
    seconds: float
    loss: float
    landmarks: int
    distance_before_mm: Optional[float] = None
    distance_mm: Optional[float] = None
    dice_before: Optional[float] = None
    dice: Optional[float] = None
    seconds_alignment: float = 0.0


def undeformed(pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
    """The registration that leaves everything in its place."""
    return pair.moving, tf.zeros([*pair.fixed.shape[:3], 2])


class Evaluator:
    """Measures one registration function on one split, as often as it is called.

    Where an example holds the moving image after its alignment, that is what is registered. The alignment
    and the displacement are then composed into one, which warps the moving image as it was and on which
    everything is measured. The seconds are without those of the alignment.
    """

    def __init__(
        self, register: RegisterFn, examples: tf.data.Dataset, loss_fn: LossFn, *, compiled: bool = True
    ):
        """
        Args:
            register: (1, height, width, 1) pair -> warped, displacement.
            examples: as `data.records.examples` gives them.
            loss_fn: (pair, warped, displacement) -> LossTerms, of what is registered.
            compiled: whether `register` is TensorFlow's work; else it is called as it is.

        Raises:
            UserError: as `register` does, with the pair's name.
        """
        self._aligned = "aligned" in examples.element_spec
        self._register = tf.function(register) if compiled else register
        # Traces and warms up, so that no pair's time holds it.
        registered = self._registered(next(iter(examples)))
        self._measure = _compiled_measure(
            loss_fn, *map(tf.TensorSpec.from_tensor, registered), **examples.element_spec
        )
        self._examples = examples

    def __call__(self) -> list[PairResult]:
        """Registers and measures every pair."""
        return [self.register_and_measure(example)[0] for example in self._examples]

    def examples(self, count: int) -> dict[str, np.ndarray]:
        """The first `count` pairs with their images, fields and landmarks, as arrays for a figure."""
        arrays: dict[str, Any] = {"key": [], "moving": [], "fixed": [], "warped": [], "displacement": []}
        landmarks = {}
        for index, example in enumerate(self._examples.take(count)):
            result, warped, displacement = self.register_and_measure(example)
            arrays["key"].append(result.key)
            for name in ("moving", "fixed"):
                arrays[name].append(example[name].numpy()[..., 0])
                landmarks[f"{name}_landmarks_{index}"] = example[f"{name}_landmarks"].numpy()
            arrays["warped"].append(warped.numpy()[0, ..., 0])
            arrays["displacement"].append(displacement.numpy()[0])
        return {**{name: np.stack(values) for name, values in arrays.items()}, **landmarks}

    def register_and_measure(self, example: dict[str, tf.Tensor]) -> tuple[PairResult, tf.Tensor, tf.Tensor]:
        """One pair's figures, its warped image and its displacement."""
        began = time.perf_counter()
        warped, displacement, found = self._registered(example)
        warped.numpy()
        seconds = time.perf_counter() - began
        measured = self._measure(example, warped, displacement, found)
        values: dict[str, Optional[float]] = {name: float(value) for name, value in measured.items()}
        for before, after in _OPTIONAL.items():
            if math.isnan(values[before]):  # Undefined before: the pair has no landmarks, spacing or labels.
                values.update({before: None, after: None})
        result = PairResult(
            key=example["key"].numpy().decode(),
            subject=example["subject"].numpy().decode(),
            seconds=seconds,
            landmarks=len(example["fixed_landmarks"]),
            **values,
        )
        return result, warped, displacement

    def _registered(self, example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The moving image warped by the whole displacement, that displacement, and the part found here."""
        try:
            warped, found = self._register(_seen(example))
        except UserError as error:
            raise UserError(f"{example['key'].numpy().decode()}: {error}") from error
        if not self._aligned:
            return warped, found, found
        whole = compose_displacement(found[0].numpy(), example["alignment"].numpy())[None]
        return _compiled_warp(example["moving"][None], whole), tf.constant(whole), found


def with_alignment_time(results: list[PairResult], seconds: Sequence[float]) -> list[PairResult]:
    """The results with the seconds of finding each pair's alignment, (pairs,), added."""
    return [
        dataclasses.replace(result, seconds=result.seconds + more, seconds_alignment=more)
        for result, more in zip(results, seconds)
    ]


def summary(results: list[PairResult]) -> dict[str, Any]:
    """Means and standard deviations over the pairs, as a result file holds them."""

    marked = [result for result in results if result.landmarks]
    distance = None
    if marked:
        distance = {
            **_spread(marked, "distance_px", "distance_before_px"),
            "before_std": float(np.std([result.distance_before_px for result in marked])),
            "landmarks": sum(result.landmarks for result in marked),
        }
    folding = [result.folding_percent for result in results]
    return {
        "pairs": len(results),
        "distance_px": distance,
        "distance_mm": _optional_spread(results, "distance_mm", "distance_before_mm"),
        "ncc": _spread(results, "ncc", "ncc_before"),
        "local_ncc": _spread(results, "local_ncc", "local_ncc_before"),
        "dice": _optional_spread(results, "dice", "dice_before"),
        "folding_percent": {"mean": float(np.mean(folding)), "max": float(np.max(folding))},
        "seconds_per_pair": {
            "median": float(np.median([result.seconds for result in results])),
            "alignment_median": float(np.median([result.seconds_alignment for result in results])),
        },
    }


def to_csv(results: list[PairResult]) -> str:
    """One line per pair, with a header; an empty field where a measure does not apply."""
    names = [field.name for field in dataclasses.fields(PairResult)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(result) for result in results)
    return text.getvalue()


def _spread(results: list[PairResult], after: str, before: str) -> dict[str, float]:
    """Mean and standard deviation over the pairs after registration, and the mean before."""
    values, values_before = ([getattr(result, name) for result in results] for name in (after, before))
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "before_mean": float(np.mean(values_before)),
    }


def _optional_spread(results: list[PairResult], after: str, before: str) -> Optional[dict[str, float]]:
    """`_spread` over the pairs that have the measure; None where none has."""
    measured = [result for result in results if getattr(result, before) is not None]
    return _spread(measured, after, before) if measured else None


def _batch(example: dict[str, tf.Tensor]) -> PairBatch:
    return PairBatch(example["moving"][None], example["fixed"][None])


def _seen(example: dict[str, tf.Tensor]) -> PairBatch:
    """What is registered: the moving image after its alignment, where there is one."""
    return PairBatch(example.get("aligned", example["moving"])[None], example["fixed"][None])


_compiled_warp = tf.function(warp)


@functools.lru_cache(maxsize=8)
def _compiled_measure(
    loss_fn: LossFn, *specs: tf.TensorSpec, **example: tf.TensorSpec
) -> Callable[..., dict[str, tf.Tensor]]:
    """`_measure` as one graph for all evaluators with the same loss and shapes: tracing it takes long."""
    # The number of landmarks varies from pair to pair; without a signature, each number would be traced.
    return tf.function(functools.partial(_measure, loss_fn), input_signature=[example, *specs])


def _measure(
    loss_fn: LossFn,
    example: dict[str, tf.Tensor],
    warped: tf.Tensor,
    displacement: tf.Tensor,
    found: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """All measures of a batch of one, as scalars; NaN where one does not apply.

    The moving image, its labels and landmarks are as they were before any alignment; but the loss is the
    trained one: of the aligned image, and of what was found after the alignment.
    """
    seen = _seen(example)
    pair = _batch(example)
    landmarks = example["fixed_landmarks"], example["moving_landmarks"]
    labels = example["fixed_labels"], example["moving_labels"]
    after, before = displacement[0], tf.zeros_like(displacement[0])
    values = {
        "ncc_before": metrics.ncc(pair.fixed, pair.moving),
        "ncc": metrics.ncc(pair.fixed, warped),
        "local_ncc_before": local_ncc(pair.fixed, pair.moving),
        "local_ncc": local_ncc(pair.fixed, warped),
        "folding_percent": metrics.folding_percent(displacement),
    }
    return {
        **{name: value[0] for name, value in values.items()},
        "distance_before_px": metrics.landmark_distance(before, *landmarks),
        "distance_px": metrics.landmark_distance(after, *landmarks),
        "distance_before_mm": metrics.landmark_distance(before, *landmarks, example["moving_spacing"]),
        "distance_mm": metrics.landmark_distance(after, *landmarks, example["moving_spacing"]),
        "dice_before": metrics.dice(before, *labels),
        "dice": metrics.dice(after, *labels),
        "loss": loss_fn(seen, warp(seen.moving, found), found).total,
    }
