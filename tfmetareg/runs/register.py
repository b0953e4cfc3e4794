"""Registers images of any size and format with a trained network, adapted to them if asked to."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tfmetareg import fields, metrics
from tfmetareg.alignment import likely_shift, to_moving
from tfmetareg.config import Config, Register
from tfmetareg.errors import UserError
from tfmetareg.files import published, sha256, write_json
from tfmetareg.images import write_image
from tfmetareg.losses import local_ncc
from tfmetareg.registration import covered, warp_image
from tfmetareg.report.figures import save_figure
from tfmetareg.report.registration import Registered, draw_registered
from tfmetareg.runs.pair_files import PairFiles, find_pairs
from tfmetareg.runs.run import find_weights
from tfmetareg.runs.session import Found, Session
from tfmetareg.transforms import read_grid, write_field
from tfrecords_builder.images import FORMATS
from tfrecords_builder.inspection import NETWORK_REACH
from tfrecords_builder.intensity import scale, unit_range
from tfrecords_builder.volumes import volume_file

SUMMARY = "summary.json"
_LEAST_OVERLAP = 0.5
# A displacement is near to the network's reach from this share of it on; so many of the pixels may lie
# beyond, since a border or a background without structure may be moved anywhere.
_NEAR, _MAY_BE_BEYOND = 0.9, 0.1
# NCC that images which belong together have, at least, once they are registered.
_LEAST_NCC = 0.2
# Of each image the network should see this much.
_LEAST_SEEN_PERCENT = 99
# Options that a summary tells elsewhere.
_TOLD_ELSEWHERE = ("moving", "fixed", "pairs", "points", "weights", "output")
_SPACINGS = ("moving_spacing", "fixed_spacing")


def run(config: Config, workdir: Path) -> Path:
    """Registers every pair that `config.register` names; returns the folder of the results.

    A pair that cannot be registered is left out, and the others go on. A pair that was registered
    already, from the same files in the same way, is left as it is.

    Raises:
        UserError: nothing to register, no such weights, an output that cannot be written; or, at the end,
            which pairs were left out and why.
    """
    options = config.register
    pairs = find_pairs(options)
    output = Path(options.output) if options.output else Path(workdir) / "register"
    _check_writable(output)
    weights = find_weights(workdir, options.weights)
    session = Session(config, weights)
    refused = Refused()
    asked = _asked(pairs, options, weights, session.told(), refused)
    todo = []
    for files in pairs:
        with refused.unless_read(files):
            if files.name in asked and not _finished(output / files.name, asked[files.name]):
                todo.append(files)
    if todo and options.adapt_epochs:
        session.adapt_to(pairs)
    for files in todo:
        with refused.unless_read(files):
            found = session.register(files)
            _publish(output / files.name, files, found, asked[files.name], options)
    refused.raise_any(len(pairs), output)
    return output


class NoRoomError(UserError):
    """The disk is full, for the other pairs as well."""


class Refused:
    """Pairs that were left out, and why."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    @contextlib.contextmanager
    def unless_read(self, files: PairFiles) -> Iterator[None]:
        """Notes a mistake of the user's that the block stumbles over, and skips the rest of it."""
        try:
            yield
        except NoRoomError:
            raise
        except UserError as error:
            self._lines[files.name] = " ".join(str(error).splitlines())

    def raise_any(self, pairs: int, output: Path) -> None:
        """Raises one error that tells of all pairs that were left out, if any."""
        if not self._lines:
            return
        if pairs == 1:
            raise UserError(*self._lines.values())
        raise UserError(
            f"{len(self._lines)} of {pairs} pairs were not registered; the others are in {output}.\n"
            + "\n".join(f"{name}: {line}" for name, line in self._lines.items())
        )


def _check_writable(output: Path) -> None:
    """Refuses an output that cannot be written before any work is done for it."""
    there = next(folder for folder in (output, *output.absolute().parents) if os.path.lexists(folder))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{output}: cannot be written ({there} is no folder, or one without the permission); "
            "name another `register.output`."
        )


def _asked(
    pairs: list[PairFiles], options: Register, weights: Path, session_told: dict[str, Any], refused: Refused
) -> dict[str, dict[str, Any]]:
    """By pair, what decides on its results, as its summary tells it; without pairs that cannot be read."""
    inputs = {}
    for files in pairs:
        with refused.unless_read(files):
            inputs[files.name] = {"inputs": files.digests()}
            inputs[files.name]["spacing"] = {name: files.row.get(name, "") for name in _SPACINGS}
    common = {
        "weights": {"file": str(weights), "sha256": sha256(weights)},
        "options": {
            name: value for name, value in dataclasses.asdict(options).items() if name not in _TOLD_ELSEWHERE
        },
        **session_told,
    }
    if options.adapt_epochs:
        common["adapted_to"] = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    return {name: {**files, **common} for name, files in inputs.items()}


