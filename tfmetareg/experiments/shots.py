"""Accuracy over the number of fine-tuning pairs, from each start: does it help with my N pairs?

Every point of the curve takes the same number of gradient steps, on the first N pairs of an order that the
seed decides: only the pairs differ. With a fixed number of epochs instead, few pairs would mean few steps,
and the curve would show what few steps can do.

`<workdir>/shots` is a work directory of its own, with stages `<start>-<N>` and their results.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Union

from tfmetareg.config import Config
from tfmetareg.experiments.measurement import Measurement
from tfmetareg.experiments.rows import comparison_stages
from tfmetareg.methods import SCRATCH, SHORT_EPOCHS, STARTS, Start
from tfmetareg.modes.finetune import FineTuning
from tfmetareg.modes.workdir import Workdir

_EXAMPLES = 1


def shot_measurements(workdir: Workdir) -> list[Measurement]:
    """A measurement for every number of pairs in `reproduce.shots` and every start; none is made."""
    whole = workdir.records.pair_count(workdir.target, "finetune")
    counts = shot_counts(workdir.config.reproduce.shots, whole)
    return [_shot(workdir, start, pairs) for pairs in counts for start in STARTS]


def kept_shots(workdir: Workdir) -> list[Measurement]:
    """The same for all starts and numbers of pairs of which a stage or a result is there."""
    inside, by_kind = _inside(workdir), {start.kind: start for start in STARTS}
    pattern = re.compile(rf"({'|'.join(by_kind)})-([0-9]+)(\.json)?")
    paths = [*inside.path.glob("*-*"), *inside.path.glob("results/*-*.json")]
    found = {match.groups()[:2] for path in paths if (match := pattern.fullmatch(path.name))}
    return [_shot(workdir, by_kind[kind], int(pairs)) for kind, pairs in sorted(found)]


def _inside(workdir: Workdir) -> Workdir:
    return dataclasses.replace(workdir, path=workdir.path / "shots")


def _shot(workdir: Workdir, start: Start, pairs: int) -> Measurement:
    """One start, fine-tuned on so many pairs."""
    config, inside, name = workdir.config, _inside(workdir), f"{start.kind}-{pairs}"
    first = None if start.stage == SCRATCH else comparison_stages(workdir)[start.stage]
    steps = shot_steps(config, workdir.records.pair_count(workdir.target, "finetune"))
    options = dataclasses.replace(
        config.finetune,
        init=str(first.weights) if first else SCRATCH,
        name=name,
        pairs=pairs,
        epochs=math.ceil(steps * config.finetune.batch_size / pairs),
        evaluate_every=0,
    )
    stage = FineTuning(inside, name, options, first, steps=steps)
    return Measurement(inside, name, name, stage, examples=_EXAMPLES)


def shot_counts(shots: Sequence[Union[int, str]], whole: int) -> list[int]:
    """The numbers of pairs in rising order, without those that the split does not hold.

    >>> shot_counts([100, 5, "all", 2], whole=8)
    [2, 5, 8]

    Args:
        shots: as `reproduce.shots`.
        whole: number of pairs in the split.
    """
    counts = {whole if isinstance(shot, str) else shot for shot in shots}
    return sorted(count for count in counts if count <= whole)


def shot_steps(config: Config, whole: int) -> int:
    """Gradient steps of every point: `reproduce.shot_steps`, or as many as ten epochs of `whole` pairs."""
    return config.reproduce.shot_steps or math.ceil(SHORT_EPOCHS * whole / config.finetune.batch_size)
