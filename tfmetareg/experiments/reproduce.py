"""The paper's comparison: trains what each row needs, measures it, for every seed, and draws the report.

One seed works in the work directory itself, several in `seed-<s>/` each, and the work directory holds their
results together. Everything is kept: a second call does what is missing, or what a changed key touches.
Stages and rows of another configuration go to `replaced/`, asked for or not; others stay as they are.
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
from tfmetareg.experiments.rows import UNTRAINED, Stages, measure, set_aside_outdated
from tfmetareg.experiments.shots import make_shots, set_aside_outdated_shots
from tfmetareg.modes.evaluate import show
from tfmetareg.modes.workdir import Workdir, open_workdir, read_card
from tfmetareg.report.pooling import pool_results

# What a work directory of one seed holds, apart from what is made of it again at once.
# The run card last: it tells what else there is to move.
_OF_A_SEED = ("config.yaml", "results", "shots", "replaced", "run.json")
# Rows that need a package, or records, that not everybody has.
_OPTIONAL = ("affine", "elastix", "syn")


def run(config: Config, workdir: Path) -> None:
    """Makes every row of `config.reproduce.rows` for every seed, in `workdir`, and prints the table."""
    workdir = Path(workdir)
    seeds = seeds_of(config.reproduce.seeds, config.seed)
    opened = _with_network(_open(config, workdir, seeds[0]))
    _check(opened)
    _tell_missing_peers(config.reproduce.rows)
    if seeds == [_only_seed(workdir, seeds[0])]:
        _make(opened)
    else:
        _make_seeds(opened, seeds)
    show(workdir)
    statistics = workdir / "tables" / "statistics.md"
    if statistics.is_file():
        print("\n" + statistics.read_text(encoding="utf-8"))
    for row, why in read_card(workdir).get("left_out", {}).items():
        print(f"Left out: {row}: {why}")


def seeds_of(seeds: Union[int, list[int]], first: int) -> list[int]:
    """The seeds: as listed, or as many as asked for, counted up from the first."""
    return list(seeds) if isinstance(seeds, list) else [first + number for number in range(seeds)]


def _only_seed(workdir: Path, default: int) -> Optional[int]:
    """The seed of a work directory of one seed, `default` of a new one; None where each has its folder."""
    if list(workdir.glob("seed-*")):
        return None
    card = read_card(workdir)
    return card.get("seed", default) if card.get("stages") else default


def _open(config: Config, workdir: Path, seed: int) -> Workdir:
    return open_workdir(dataclasses.replace(config, seed=seed), workdir)


def _with_network(run: Workdir) -> Workdir:
    """The run with the network of the weights files that its stages start from, the same for every row.

    Raises:
        UserError: two files hold different networks.
    """
    named = {f"{one}.init": getattr(run.config, one).init for one in ("pretrain", "reptile")}
    files = {key: run.weights(init) for key, init in named.items() if Path(init).suffix == ".h5"}
    settled = {key: run.starting_from(file) for key, file in files.items()}
    networks = [one.config.model for one in settled.values()]
    if networks[1:] and networks[0] != networks[1]:
        told = " and ".join(f"`{key}` ({file})" for key, file in files.items())
        raise UserError(f"{told} hold different networks, and every row needs the same; name one of them.")
    return next(iter(settled.values()), run)


def _check(run: Workdir) -> None:
    """Refuses what would stop a row later, before anything is written.

    Raises:
        UserError: the records lack a split or tasks that the rows need.
    """
    root, target = run.records.root, run.target
    if not target:
        raise UserError(f"{root}: holds no target task; build one with --role target.")
    for split in ("finetune", "test"):
        run.records.shards(target, split)
    asked = run.config.reproduce
    trains = bool(asked.shots) or not set(asked.rows) <= set(UNTRAINED)
    if trains and not run.sources:
        raise UserError(f"{root}: holds no source task; build one with --role source.")
    m = run.config.reptile.meta_batch_size
    meta_trains = bool(asked.shots) or any(row.startswith("ours") for row in asked.rows)
    if meta_trains and m > len(run.sources):
        raise UserError(
            f"`reptile.meta_batch_size` ({m}) must be at most the number of source tasks "
            f"({len(run.sources)}: {', '.join(run.sources)})."
        )


def _tell_missing_peers(rows: Sequence[str]) -> None:
    """Says which peers are not installed before hours of training, not after."""
    for row in rows:
        if row in PEERS:
            try:
                peer(row)
            except UserError as error:
                print(f"note: {error}", file=sys.stderr)


def _make(run: Workdir) -> None:
    """All rows, and the shots, of one seed."""
    run.begin()
    stages = Stages(run)
    left_out = {}
    for row in run.config.reproduce.rows:
        try:
            measure(stages, row)
        except UserError as error:
            if row not in _OPTIONAL:
                raise
            left_out[row] = str(error)
            print(f"{row}: left out, {error}", file=sys.stderr)
    run.note(left_out=left_out)
    make_shots(stages)
    set_aside_outdated(run)
    set_aside_outdated_shots(run)


def _make_seeds(first: Workdir, seeds: list[int]) -> None:
    """All seeds, each in its folder, and their results together."""
    workdir = first.workdir
    _into_folder(workdir)
    folders = [workdir / f"seed-{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders):
        print(f"seed {seed}: {folder}", file=sys.stderr)
        _make(_open(first.config, folder, seed))
    together = _open(first.config, workdir, seeds[0])
    together.begin()
    together.note(seeds=seeds, left_out=read_card(folders[-1]).get("left_out", {}))
    pool_results(folders, workdir)
    pool_results([folder / "shots" for folder in folders], workdir / "shots")


def _into_folder(workdir: Path) -> None:
    """Moves what a run of one seed left in the work directory to that seed's folder."""
    card = read_card(workdir)
    stages = card.get("stages", {})
    if not stages or "seeds" in card:
        return
    folder = workdir / f"seed-{card['seed']}"
    folder.mkdir(exist_ok=True)
    for name in (*stages, *_OF_A_SEED):
        if (workdir / name).exists():
            (workdir / name).rename(folder / name)
