"""Distance over the number of fine-tuning pairs, from each start: does it help with my N pairs?

Every point of the curve takes the same number of gradient steps (`reproduce.shot_steps`, up to a whole
epoch), on the first N pairs of an order that the seed decides: what differs is the pairs alone. Ten epochs of
two pairs, as of hundreds, would be twenty steps, which says how far twenty steps lead and not what two pairs
are good for; and who has only two pairs can well afford the steps.

`<workdir>/shots` is a work directory of its own: stages `<start>-<N>`, and their results.
"""

from __future__ import annotations

import dataclasses

from tfmetareg.runs.finetune import finetune
from tfmetareg.runs.rows import STARTS, Stages, measure_weights, shot_epochs


def make_shots(stages: Stages) -> None:
    """Trains and measures every start at every number of pairs in `reproduce.shots`."""
    run = stages.run
    config = run.config
    whole = run.records.pair_count(run.target, "finetune")
    inside = dataclasses.replace(run, workdir=run.workdir / "shots")
    for pairs in shot_counts(config.reproduce.shots, whole):
        for kind, start in STARTS.items():
            name = f"{kind}-{pairs}"
            init = start if start == "scratch" else str(stages.weights(start))
            epochs = shot_epochs(config, pairs, whole)
            options = dataclasses.replace(
                config.finetune, init=init, name=name, pairs=pairs, epochs=epochs, evaluate_every=0
            )
            path = finetune(inside, options)
            measure_weights(inside, name, name, path, examples=1)


def shot_counts(shots: list, whole: int) -> list[int]:
    """The numbers of pairs in rising order; those that the split does not hold are left out."""
    counts = {whole if shot == "all" else shot for shot in shots}
    return sorted(count for count in counts if count <= whole)
