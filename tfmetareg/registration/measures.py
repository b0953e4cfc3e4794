"""What can be told of a registration without knowing the truth: its measures, and what to be wary of."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.evaluation import metrics
from tfmetareg.geometry.affine import compose_displacement, points_to_moving
from tfmetareg.geometry.align import NETWORK_REACH, likely_shift
from tfmetareg.geometry.displacement import carry_to_moving, covered_pixels, warp_image
from tfmetareg.geometry.frame import inside_image
from tfmetareg.registration.result import RegisteredPair
from tfmetareg.training.losses import local_ncc

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
    prepared, displacement, losses = registration.prepared, registration.displacement, registration.losses
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
    similarity = {
        name: {
            when: round(float(similarity_of(_batch(fixed), _batch(image))[0]), 6)
            for when, image in (("before", moving), ("after", warped))
        }
        for name, similarity_of in (("ncc", metrics.ncc), ("local_ncc", local_ncc))
    }
    lengths = np.linalg.norm(displacement, axis=-1)
    measures = {
        "shapes": {"moving": raw.moving.shape, "fixed": raw.fixed.shape, "network": prepared.fixed.shape},
        "similarity": similarity,
        "folding_percent": float(metrics.folding_percent(displacement[None])[0]),
        "displacement_px": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "seen_percent": prepared.seen_percent(),
        "overlap_percent": overlap,
        "alignment": prepared.alignment.tolist(),
        "adaptation_loss": losses and {"first": losses[0], "last": losses[1]},
        "landmarks": landmarks,
        "points": points,
    }
    return {**measures, "warnings": [*_warnings(measures, registration, shift)]}


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
    lines = []
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
    ncc, local = measures["similarity"]["ncc"], measures["similarity"]["local_ncc"]
    if ncc["after"] < _LEAST_NCC:
        lines.append(f"the images hardly agree once they are registered (NCC {ncc['after']:.3f}).")
    if local["after"] <= local["before"]:
        lines.append(
            "the images agree no better than before "
            f"(local NCC {local['before']:.3f} -> {local['after']:.3f})."
        )
    points = measures["points"]
    if points and points["outside"]:
        lines.append(f"{points['outside']} of {points['count']} points lie on no pixel and stay empty.")
    if points and points["without_partner"]:
        lines.append(
            f"{points['without_partner']} of {points['count']} points have no partner in the other image."
        )
    return lines


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
