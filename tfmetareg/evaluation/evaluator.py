"""Measures a registration function on a split: for each pair, and summarised over the pairs."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.evaluation import metrics
from tfmetareg.evaluation.overlap import MEASURES, LabelAgreement, agreement, before, pair_means
from tfmetareg.files import to_cell
from tfmetareg.geometry.affine import compose_displacement
from tfmetareg.geometry.displacement import warp_labels
from tfmetareg.geometry.warp import warp
from tfmetareg.imaging.labels import labels_of_codes
from tfmetareg.training.losses import local_ncc
from tfmetareg.training.steps import LossFn
from tfmetareg.types import PairBatch, is_aligned

# Measures that some pairs lack, before and after registration.
_OPTIONAL = {
    "distance_before_px": "distance_px",
    "distance_before_mm": "distance_mm",
}

RegisterFn = Callable[[PairBatch], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class PairResult:
    """Measures of one pair, before and after registration.

    "Before" is the unaligned moving image; "after" includes alignment and deformation. Distances are None
    without landmarks, and those in mm also without pixel spacing. Measures of labels, see
    `evaluation.overlap`, are means over the pair's labels, None if neither image has any; `labels` holds
    those of each label, and `labels_lost` counts the labels that both images have and the warped one no
    more. `seconds` include `seconds_alignment`. `aligned` is 1 where the alignment found something, 0 where
    nothing, None where alignment is no part of the method.
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
    aligned: Optional[int] = None
    hd95_before_px: Optional[float] = None
    hd95_px: Optional[float] = None
    hd95_before_mm: Optional[float] = None
    hd95_mm: Optional[float] = None
    assd_before_px: Optional[float] = None
    assd_px: Optional[float] = None
    assd_before_mm: Optional[float] = None
    assd_mm: Optional[float] = None
    labels_lost: Optional[int] = None
    labels: Mapping[int, LabelAgreement] = dataclasses.field(default_factory=dict)


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

    def examples(self, places: Sequence[int]) -> dict[str, np.ndarray]:
        """Images, displacements, landmarks and labels of some pairs, as arrays for figures.

        Args:
            places: of the pairs in the split; the arrays have the same order.
        """
        arrays: dict[str, Any] = {"key": [], "moving": [], "fixed": [], "warped": [], "displacement": []}
        marks = {}
        wanted = {
            place: example
            for place, example in enumerate(self._examples.take(max(places) + 1))
            if place in places
        }
        for index, place in enumerate(places):
            example = wanted[place]
            result, warped, displacement = self.register_and_measure(example)
            arrays["key"].append(result.key)
            for name in ("moving", "fixed"):
                arrays[name].append(example[name].numpy()[..., 0])
                marks[f"{name}_landmarks_{index}"] = example[f"{name}_landmarks"].numpy()
            arrays["warped"].append(warped.numpy()[0, ..., 0])
            arrays["displacement"].append(displacement.numpy()[0])
            labels = _labels(example)
            if labels is not None:
                maps = (*labels, warp_labels(labels[0], displacement.numpy()[0]))
                marks.update(zip((f"{name}_labels_{index}" for name in ("moving", "fixed", "warped")), maps))
        return {**{name: np.stack(values) for name, values in arrays.items()}, **marks}

    def register_and_measure(self, example: dict[str, tf.Tensor]) -> tuple[PairResult, tf.Tensor, tf.Tensor]:
        """Returns the measures of one pair, its warped image and its displacement."""
        began = time.perf_counter()
        warped, displacement, predicted = self._registered(example)
        warped.numpy()
        seconds = time.perf_counter() - began
        measured = self._measure(example, warped, displacement, predicted)
        values: dict[str, Any] = {name: float(value) for name, value in measured.items()}
        for untouched, after in _OPTIONAL.items():
            if math.isnan(values[untouched]):  # The pair has no landmarks or no spacing.
                values.update({untouched: None, after: None})
        values.update(_label_measures(example, displacement.numpy()[0]))
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


def with_alignments(results: list[PairResult], alignments: np.ndarray) -> list[PairResult]:
    """Adds to the results whether the alignment of each pair, (pairs, 2, 3), found anything."""
    return [
        dataclasses.replace(result, aligned=int(is_aligned(alignment)))
        for result, alignment in zip(results, alignments)
    ]


def unaligned(results: list[PairResult]) -> Optional[list[str]]:
    """Keys of the pairs whose alignment found nothing; None where pairs were not aligned."""
    if all(result.aligned is None for result in results):
        return None
    return [result.key for result in results if not result.aligned]


