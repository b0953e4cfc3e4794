"""`python -m benchmarks.domains --data DIR`: networks beside elastix and ANTs on domains they never saw.

The sets are those of `benchmarks.alignment`. Each network gets the aligned pair and registers it as it is
(zero-shot), and after gradient steps on the pair. The peers get the pair as it is and align it themselves.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from benchmarks import machine
from benchmarks.alignment import NCC, PIXELS, PairSet, Scale, real_sets, summed_up
from tfmetareg.evaluation import metrics
from tfmetareg.evaluation.overlap import dice
from tfmetareg.evaluation.peers import PEERS, peer
from tfmetareg.files import write_json, write_text
from tfmetareg.geometry.affine import compose_displacement, resample
from tfmetareg.geometry.align import align
from tfmetareg.geometry.displacement import carry_to_moving, warp_image, warp_labels
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.registration.adaptation import FittingAdaptation
from tfmetareg.registration.network import Registrar
from tfmetareg.registration.similarity import AUTOMATIC
from tfmetareg.registration.weights import load_network
from tfmetareg.training.losses import registration_loss
from tfmetareg.types import ImagePair, PairBatch

# moving, fixed: (height, width) uint8 -> displacement, (height, width, 2), pixels, (row, column).
Register = Callable[[np.ndarray, np.ndarray], np.ndarray]
_RATE = 5e-4


class Row(NamedTuple):
    """One method on one set: by pair."""

    qualities: list[float]
    folding_percent: list[float]
    seconds: list[float]


def quality(pair: ImagePair, displacement: np.ndarray, scale: Scale) -> float:
    """Mean landmark distance in pixels, or mean Dice, or the NCC, of a registered pair."""
    if scale == PIXELS:
        carried = carry_to_moving(pair.fixed_landmarks, displacement)
        return float(np.linalg.norm(carried - pair.moving_landmarks, axis=1).mean())
    if scale == NCC:
        warped = warp_image(pair.moving.astype(np.float32), displacement)
        return float(np.corrcoef(warped.ravel(), pair.fixed.ravel())[0, 1])
    carried = warp_labels(pair.moving_labels, displacement)
    codes = [code for code in np.unique(pair.fixed_labels) if code]
    return float(np.mean([dice(carried == code, pair.fixed_labels == code) for code in codes]))


def affine(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """The alignment alone."""
    return compose_displacement(np.zeros((*fixed.shape, 2), np.float32), align(moving, fixed))


def by_peer(name: str) -> Register:
    """elastix or ANTs."""
    register = peer(name)

    def found(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        images = [tf.constant(np.float32(image)[None, ..., None] / 255) for image in (moving, fixed)]
        return register(PairBatch(*images))[1].numpy()[0]

    return found


def by_network(weights: str, steps: int = 0) -> Register:
    """The alignment, then the network, after gradient steps on the pair if asked for."""
    model = load_network(weights).model
    registrar = Registrar(model)
    adapt = FittingAdaptation(model, registration_loss, AUTOMATIC, _RATE)
    start = model.get_weights()

    def found(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        alignment = align(moving, fixed)
        aligned = resample(moving, alignment)
        if steps:
            adapt([(aligned, fixed)], [(aligned, fixed)] * steps, registrar)
        _, residual = registrar(aligned, fixed)
        model.set_weights(start)
        return compose_displacement(residual, alignment)

    return found


def measure(found: PairSet, register: Register) -> Row:
    """Registers each pair of a set."""
    row = Row([], [], [])
    for pair in found.pairs:
        began = time.perf_counter()
        displacement = register(pair.moving, pair.fixed)
        row.seconds.append(time.perf_counter() - began)
        row.qualities.append(quality(pair, displacement, found.scale))
        row.folding_percent.append(float(metrics.folding_percent(displacement[None])[0]))
    return row


def table(sets: Sequence[PairSet], rows: Sequence[dict[str, Row]]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| set | pairs | by | method | mean | median | worst | folding, % | s per pair |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for found, by_method in zip(sets, rows):
        for name, row in by_method.items():
            timed = [f"{np.mean(row.folding_percent):.3f}", f"{np.median(row.seconds):.3f}"]
            cells = [found.name, len(found.pairs), found.scale.name, name]
            cells += summed_up(row.qualities, found.scale) + timed
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Registers all sets by all methods; prints the table, and writes it as a page if asked to.

    Returns:
        0.
    """
    options = _parser().parse_args(arguments)
    preprocessing = Preprocessing((options.size, options.size), intensity=options.intensity)
    methods: dict[str, Register] = {"affine": affine}
    methods.update({name: by_peer(name) for name in PEERS if options.peers})
    for weights in options.weights:
        for steps in options.steps:
            methods[f"{weights}, {steps} steps" if steps else weights] = by_network(weights, steps)
    sets, rows = [], []
    for found in real_sets(options.data, preprocessing):
        sets.append(found)
        rows.append({name: measure(found, method) for name, method in methods.items()})
        print(table(sets[-1:], rows[-1:]), file=sys.stderr, flush=True)
    described = machine.describe()
    page = (
        f"`python -m benchmarks.domains --data DIR --size {options.size} --intensity {options.intensity}`, "
        f"{time.strftime('%Y-%m-%d')}, on {described['cpu']}, {described['cores']} shared cores.\n\n"
        f"{table(sets, rows)}"
    )
    print(page)
    if options.output:
        write_text(options.output, page)
        numbers = {s.name: {name: row._asdict() for name, row in r.items()} for s, r in zip(sets, rows)}
        write_json(options.output.with_suffix(".json"), numbers)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.domains", description=str(__doc__).split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--weights", nargs="+", default=["start"], help="networks (default: start)")
    parser.add_argument(
        "--steps", nargs="+", type=int, default=[0, 20], help="on each pair beforehand (default: 0 20)"
    )
    parser.add_argument("--size", type=int, default=128, help="side of the images (default: 128)")
    parser.add_argument("--intensity", default="equalize", help="as for the builder (default: equalize)")
    parser.add_argument("--peers", action="store_true", help="elastix and ANTs, too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="page to write the table to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
