"""`python -m benchmarks.profile`: time of a gradient step by kind of operation.

Compares VxmDense's own layers, with this project's loss, to this project's implementation of the same
network.
"""

# ruff: noqa: I001 - tfmetareg sets TensorFlow up and must be imported first.

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import tfmetareg  # noqa: F401

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import images
from benchmarks.cases import FEATURES
from tfmetareg._compat import vxm
from tfmetareg.training.losses import registration_loss
from tfmetareg.models.registry import build_model
from tfmetareg.training.optim import build_optimizer
from tfmetareg.training.steps import gradient_step
from tfmetareg.types import LossTerms, PairBatch

_STEPS = 10
_SHOWN = 14


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile")
    parser.add_argument("--size", type=int, default=400, help="side of the images in pixels (default: 400)")
    size = parser.parse_args().size
    ours = build_model("vxm_dense", (size, size), features=FEATURES)
    theirs = vxm.networks.VxmDense(**ours.voxelmorph.options)
    pair = PairBatch(*map(tf.constant, images.pairs(1, size)))
    columns = [profile(step(network), pair) for network in (theirs, ours)]
    print(markdown(size, *columns))
    return 0


def step(network: tf.keras.Model) -> Callable[[PairBatch], LossTerms]:
    """A compiled gradient step."""
    optimizer = build_optimizer("adam", 1e-4, network.trainable_variables)
    return tf.function(lambda pair: gradient_step(network, optimizer, registration_loss, pair))


def profile(step_fn: Callable[[PairBatch], LossTerms], pair: PairBatch) -> dict[str, tuple[float, float]]:
    """Milliseconds and number of calls per step, by kind of operation."""
    for _ in range(3):
        float(step_fn(pair).total)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(_STEPS):
            float(step_fn(pair).total)
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    return _by_kind(space)


def _by_kind(space: xplane_pb2.XSpace) -> dict[str, tuple[float, float]]:
    """Sums over the events named `operation:kind`, the names of the executor's kernels."""
    seconds: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.defaultdict(int)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if ":" in name and "::" not in name and not name.startswith("EagerLocal"):
                    kind = name.rsplit(":", 1)[1].replace("_MklNative", "").replace("_Mkl", "")
                    seconds[kind] += event.duration_ps / 1e12
                    calls[kind] += 1
    return {kind: (1e3 * seconds[kind] / _STEPS, calls[kind] / _STEPS) for kind in seconds}


def markdown(size: int, before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> str:
    """A table of the kinds of operation that take most time, before and after."""
    nothing = (0.0, 0.0)
    kinds = sorted(
        {**before, **after}, key=lambda kind: -max(before.get(kind, nothing), after.get(kind, nothing))[0]
    )
    lines = [
        f"| {size}×{size}, ms per step (calls) | VxmDense's layers | tfmetareg |",
        "| --- | ---: | ---: |",
    ]
    for kind in kinds[:_SHOWN]:
        cells = [side.get(kind, nothing) for side in (before, after)]
        lines.append(f"| {kind} | " + " | ".join(f"{ms:.1f} ({calls:.0f})" for ms, calls in cells) + " |")
    rest, whole = (
        [sum(side[k][0] for k in chosen if k in side) for side in (before, after)]
        for chosen in (kinds[_SHOWN:], kinds)
    )
    lines += [
        f"| {name} | {one:.1f} | {other:.1f} |" for name, (one, other) in (("others", rest), ("sum", whole))
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
