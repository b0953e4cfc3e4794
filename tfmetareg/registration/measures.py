"""What can be told of a registration without knowing the truth: its measures, and what to be wary of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.evaluation import metrics
from tfmetareg.evaluation.overlap import agreement, pair_means
from tfmetareg.geometry.affine import compose_displacement, points_to_moving
from tfmetareg.geometry.align import NETWORK_REACH, likely_shift
from tfmetareg.geometry.displacement import carry_to_moving, covered_pixels, warp_image
from tfmetareg.geometry.frame import inside_image
from tfmetareg.imaging.labels import shared_labels_note
from tfmetareg.imaging.landmark_files import LPS, RAS
from tfmetareg.registration.result import RegisteredPair
from tfmetareg.registration.similarity import differs_in_contrast
from tfmetareg.training.losses import local_ncc
from tfmetareg.training.mind import mind_similarity

_LEAST_OVERLAP = 0.5
# A displacement is near to the network's reach from this share of it on; so many of the pixels may lie
# beyond, since a border or a background without structure may be moved anywhere.
_NEAR, _MAY_BE_BEYOND = 0.9, 0.1
# NCC that images which belong together have, at least, once they are registered.
_LEAST_NCC = 0.2
# Of each image the network should see this much.
_LEAST_SEEN_PERCENT = 99


def measure(registration: RegisteredPair) -> dict[str, Any]:
    """Measures as a summary holds them; similarities are of the images as the network sees them.

    Args:
        registration: the pair.

    Returns:
        By name, in JSON's types; the last is "warnings": what to look at before trusting the result, a line
        each.
    """
    prepared, displacement = registration.prepared, registration.displacement
    raw = prepared.raw
    points = _points(registration)
    fixed, moving = (image.astype(np.float32) / 255 for image in (prepared.fixed, prepared.moving))
    warped = warp_image(moving, compose_displacement(registration.residual, prepared.alignment))
    landmarks = None
    if len(raw.fixed_landmarks):
        before = points_to_moving(raw.fixed_landmarks, prepared.unregistered)
        after = carry_to_moving(raw.fixed_landmarks, displacement)
        distances = [np.linalg.norm(each - raw.moving_landmarks, axis=1).mean() for each in (before, after)]
        landmarks = {
            "count": len(raw.fixed_landmarks),
            "distance_before_px": float(distances[0]),
            "distance_px": float(distances[1]),
        }
    overlap = 100 * float(covered_pixels(displacement, raw.moving.shape).mean())
    shift = likely_shift(prepared.moving, prepared.fixed) if prepared.align == "none" else 0.0
    similarities = {"ncc": metrics.ncc, "local_ncc": local_ncc}
    if registration.adaptation and registration.adaptation.similarity == "mind":
        similarities["mind"] = mind_similarity
    similarity = {
        name: {
            when: round(float(similarity_of(_batch(fixed), _batch(image))[0]), 6)
            for when, image in (("before", moving), ("after", warped))
        }
        for name, similarity_of in similarities.items()
    }
    turned = registration.turned_displacement
    lengths = np.linalg.norm(turned, axis=-1)
    measures = {
        "shapes": {"moving": raw.moving.shape, "fixed": raw.fixed.shape, "network": prepared.fixed.shape},
        "similarity": similarity,
        "folding_percent": float(metrics.folding_percent(turned[None])[0]),
        "displacement_px": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "seen_percent": prepared.seen_percent(),
        "overlap_percent": overlap,
        "alignment": prepared.alignment.tolist(),
        "aligned": None if prepared.align == "none" else prepared.is_aligned,
        "adaptation_loss": registration.adaptation and registration.adaptation._asdict(),
        "landmarks": landmarks,
        "labels": _labels(registration),
        "points": points,
    }
    return {**measures, "warnings": [*_warnings(measures, registration, shift)]}


def _labels(registration: RegisteredPair) -> Optional[dict[str, Any]]:
    """How well the labels agree, all and each; None unless both images have some."""
    moving, fixed = registration.moving_labels, registration.fixed_labels
    before, after = registration.unregistered_labels, registration.warped_labels
    if moving is None or fixed is None or before is None or after is None:
        return None
    scores = agreement(moving.pixels, fixed.pixels, before, after, registration.prepared.raw.fixed_spacing)
    return {
        **pair_means(scores),
        "lost": [label for label, each in scores.items() if each.is_lost],
        "without_partner": [label for label, each in scores.items() if not each.in_both],
        "per_label": {str(label): pair_means({label: each}) for label, each in scores.items()},
    }


def _points(registration: RegisteredPair) -> Optional[dict[str, Any]]:
    """How many of the points that were carried over arrived."""
    if registration.points is None:
        return None
    carried_to = {"fixed": "moving", "moving": "fixed"}[registration.points_in]
    shape = getattr(registration.prepared.raw, carried_to).shape
    points = getattr(registration.points, carried_to)
    given = np.isfinite(getattr(registration.points, registration.points_in)).all(axis=1)
    on_image = inside_image(points, shape)  # False for NaN
    return {
        "file": f"points_in_{carried_to}.csv",
        "given_in": registration.points_in,
        "carried_to": carried_to,
        "count": len(points),
        "outside": int((~given).sum()),
        "without_partner": int((given & ~on_image).sum()),
    }


def _warnings(measures: dict[str, Any], registration: RegisteredPair, shift: float) -> list[str]:
    """What a user should look at before trusting the result, a line each.

    Args:
        measures: of the registration.
        registration: the pair.
        shift: pixels that the images seem to lie apart, at least, where no alignment was looked for.
    """
    lines = [f"{note.image}: {note.text}." for note in registration.prepared.notes]
    if registration.moving.grid.dimension != registration.fixed.grid.dimension:
        lines.append(
            "one image is 2D, the other a slice in space: ITK's files are 3D, with the 2D image in the plane "
            "z = 0."
        )
    if measures["overlap_percent"] < 100 * _LEAST_OVERLAP:
        lines.append(
            f"only {measures['overlap_percent']:.0f} % of the fixed image have a partner in the moving one."
        )
    lines += [
        f"only {percent:.0f} % of the {name} image are registered, the middle of it; register all of it with "
        "`--register.fit native`."
        for name, percent in measures["seen_percent"].items()
        if percent < _LEAST_SEEN_PERCENT
    ]
    lines += _beyond_reach(registration, shift)
    lines += _disagreement(measures["similarity"])
    if not registration.adaptation and differs_in_contrast(*registration.prepared.network_input):
        lines.append(
            "the images differ in contrast: unless the network was trained on such pairs, adapt it to this "
            "one (`--register.adapt_steps 50`)."
        )
    lines += _accuracy_warnings(measures)
    points = measures["points"]
    if points and points["outside"]:
        lines.append(f"{points['outside']} of {points['count']} points lie on no pixel and stay empty.")
    if points and points["without_partner"]:
        lines.append(
            f"{points['without_partner']} of {points['count']} points have no partner in the other image."
        )
    if points and registration.points_file and registration.points_file.frame in (LPS, RAS):
        image = getattr(registration, points["carried_to"])
        if not image.grid.is_known:
            lines.append(
                f"{image.name} does not tell where its pixels lie: the points that were carried to it are in "
                "pixels alone."
            )
    return [*lines, *_label_warnings(measures, registration)]


def _disagreement(similarity: dict[str, dict[str, float]]) -> Iterator[str]:
    """Whether the images hardly agree or no better than before: by MIND where it was raised; NCC may fall."""
    ncc = similarity["ncc"]
    if "mind" not in similarity and ncc["after"] < _LEAST_NCC:
        yield f"the images hardly agree once they are registered (NCC {ncc['after']:.3f})."
    name, compared = (
        ("MIND", similarity["mind"]) if "mind" in similarity else ("local NCC", similarity["local_ncc"])
    )
    if compared["after"] <= compared["before"]:
        yield (
            "the images agree no better than before "
            f"({name} {compared['before']:.3f} -> {compared['after']:.3f})."
        )


def _label_warnings(measures: dict[str, Any], registration: RegisteredPair) -> Iterator[str]:
    moving, fixed = registration.moving_labels, registration.fixed_labels
    note = moving and fixed and shared_labels_note(moving.pixels, fixed.pixels)
    if note:
        yield f"{note}."
    lost = measures["labels"] and measures["labels"]["lost"]
    if lost:
        yield (
            f"labels of both images that the warped one has no more: {', '.join(map(str, lost))}; they count "
            "as Dice 0 and have no distance."
        )


def _accuracy_warnings(measures: dict[str, Any]) -> list[str]:
    """Whether landmarks or labels match less than before, though the images may agree better."""
    landmarks, labels = measures["landmarks"], measures["labels"]
    lines = []
    if landmarks and landmarks["distance_px"] > landmarks["distance_before_px"]:
        lines.append(
            "the landmarks lie farther apart than before "
            f"({landmarks['distance_before_px']:.2f} -> {landmarks['distance_px']:.2f} px)"
        )
    if labels and labels["dice"] is not None and labels["dice"] < labels["dice_before"]:
        lines.append(
            f"the labels overlap less than before (Dice {labels['dice_before']:.3f} -> {labels['dice']:.3f})"
        )
    for name, similarity in (("NCC", "ncc"), ("local NCC", "local_ncc")):
        before, after = (measures["similarity"][similarity][when] for when in ("before", "after"))
        if after > before:
            better = f"the images agree better ({name} {before:.3f} -> {after:.3f})"
            return [f"{line}, though {better}: do not take similarity for accuracy." for line in lines]
    return [f"{line}." for line in lines]


def _beyond_reach(registration: RegisteredPair, shift: float) -> list[str]:
    """Whether the images lie, or were moved, as far apart as the network no longer finds."""
    prepared, reach = registration.prepared, registration.reach
    lines = []
    remedy = ", and try `--register.align affine`" if prepared.align == "none" else ""
    if shift > reach:
        lines.append(
            f"the images seem to lie {shift:.0f} px and more apart, the network finds about "
            f"{reach:.1f} px: try `--register.align affine`."
        )
    if prepared.align != "none" and not prepared.is_aligned:
        lines.append("alignment found nothing better than leaving the images as they are.")
    far = float(np.quantile(np.linalg.norm(registration.residual, axis=-1), 1 - _MAY_BE_BEYOND))
    if far > _NEAR * reach:
        lines.append(
            f"the network moved a tenth of the pixels by {far:.1f} px and more; it finds about "
            f"{reach:.1f} px ({NETWORK_REACH:.0%} of the width it was trained at): look at the "
            f"overlay{remedy}."
        )
    return lines


def _batch(image: np.ndarray) -> tf.Tensor:
    return tf.constant(image[None, ..., None])