def _finished(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether a pair was registered already, from the same files in the same way.

    Raises:
        UserError: something else is there.
    """
    if not os.path.lexists(folder):
        return False
    try:
        told = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        differing = [name for name, value in asked.items() if told.get(name) != json.loads(json.dumps(value))]
    except (OSError, ValueError, AttributeError):
        differing = ["it has no readable summary"]
    if differing:
        raise UserError(
            f"{folder}: is there already, made otherwise ({', '.join(differing)}); move it away, or "
            "name another `register.output`."
        )
    print(f"{folder.name}: registered already, {folder}", file=sys.stderr)
    return True


def _publish(folder: Path, files: PairFiles, found: Found, asked: dict[str, Any], options: Register) -> None:
    """Writes everything about a pair into a folder that appears when it is whole.

    Raises:
        UserError: the folder cannot be written; a `NoRoomError` where the disk is full.
    """
    try:
        with published(folder) as temporary:
            temporary.mkdir()
            _write(temporary, files, found, asked, options)
    except OSError as error:
        kind = NoRoomError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
        raise kind(
            f"{folder}: cannot be written ({error.strerror or error}); name another `register.output`, "
            "or make room."
        ) from None


def _write(folder: Path, files: PairFiles, found: Found, asked: dict[str, Any], options: Register) -> None:
    clock, raw = found.seconds, found.prepared.raw
    with clock("measure"):
        summary = {"schema": 1, "pair": files.name, **asked, **_measures(found)}
        summary["points"] = _points_told(found, options)
        summary["warnings"] = _warnings(found, summary)
    with clock("write"):
        grid = read_grid(files.fixed, raw.fixed.shape)
        write_image(folder / f"warped{_ending(files.moving)}", found.pixels, grid)
        for ending in options.formats:
            moving_grid = read_grid(files.moving, raw.moving.shape)
            write_field(folder / f"displacement.{ending}", found.displacement, grid, moving_grid)
        if found.points:
            _write_points(folder, found, options.points_in)
    if options.figures:
        with clock("figures"):
            for name, figure in draw_registered(_drawn(found, options.points_in)).items():
                save_figure(figure, folder / f"{name}.png")
    summary["seconds"] = clock.seconds
    write_json(folder / SUMMARY, summary)
    for warning in summary["warnings"]:
        print(f"warning: {files.name}: {warning}", file=sys.stderr)
    ncc = summary["similarity"]["ncc"]
    print(
        f"{files.name}: NCC {ncc['before']:.3f} -> {ncc['after']:.3f}, "
        f"folding {summary['folding_percent']:.2f} %, {sum(clock.seconds.values()):.1f} s",
        file=sys.stderr,
    )


def _ending(moving: Path) -> str:
    """The moving file's ending; that of a volume for a slice of one."""
    name = moving.name if os.path.isfile(moving) else volume_file(moving.name)
    return name[-max(len(ending) for ending in FORMATS if name.lower().endswith(ending)) :].lower()


def _measures(found: Found) -> dict[str, Any]:
    """What can be measured of a registration; similarities are of the images as the network sees them."""
    prepared, displacement = found.prepared, found.displacement
    fixed, moving = (image.astype(np.float32) / 255 for image in (prepared.fixed, prepared.moving))
    warped = warp_image(moving, found.on_frame())
    similarity = {
        name: {
            when: round(float(measure(_batch(fixed), _batch(image))[0]), 6)
            for when, image in (("before", moving), ("after", warped))
        }
        for name, measure in (("ncc", metrics.ncc), ("local_ncc", local_ncc))
    }
    lengths = np.linalg.norm(displacement, axis=-1)
    raw = prepared.raw
    return {
        "shapes": {"moving": raw.moving.shape, "fixed": raw.fixed.shape, "network": prepared.fixed.shape},
        "similarity": similarity,
        "folding_percent": float(metrics.folding_percent(displacement[None])[0]),
        "displacement_px": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "seen_percent": prepared.seen_percent(),
        "overlap_percent": 100 * float(covered(displacement, raw.moving.shape).mean()),
        "alignment": prepared.alignment.tolist(),
        "adaptation_loss": found.losses and {"first": found.losses[0], "last": found.losses[1]},
        "landmarks": _landmarks(found),
    }


def _landmarks(found: Found) -> Optional[dict[str, Any]]:
    """Mean distance in pixels of the moving image, where a pairs.csv names landmarks."""
    raw = found.prepared.raw
    if not len(raw.fixed_landmarks):
        return None
    before = to_moving(raw.fixed_landmarks, found.prepared.unregistered)
    after = fields.to_moving(raw.fixed_landmarks, found.displacement)
    distances = [np.linalg.norm(points - raw.moving_landmarks, axis=1).mean() for points in (before, after)]
    return {
        "count": len(raw.fixed_landmarks),
        "distance_before_px": float(distances[0]),
        "distance_px": float(distances[1]),
    }


def _warnings(found: Found, summary: dict[str, Any]) -> list[str]:
    """What a user should look at before trusting the result, a line each."""
    lines = []
    if summary["overlap_percent"] < 100 * _LEAST_OVERLAP:
        lines.append(
            f"only {summary['overlap_percent']:.0f} % of the fixed image have a partner in the moving one."
        )
    lines += _out_of_sight(summary["seen_percent"]) + _out_of_reach(found)
    ncc = summary["similarity"]["ncc"]["after"]
    if ncc < _LEAST_NCC:
        lines.append(f"the images hardly agree once they are registered (NCC {ncc:.3f}).")
    ncc = summary["similarity"]["local_ncc"]
    if ncc["after"] <= ncc["before"]:
        lines.append(
            f"the images agree no better than before (local NCC {ncc['before']:.3f} -> {ncc['after']:.3f})."
        )
    points = summary["points"]
    if points and points["outside"]:
        lines.append(f"{points['outside']} of {points['count']} points lie on no pixel and stay empty.")
    if points and points["without_partner"]:
        lines.append(
            f"{points['without_partner']} of {points['count']} points have no partner in the other image."
        )
    return lines


def _out_of_sight(seen_percent: dict[str, float]) -> list[str]:
    return [
        f"only {percent:.0f} % of the {name} image are registered, the middle of it; register all of it with "
        "`--register.fit native`."
        for name, percent in seen_percent.items()
        if percent < _LEAST_SEEN_PERCENT
    ]


def _out_of_reach(found: Found) -> list[str]:
    """Whether the images lie, or were moved, as far apart as the network no longer finds."""
    prepared, lines = found.prepared, []
    remedy = ", and try `--register.align affine`" if prepared.align == "none" else ""
    if prepared.align == "none":
        shift = likely_shift(prepared.moving, prepared.fixed)
        if shift > found.reach:
            lines.append(
                f"the images seem to lie {shift:.0f} px and more apart, the network finds about "
                f"{found.reach:.1f} px: try `--register.align affine`."
            )
    elif not found.aligned:
        lines.append("alignment found nothing better than leaving the images as they are.")
    far = float(np.quantile(np.linalg.norm(found.residual, axis=-1), 1 - _MAY_BE_BEYOND))
    if far > _NEAR * found.reach:
        lines.append(
            f"the network moved a tenth of the pixels by {far:.1f} px and more; it finds about "
            f"{found.reach:.1f} px ({NETWORK_REACH:.0%} of the width it was trained at): look at the "
            f"overlay{remedy}."
        )
    return lines


def _points_told(found: Found, options: Register) -> Optional[dict[str, Any]]:
    if found.points is None:
        return None
    carried_to = {"fixed": "moving", "moving": "fixed"}[options.points_in]
    raw = getattr(found.prepared.raw, carried_to)
    points = getattr(found.points, carried_to)
    given = np.isfinite(getattr(found.points, options.points_in)).all(axis=1)
    on_image = ((points >= -0.5) & (points <= np.asarray(raw.shape) - 0.5)).all(axis=1)  # False for NaN
    return {
        "file": f"points_in_{carried_to}.csv",
        "given_in": options.points_in,
        "carried_to": carried_to,
        "count": len(points),
        "outside": int((~given).sum()),
        "without_partner": int((given & ~on_image).sum()),
    }


def _write_points(folder: Path, found: Found, points_in: str) -> None:
    """x,y in the image that the file's name tells, empty where there is none; and where it came from."""
    images = {"fixed": ("moving", "fixed"), "moving": ("fixed", "moving")}[points_in]
    carried, given = (getattr(found.points, name) for name in images)
    with open(folder / f"points_in_{images[0]}.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", *(f"{images[1]}_{axis}" for axis in "xy")])
        for places in np.hstack([carried[:, ::-1], given[:, ::-1]]):
            cells = [f"{places[0]:.4f}", f"{places[1]:.4f}", f"{places[2]:g}", f"{places[3]:g}"]
            writer.writerow("" if cell == "nan" else cell for cell in cells)


def _drawn(found: Found, points_in: str) -> Registered:
    """The pair as the figures show it: contrast stretched, nothing where the moving image has no pixel."""
    raw = found.prepared.raw
    moving, fixed = (scale(unit_range(image).astype(np.float32)) for image in (raw.moving, raw.fixed))
    before = found.before()
    area = abs(np.linalg.det(found.prepared.unregistered[:, :2]))
    determinant = np.asarray(metrics.jacobian_determinant(found.displacement[None]))[0] / area
    return Registered(
        moving=moving,
        fixed=fixed,
        before=warp_image(moving, before, fill=0),
        warped=warp_image(moving, found.displacement, fill=0),
        displacement=found.displacement,
        determinant=determinant,
        fixed_points=found.points and found.points.fixed,
        moving_points=found.points and found.points.moving,
        points_in=points_in,
    )


def _batch(image: np.ndarray) -> tf.Tensor:
    return tf.constant(image[None, ..., None])
