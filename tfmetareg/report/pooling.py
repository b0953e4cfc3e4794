"""Pools the results of several seeds into result files of the same format."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import published, write_json, write_text
from tfmetareg.report.results import SURFACE_DISTANCES, read_json_object

SPREADS = ("distance_px", "distance_mm", "ncc", "local_ncc", "dice", *SURFACE_DISTANCES)


def pool_results(folders: Sequence[Path], workdir: Path) -> None:
    """Writes `<workdir>/results`: the pooled results of each method that all folders have.

    `<method>.json` has the same fields as for one seed, with mean and standard deviation over all pairs of
    all seeds, and `seed` null. In addition it has `seeds`, and `over_seeds` with the mean of each seed and
    the standard deviation of these means, for each measure. `<method>.csv` holds the mean of each pair over
    the seeds. The example pairs are those of the first seed.

    Args:
        folders: work directories, one per seed.
        workdir: work directory of the pooled results; earlier pooled results are replaced.

    Raises:
        UserError: the seeds were measured on different pairs.
    """
    place = Path(workdir, "results")
    methods = [{path.stem for path in Path(folder, "results").glob("*.json")} for folder in folders]
    shared = sorted(set.intersection(*methods))
    for path in place.glob("*.json"):
        if path.stem not in shared and "over_seeds" in read_json_object(path):
            path.unlink()
    for method in shared:
        _pool([Path(folder, "results") for folder in folders], method, place)


def _pool(folders: Sequence[Path], method: str, place: Path) -> None:
    records = [read_json_object(folder / f"{method}.json") for folder in folders]
    tables = [_read_rows(folder / f"{method}.csv") for folder in folders]
    keys = [row["key"] for row in tables[0]]
    if any([row["key"] for row in table] != keys for table in tables):
        raise UserError(f"{method}: the seeds were measured on different pairs; evaluate again.")
    write_text(place / f"{method}.csv", _mean_rows(tables))
    examples = folders[0] / f"{method}.examples.npz"
    if examples.is_file():
        with published(place / examples.name) as temporary:
            shutil.copyfile(examples, temporary)
    write_json(place / f"{method}.json", pooled_record(records, tables))


def pooled_record(records: Sequence[dict[str, Any]], tables: Sequence[list[dict[str, str]]]) -> dict:
    """The pooled result of one method, from the result and the pair rows of each seed."""
    first = records[0]
    measured = [name for name in SPREADS if all(record.get(name) is not None for record in records)]
    spreads = {name: first[name] for name in measured}
    return {
        **first,
        "seed": None,
        **{name: {**spread, **_spread(tables, name)} for name, spread in spreads.items()},
        "folding_percent": {
            "mean": float(np.mean([record["folding_percent"]["mean"] for record in records])),
            "max": float(np.max([record["folding_percent"]["max"] for record in records])),
        },
        "seconds_per_pair": {
            name: float(np.median([record["seconds_per_pair"][name] for record in records]))
            for name in first["seconds_per_pair"]
        },
        "labels": _labels(records, tables),
        "seeds": [record["seed"] for record in records],
        "over_seeds": {name: _over_seeds([record[name]["mean"] for record in records]) for name in spreads},
    }


def _labels(
    records: Sequence[dict[str, Any]], tables: Sequence[list[dict[str, str]]]
) -> dict[str, dict[str, Any]] | None:
    """The measures of each label over all pairs of all seeds; `lost` is the sum over the seeds."""
    pooled = {}
    for label, entry in (records[0].get("labels") or {}).items():
        spreads = {
            name: spread and {**spread, **_spread(tables, f"label_{label}_{name}")}
            for name, spread in entry.items()
            if name not in ("pairs", "lost")
        }
        lost = sum(record["labels"][label]["lost"] for record in records)
        pooled[label] = {"pairs": entry["pairs"], "lost": lost, **spreads}
    return pooled or None


def _over_seeds(means: Sequence[float]) -> dict[str, Any]:
    return {"means": list(means), "std": float(np.std(means))}


def _spread(tables: Sequence[list[dict[str, str]]], name: str) -> dict[str, float]:
    """Mean and standard deviation over all pairs of all seeds."""
    values = [float(row[name]) for table in tables for row in table if row[name]]
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def _read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _mean_rows(tables: Sequence[list[dict[str, str]]]) -> str:
    """Pair rows as CSV, with the mean over the tables in each numeric column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(tables[0][0]), lineterminator="\n")
    writer.writeheader()
    for rows in zip(*tables):
        writer.writerow({name: _mean_cell(name, [row[name] for row in rows]) for name in rows[0]})
    return text.getvalue()


def _mean_cell(name: str, cells: Sequence[str]) -> str | float:
    if name in ("key", "subject") or not all(cells):
        return cells[0]
    return float(np.mean([float(cell) for cell in cells]))
