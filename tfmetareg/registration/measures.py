"""What can be told of a registration without knowing the truth: its measures, and what to be wary of."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.evaluation import metrics
from tfmetareg.geometry.affine import points_to_moving
from tfmetareg.geometry.align import NETWORK_REACH, likely_shift
from tfmetareg.geometry.displacement import covered_pixels, warp_image
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
    """Measures as a summary holds them; similarities are of the images as the network sees them."""
    prepared, displacement = registration.prepared, registration.displacement
    fixed, moving = (image.astype(np.float32) / 255 for image in (prepared.fixed, prepared.moving))
    warped = warp_image(moving, registration.frame_displacement())
    similarity = {
        name: {
            when: round(float(similarity_of(_batch(fixed), _batch(image))[0]), 6)
            for when, image in (("before", moving), ("after", warped))
        }
        for name, similarity_of in (("ncc", metrics.ncc), ("local_ncc", local_ncc))
    }
    lengths = np.linalg.norm(displacement, axis=-1)
    raw, losses = prepared.raw, registration.losses
    return {
        "shapes": {"moving": raw.moving.shape, "fixed": raw.fixed.shape, "network": prepared.fixed.shape},
        "similarity": similarity,
        "folding_percent": float(metrics.folding_percent(displacement[None])[0]),
        "displacement_px": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "seen_percent": prepared.seen_percent(),
        "overlap_percent": 100 * float(covered_pixels(displacement, raw.moving.shape).mean()),
        "alignment": prepared.alignment.tolist(),
        "adaptation_loss": losses and {"first": losses[0], "last": losses[1]},
        "landmarks": _landmarks(registration),
        "points": _points(registration),
    }


def _landmarks(registration: RegisteredPair) -> Optional[dict[str, Any]]:
    """Mean distance in pixels of the moving image, where a pairs.csv names landmarks."""
    raw = registration.prepared.raw
    if not len(raw.fixed_landmarks):
        return None
    before = points_to_moving(raw.fixed_landmarks, registration.prepared.unregistered)
    after = registration.to_moving(raw.fixed_landmarks)
    distances = [np.linalg.norm(points - raw.moving_landmarks, axis=1).mean() for points in (before, after)]
    return {
        "count": len(raw.fixed_landmarks),
        "distance_before_px": float(distances[0]),
        "distance_px": float(distances[1]),
    }


def _points(registration: RegisteredPair) -> Optional[dict[str, Any]]:
    """How many of the points that were carried over arrived."""
    if registration.points is None:
        return None
    carried_to = {"fixed": "moving", "moving": "fixed"}[registration.points_in]
    shape = getattr(registration.prepared.raw, carried_to).shape
    points = getattr(registration.points, carried_to)
    given = np.isfinite(getattr(registration.points, registration.points_in)).all(axis=1)
    on_image = ((points >= -0.5) & (points <= np.asarray(shape) - 0.5)).all(axis=1)  # False for NaN
    return {
        "file": f"points_in_{carried_to}.csv",
        "given_in": registration.points_in,
        "carried_to": carried_to,
        "count": len(points),
        "outside": int((~given).sum()),
        "without_partner": int((given & ~on_image).sum()),
    }


def warnings_of(registration: RegisteredPair, measures: dict[str, Any]) -> list[str]:
    """What a user should look at before trusting the result, a line each."""
    lines = []
    if measures["overlap_percent"] < 100 * _LEAST_OVERLAP:
        lines.append(
            f"only {measures['overlap_percent']:.0f} % of the fixed image have a partner in the moving one."
        )
    lines += _cut_off(measures["seen_percent"]) + _out_of_reach(registration)
    ncc = measures["similarity"]["ncc"]["after"]
    if ncc < _LEAST_NCC:
        lines.append(f"the images hardly agree once they are registered (NCC {ncc:.3f}).")
    ncc = measures["similarity"]["local_ncc"]
    if ncc["after"] <= ncc["before"]:
        lines.append(
            f"the images agree no better than before (local NCC {ncc['before']:.3f} -> {ncc['after']:.3f})."
        )
    points = measures["points"]
    if points and points["outside"]:
        lines.append(f"{points['outside']} of {points['count']} points lie on no pixel and stay empty.")
    if points and points["without_partner"]:
        lines.append(
            f"{points['without_partner']} of {points['count']} points have no partner in the other image."
        )
    return lines


def _cut_off(seen_percent: dict[str, float]) -> list[str]:
    return [
        f"only {percent:.0f} % of the {name} image are registered, the middle of it; register all of it with "
        "`--register.fit native`."
        for name, percent in seen_percent.items()
        if percent < _LEAST_SEEN_PERCENT
    ]


def _out_of_reach(registration: RegisteredPair) -> list[str]:
    """Whether the images lie, or were moved, as far apart as the network no longer finds."""
    prepared, reach = registration.prepared, registration.reach
    lines = []
    remedy = ", and try `--register.align affine`" if prepared.align == "none" else ""
    if prepared.align == "none":
        shift = likely_shift(prepared.moving, prepared.fixed)
        if shift > reach:
            lines.append(
                f"the images seem to lie {shift:.0f} px and more apart, the network finds about "
                f"{reach:.1f} px: try `--register.align affine`."
            )
    elif not prepared.aligned:
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