def summary(results: list[PairResult]) -> dict[str, Any]:
    """Means and standard deviations over the pairs: the measures of a result file."""

    marked = [result for result in results if result.landmarks]
    distance: Optional[dict[str, float]] = None
    if marked:
        at_first = [result.distance_before_px for result in marked if result.distance_before_px is not None]
        distance = {
            **_spread(_values(marked, "distance_px", "distance_before_px")),
            "before_std": float(np.std(at_first)),
            "landmarks": sum(result.landmarks for result in marked),
        }
    folding = [result.folding_percent for result in results]
    return {
        "pairs": len(results),
        "unaligned": unaligned(results),
        "distance_px": distance,
        "distance_mm": _optional_spread(_values(results, "distance_mm", "distance_before_mm")),
        "ncc": _spread(_values(results, "ncc", "ncc_before")),
        "local_ncc": _spread(_values(results, "local_ncc", "local_ncc_before")),
        **{name: _optional_spread(_values(results, name, before(name))) for name in MEASURES},
        "labels": _label_summaries(results),
        "folding_percent": {"mean": float(np.mean(folding)), "max": float(np.max(folding))},
        "seconds_per_pair": {
            "median": float(np.median([result.seconds for result in results])),
            "alignment_median": float(np.median([result.seconds_alignment for result in results])),
        },
    }


def to_csv(results: list[PairResult]) -> str:
    """CSV with a header and a line per pair; empty fields for measures that a pair lacks.

    Where there are labels, further columns `label_<label>_<measure>` hold the measures of each.
    """
    names = [field.name for field in dataclasses.fields(PairResult) if field.name != "labels"]
    of_labels = {
        f"label_{label}_{named(name)}": (label, when, name)
        for label in _all_labels(results)
        for name in MEASURES
        for when, named in (("before", before), ("after", str))
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *of_labels])
    for result in results:
        cells = [
            getattr(getattr(result.labels[label], when), name) if label in result.labels else None
            for label, when, name in of_labels.values()
        ]
        writer.writerow([*(_cell(result, name) for name in names), *cells])
    return text.getvalue()


def _cell(result: PairResult, name: str) -> Any:
    value = getattr(result, name)
    return to_cell(value) if isinstance(value, str) else value


def _all_labels(results: list[PairResult]) -> list[int]:
    return sorted({label for result in results for label in result.labels})


def _label_summaries(results: list[PairResult]) -> Optional[dict[str, dict[str, Any]]]:
    """By label, how many pairs have it, the spread of each measure over them, and in how many it is lost."""
    summaries = {}
    for label in _all_labels(results):
        found = [result.labels[label] for result in results if label in result.labels]
        summaries[str(label)] = {
            "pairs": len(found),
            "lost": sum(each.is_lost for each in found),
            **{
                name: _optional_spread(
                    [(getattr(each.after, name), getattr(each.before, name)) for each in found]
                )
                for name in MEASURES
            },
        }
    return summaries or None


def _values(results: list[PairResult], after: str, before_it: str) -> list[tuple[Any, Any]]:
    """A measure of each pair after and before registration."""
    return [(getattr(result, after), getattr(result, before_it)) for result in results]


def _spread(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Mean and standard deviation over the pairs after registration, and their mean before."""
    after, before_it = zip(*values)
    return {
        "mean": float(np.mean(after)),
        "std": float(np.std(after)),
        "before_mean": float(np.mean(before_it)),
    }


def _optional_spread(values: Sequence[tuple[Any, Any]]) -> Optional[dict[str, float]]:
    """`_spread` over the pairs that have the measure before and after; None if no pair has it."""
    measured = [both for both in values if None not in both]
    return _spread(measured) if measured else None


def _labels(example: dict[str, tf.Tensor]) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Labels of the moving and of the fixed image, int64 (height, width); None where there are none."""
    codes = [example[f"{name}_labels"].numpy() for name in ("moving", "fixed")]
    if not codes[0].size:
        return None
    values = example["label_values"].numpy()
    moving, fixed = (labels_of_codes(each[..., 0], values) for each in codes)
    return moving, fixed


def _label_measures(example: dict[str, tf.Tensor], displacement: np.ndarray) -> dict[str, Any]:
    """What a `PairResult` holds of the labels, on the fixed image's grid; nothing where there are none."""
    labels = _labels(example)
    if labels is None or not any(each.any() for each in labels) or not np.isfinite(displacement).all():
        return {}
    moving, fixed = labels
    warped = warp_labels(moving, displacement)
    spacing = example["fixed_spacing"].numpy()
    known = None if np.isnan(spacing).any() else (float(spacing[0]), float(spacing[1]))
    scores = agreement(moving, fixed, moving, warped, known)
    lost = sum(each.is_lost for each in scores.values())
    return {**pair_means(scores), "labels_lost": lost, "labels": scores}


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
    """All measures of a batch of one pair but those of labels, as scalars; NaN for what the pair lacks.

    Moving image and landmarks are the unaligned ones. Only the loss is that of training: of the
    aligned image and the displacement predicted for it.
    """
    network_input = _network_input(example)
    pair = _batch(example)
    landmarks = example["fixed_landmarks"], example["moving_landmarks"]
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
        "loss": loss_fn(network_input, warp(network_input.moving, predicted), predicted).total,
    }
