"""Distance over the number of fine-tuning pairs, from each start: does it help with my N pairs?

Every point of the curve takes exactly the same number of gradient steps (`reproduce.shot_steps`), on the
first N pairs of an order that the seed decides: what differs is the pairs alone. Ten epochs of
two pairs, as of hundreds, would be twenty steps, which says how far twenty steps lead and not what two pairs
are good for; and who has only two pairs can well afford the steps.

`<workdir>/shots` is a work directory of its own: stages `<start>-<N>`, and their results.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path

from tfmetareg.experiments.rows import (
    STARTS,
    Stages,
    is_measured,
    measure_weights,
    set_aside_results,
    shot_steps,
    weights_if_current,
)
from tfmetareg.modes.finetune import finetune
from tfmetareg.modes.workdir import Workdir

_EXAMPLES = 1


def make_shots(stages: Stages) -> None:
    """Trains and measures every start at every number of pairs in `reproduce.shots`."""
    run = stages.run
    whole = run.records.pair_count(run.target, "finetune")
    for pairs in shot_counts(run.config.reproduce.shots, whole):
        for kind in STARTS:
            name = f"{kind}-{pairs}"
            measure_weights(_inside(run), name, name, _train(stages, kind, pairs), _EXAMPLES)


def set_aside_outdated_shots(run: Workdir) -> None:
    """`set_aside_outdated` for the shots, those of other numbers of pairs too."""
    stages, inside = Stages(dataclasses.replace(run, trains=False)), _inside(run)
    outdated = []
    for name in sorted({path.name.split(".")[0] for path in _parts(inside)}):
        kind, pairs = name.split("-")
        path = weights_if_current(inside, name, functools.partial(_train, stages, kind, int(pairs)))
        if path is None or not is_measured(inside, name, name, path, _EXAMPLES):
            outdated.append(name)
    set_aside_results(inside, outdated)


def _parts(inside: Workdir) -> list[Path]:
    """Stages' folders and results that are shots'."""
    found = [*inside.workdir.glob("*-*"), *inside.workdir.glob("results/*-*.json")]
    return [path for path in found if re.fullmatch(rf"({'|'.join(STARTS)})-[0-9]+(\.json)?", path.name)]


def _inside(run: Workdir) -> Workdir:
    return dataclasses.replace(run, workdir=run.workdir / "shots")


def _train(stages: Stages, kind: str, pairs: int) -> Path:
    """Fine-tunes one start on so many pairs."""
    config, start = stages.run.config, STARTS[kind]
    steps = shot_steps(config, stages.run.records.pair_count(stages.run.target, "finetune"))
    options = dataclasses.replace(
        config.finetune,
        init=start if start == "scratch" else str(stages.weights(start)),
        name=f"{kind}-{pairs}",
        pairs=pairs,
        epochs=math.ceil(steps * config.finetune.batch_size / pairs),
        evaluate_every=0,
    )
    return finetune(_inside(stages.run), options, steps=steps)


def shot_counts(shots: list, whole: int) -> list[int]:
    """The numbers of pairs in rising order; those that the split does not hold are left out."""
    counts = {whole if shot == "all" else shot for shot in shots}
    return sorted(count for count in counts if count <= whole)
