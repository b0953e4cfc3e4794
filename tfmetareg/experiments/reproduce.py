"""The paper's comparison: trains what each row needs, measures it for every seed, and draws the report.

One seed works in the work directory itself; of several, each works in its folder `seed-<s>/`, and the work
directory holds their pooled results. A second call does what is missing, or what a changed option touches.
Stages and results of another configuration are moved to `replaced/`, whether their row was named or not: the
report is drawn from all that a work directory holds, which has to be of one configuration.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from tfmetareg.config import Config
from tfmetareg.errors import UserError
from tfmetareg.evaluation.peers import PEERS, peer
from tfmetareg.experiments.plan import Job, execute, outdated, plan, set_aside
from tfmetareg.experiments.rows import comparison_stages, row_measurements
from tfmetareg.experiments.shots import kept_shots, shot_measurements
from tfmetareg.lock import run_in
from tfmetareg.modes.evaluate import show
from tfmetareg.modes.stage import Stage
from tfmetareg.modes.workdir import Workdir, is_file_name, open_workdir, read_card
from tfmetareg.report.pooling import pool_results

# What a work directory of one seed holds beside its stages, apart from what is drawn anew.
# The run card last: it names the stages that there are to move.
_FILES_OF_A_SEED = ("config.yaml", "results", "shots", "replaced", "run.json")


def run(config: Config, path: Path) -> None:
    """Makes every row of `config.reproduce.rows` for every seed, in a work directory; prints the table."""
    path = Path(path)
    seeds = seeds_of(config.reproduce.seeds, config.seed)
    workdir = _with_common_network(_open(config, path, seeds[0]))
    _check(workdir)
    _note_missing_peers(config.reproduce.rows)
    if seeds == [_only_seed(path, seeds[0])]:
        _make(workdir)
    else:
        _make_seeds(workdir, seeds)
    show(path)
    statistics = path / "tables" / "statistics.md"
    if statistics.is_file():
        print("\n" + statistics.read_text(encoding="utf-8"))
    for row, reason in read_card(path).get("left_out", {}).items():
        print(f"Left out: {row}: {reason}")


def seeds_of(seeds: Union[int, list[int]], first: int) -> list[int]:
    """The seeds of `reproduce.seeds` or `study.seeds`.

    >>> seeds_of(3, first=5), seeds_of([7, 1], first=5)
    ([5, 6, 7], [7, 1])

    Args:
        seeds: a list of seeds, or their number.
        first: the seed to count from.
    """
    return list(seeds) if isinstance(seeds, list) else [first + number for number in range(seeds)]


def _only_seed(path: Path, default: int) -> Optional[int]:
    """The seed of a work directory of one seed, `default` in a new one; None where each has its folder."""
    if list(path.glob("seed-*")):
        return None
    card = read_card(path)
    return card.get("seed", default) if card.get("stages") else default


def _open(config: Config, path: Path, seed: int) -> Workdir:
    return open_workdir(dataclasses.replace(config, seed=seed), path)


def _with_common_network(workdir: Workdir) -> Workdir:
    """Fills in the network from the weights files that stages start from: it is the same for every row.

    Raises:
        UserError: two files hold different networks.
    """
    inits = {f"{one}.init": getattr(workdir.config, one).init for one in ("pretrain", "reptile")}
    files = {key: workdir.weights(init) for key, init in inits.items() if is_file_name(init)}
    resolved = [workdir.with_network_of(file) for file in files.values()]
    networks = [one.config.model for one in resolved]
    if networks[1:] and networks[0] != networks[1]:
        named = " and ".join(f"`{key}` ({file})" for key, file in files.items())
        raise UserError(f"{named} hold different networks, and every row needs the same; name one of them.")
    return resolved[0] if resolved else workdir


def _plan(workdir: Workdir) -> list[Job]:
    """The stages and measurements of the rows and shots that are asked for."""
    rows = row_measurements(workdir)
    return plan([*(rows[name] for name in workdir.config.reproduce.rows), *shot_measurements(workdir)])


def _check(workdir: Workdir) -> None:
    """Refuses what would stop a row later, before anything is written.

    Raises:
        UserError: the records lack a split or tasks that the rows need.
    """
    workdir.require_target()
    for split in ("finetune", "test"):
        workdir.records.shards(workdir.target, split)
    for job in _plan(workdir):
        if isinstance(job, Stage):
            job.check()


def _note_missing_peers(rows: Sequence[str]) -> None:
    """Says which packages of classical methods are missing before hours of training, not after."""
    for row in rows:
        if row in PEERS:
            try:
                peer(row)
            except UserError as error:
                print(f"note: {error}", file=sys.stderr)


def _make(workdir: Workdir) -> None:
    """All rows and shots of one seed."""
    workdir.begin()
    workdir.note(left_out=execute(_plan(workdir)))
    shots = kept_shots(workdir)
    stages = [*comparison_stages(workdir).values(), *(shot.stage for shot in shots if shot.stage)]
    set_aside(outdated(stages, [*row_measurements(workdir).values(), *shots]))


def _make_seeds(first: Workdir, seeds: list[int]) -> None:
    """All seeds, each in its folder, and their pooled results."""
    _move_to_seed_folder(first.path)
    folders = [first.path / f"seed-{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders):
        print(f"seed {seed}: {folder}", file=sys.stderr)
        with run_in(folder, wait=True):  # It may be made ahead, by a process of its own.
            _make(_open(first.config, folder, seed))
    pooled = _open(first.config, first.path, seeds[0])
    pooled.begin()
    pooled.note(seeds=seeds, left_out=read_card(folders[-1]).get("left_out", {}))
    pool_results(folders, first.path)
    pool_results([folder / "shots" for folder in folders], first.path / "shots")


def _move_to_seed_folder(path: Path) -> None:
    """Moves what a run of one seed left in the work directory to the folder of that seed."""
    card = read_card(path)
    stages = card.get("stages", {})
    if not stages or "seeds" in card:
        return
    folder = path / f"seed-{card['seed']}"
    folder.mkdir(exist_ok=True)
    for name in (*stages, *_FILES_OF_A_SEED):
        if (path / name).exists():
            (path / name).rename(folder / name)
