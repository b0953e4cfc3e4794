"""Measures a registration function on a split: for each pair, and summarised over the pairs."""

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

# Measures that some pairs lack, before and after registration.
_OPTIONAL = {
    "distance_before_px": "distance_px",
    "distance_before_mm": "distance_mm",
    "dice_before": "dice",
}

RegisterFn = Callable[[PairBatch], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class PairResult:
    """Measures of one pair, before and after registration.

    "Before" is the unaligned moving image; "after" includes alignment and deformation. Distances are None
    without landmarks, and those in mm also without pixel spacing. Dice is None if neither image has labels.
    `seconds` include `seconds_alignment`.
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
    """The identity as a registration function: returns the moving image and a zero displacement."""
    return pair.moving, tf.zeros([*pair.fixed.shape[:3], 2])


class Evaluator:
    """Measures one registration function on one split, each time it is called.

    If the examples hold an aligned moving image, this is registered. Alignment and displacement are then
    composed to one displacement, which warps the unaligned moving image and on which everything is measured.
    The seconds do not include the alignment.
    """

    def __init__(
        self, register: RegisterFn, examples: tf.data.Dataset, loss_fn: LossFn, *, compiled: bool = True
    ):
        """
        Args:
            register: pair, (1, height, width, 1) each -> warped, displacement.
            examples: elements as from `data.records.examples`.
            loss_fn: (pair, warped, displacement) -> LossTerms, of the pair that is registered.
            compiled: compiles `register` as a TensorFlow graph; otherwise it is called as it is.

        Raises:
            UserError: raised by `register`; the pair's name is added.
        """
        self._aligned = "aligned" in examples.element_spec
        self._register = tf.function(register) if compiled else register
        # Traces and warms up, so that this does not count in the time of the first pair.
        registered = self._registered(next(iter(examples)))
        self._measure = _compiled_measure(
            loss_fn, *map(tf.TensorSpec.from_tensor, registered), **examples.element_spec
        )
        self._examples = examples

    def __call__(self) -> list[PairResult]:
        """Registers and measures each pair of the split."""
        return [self.register_and_measure(example)[0] for example in self._examples]

    def examples(self, count: int) -> dict[str, np.ndarray]:
        """Images, displacements and landmarks of the first `count` pairs, as arrays for figures."""
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
        """Returns the measures of one pair, its warped image and its displacement."""
        began = time.perf_counter()
        warped, displacement, predicted = self._registered(example)
        warped.numpy()
        seconds = time.perf_counter() - began
        measured = self._measure(example, warped, displacement, predicted)
        values: dict[str, Any] = {name: float(value) for name, value in measured.items()}
        for before, after in _OPTIONAL.items():
            if math.isnan(values[before]):  # The pair has no landmarks, spacing or labels.
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
        """The warped image, its displacement with the alignment, and the displacement from `register`."""
        try:
            warped, predicted = self._register(_network_input(example))
        except UserError as error:
            raise UserError(f"{example['key'].numpy().decode()}: {error}") from error
        if not self._aligned:
            return warped, predicted, predicted
        whole = compose_displacement(predicted[0].numpy(), example["alignment"].numpy())[None]
        return _compiled_warp(example["moving"][None], whole), tf.constant(whole), predicted


def with_alignment_time(results: list[PairResult], seconds: Sequence[float]) -> list[PairResult]:
    """Adds the seconds that finding each pair's alignment took, (pairs,), to the results."""
    return [
        dataclasses.replace(result, seconds=result.seconds + more, seconds_alignment=more)
        for result, more in zip(results, seconds)
    ]


def summary(results: list[PairResult]) -> dict[str, Any]:
    """Means and standard deviations over the pairs: the measures of a result file."""

    marked = [result for result in results if result.landmarks]
    distance: Optional[dict[str, float]] = None
    if marked:
        before = [result.distance_before_px for result in marked if result.distance_before_px is not None]
        distance = {
            **_spread(marked, "distance_px", "distance_before_px"),
            "before_std": float(np.std(before)),
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
    """CSV with a header and a line per pair; empty fields for measures that a pair lacks."""
    names = [field.name for field in dataclasses.fields(PairResult)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(result) for result in results)
    return text.getvalue()


def _spread(results: list[PairResult], after: str, before: str) -> dict[str, float]:
    """Mean and standard deviation over the pairs after registration, and their mean before."""
    values, values_before = ([getattr(result, name) for result in results] for name in (after, before))
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "before_mean": float(np.mean(values_before)),
    }


def _optional_spread(results: list[PairResult], after: str, before: str) -> Optional[dict[str, float]]:
    """`_spread` over the pairs that have the measure; None if no pair has it."""
    measured = [result for result in results if getattr(result, before) is not None]
    return _spread(measured, after, before) if measured else None


def _batch(example: dict[str, tf.Tensor]) -> PairBatch:
    return PairBatch(example["moving"][None], example["fixed"][None])


def _network_input(example: dict[str, tf.Tensor]) -> PairBatch:
    """The pair to register: with the aligned moving image, if the example has one."""
    return PairBatch(example.get("aligned", example["moving"])[None], example["fixed"][None])


_compiled_warp = tf.function(warp)


@functools.lru_cache(maxsize=8)
def _compiled_measure(
    loss_fn: LossFn, *specs: tf.TensorSpec, **example: tf.TensorSpec
) -> Callable[..., dict[str, tf.Tensor]]:
    """`_measure` as a graph, shared by all evaluators with the same loss and shapes: tracing is slow."""
    # The number of landmarks varies; without a signature, each new number would be traced again.
    return tf.function(functools.partial(_measure, loss_fn), input_signature=[example, *specs])


def _measure(
    loss_fn: LossFn,
    example: dict[str, tf.Tensor],
    warped: tf.Tensor,
    displacement: tf.Tensor,
    predicted: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """All measures of a batch of one pair, as scalars; NaN for measures that the pair lacks.

    Moving image, labels and landmarks are the unaligned ones. Only the loss is that of training: of the
    aligned image and the displacement predicted for it.
    """
    network_input = _network_input(example)
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
        "loss": loss_fn(network_input, warp(network_input.moving, predicted), predicted).total,
    }
