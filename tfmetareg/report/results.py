"""Reads the files of evaluation and training: results, pair scores, example pairs, metrics."""

from __future__ import annotations

import csv
import dataclasses
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath, from_cell
from tfmetareg.methods import METHOD_NAMES, STAGE_LABELS, label

# Measures of labels beside Dice, with their units.
SURFACE_DISTANCES = ("hd95_px", "hd95_mm", "assd_px", "assd_mm")
_METHOD_ORDER = {name: position for position, name in enumerate(METHOD_NAMES)}
_STAGE_ORDER = {name: position for position, name in enumerate((*STAGE_LABELS, *METHOD_NAMES))}


class MeasureSummary(NamedTuple):
    """Mean and standard deviation of a measure over the test pairs, and its mean before registration.

    A number that was not recorded is None.
    """

    mean: float | None
    std: float | None
    before_mean: float | None


@dataclasses.dataclass(frozen=True)
class LabelSummary:
    """One label over the test pairs.

    Attributes:
        pairs: number of pairs that have it in either image.
        lost: number of pairs in which both images have it and the warped image no more.
        measures: summaries of `dice`, `hd95_px`, `hd95_mm`, `assd_px` and `assd_mm`, or None.
    """

    pairs: int
    lost: int
    measures: Mapping[str, MeasureSummary | None]


@dataclasses.dataclass(frozen=True)
class Result:
    """One method on one split: the content of results/<method>.json.

    Attributes:
        distance_px: landmark distance in pixels; None without landmarks.
        distance_mm: landmark distance in mm, over pairs with known pixel size; None if there are none.
        ncc, local_ncc: image similarity, at most 1.
        dice: overlap of labels, over pairs with labels; None if there are none.
        hd95_px, hd95_mm, assd_px, assd_mm: 95 % Hausdorff and average symmetric surface distance of labels,
            over pairs with labels, those in mm with known pixel size; None if there are none.
        labels: measures of each label, by the label's number as a text.
        folding_percent: percentage of pixels whose Jacobian determinant is not positive, mean over pairs.
        seconds_per_pair: median time to register a pair, including its alignment.
        seconds_alignment: median time of the alignment; None without alignment.
        scores_path, examples_path: files with the scores of all pairs and with a few example pairs.
        preprocessing_differs: in what the records were prepared otherwise than the network's images: by name,
            the values of "weights" and "records".
        seeds: seeds that are pooled in this result; empty for a single seed.
        seed_distances: mean landmark distance of each pooled seed, in pixels.
    """

    method: str
    task: str
    split: str
    seed: int | None
    pairs: int
    epochs: float | None
    landmarks: int | None
    distance_px: MeasureSummary | None
    distance_mm: MeasureSummary | None
    ncc: MeasureSummary
    local_ncc: MeasureSummary
    dice: MeasureSummary | None
    folding_percent: float | None
    seconds_per_pair: float | None
    seconds_alignment: float | None
    scores_path: Path
    examples_path: Path
    preprocessing_differs: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    seed_distances: tuple[float, ...] = ()
    hd95_px: MeasureSummary | None = None
    hd95_mm: MeasureSummary | None = None
    assd_px: MeasureSummary | None = None
    assd_mm: MeasureSummary | None = None
    labels: Mapping[str, LabelSummary] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        return label(self.method)


@dataclasses.dataclass(frozen=True)
class PairScore:
    """One line of results/<method>.csv; None for measures that the pair lacks.

    The last ones are also None in a file of an older version, which lacks their columns.
    """

    key: str
    subject: str
    distance_before_px: float | None
    distance_px: float | None
    ncc: float | None
    local_ncc: float | None
    folding_percent: float | None
    seconds: float | None
    loss: float | None
    ncc_before: float | None = None
    local_ncc_before: float | None = None
    dice_before: float | None = None
    dice: float | None = None


class PairImages(NamedTuple):
    """A pair and its registered moving image, (height, width) or (height, width, 3) in [0, 1]."""

    moving: np.ndarray
    fixed: np.ndarray
    warped: np.ndarray


@dataclasses.dataclass(frozen=True)
class ExamplePairs:
    """A few test pairs as one method registered them: results/<method>.examples.npz.

    Attributes:
        keys: names of the n pairs.
        moving, fixed, warped: (n, height, width) float32 in [0, 1], as the records hold them.
        displacement: (n, height, width, 2) float32, pixels, (row, column), on the fixed
            grid: warped(x) = moving(x + displacement(x)).
        fixed_landmarks, moving_landmarks: n arrays (k, 2), (row, column); k may be 0.
        fixed_labels, moving_labels, warped_labels: n integer arrays (height, width), or None for a pair
            without labels; empty if no pair has any.
        originals: n images as the user knows them; None for a pair of which the records' are all there is.
        intensity: what the records did to grey values, "equalize" for instance; empty if not recorded.
        comparison: "overlay" or "checkerboard" if the user chose one; else empty.
    """

    keys: tuple[str, ...]
    moving: np.ndarray
    fixed: np.ndarray
    warped: np.ndarray
    displacement: np.ndarray
    fixed_landmarks: tuple[np.ndarray, ...]
    moving_landmarks: tuple[np.ndarray, ...]
    fixed_labels: tuple[np.ndarray | None, ...] = ()
    moving_labels: tuple[np.ndarray | None, ...] = ()
    warped_labels: tuple[np.ndarray | None, ...] = ()
    originals: tuple[PairImages | None, ...] = ()
    intensity: str = ""
    comparison: str = ""

    def images(self, index: int) -> PairImages:
        """The images of a pair to show: the originals if there are any, else the records'."""
        original = self.originals[index] if self.originals else None
        return original or PairImages(self.moving[index], self.fixed[index], self.warped[index])


def read_results(workdir: StrPath) -> list[Result]:
    """Reads <workdir>/results/*.json: first the known methods in their order, then others by name.

    Raises:
        UserError: a file is damaged or lacks a key.
    """
    results = [read_result(path) for path in sorted(Path(workdir, "results").glob("*.json"))]
    return sorted(
        results, key=lambda result: (_METHOD_ORDER.get(result.method, len(METHOD_NAMES)), result.method)
    )


def before_and_after(result: Result) -> str:
    """A line on what one method did: distance of the landmarks and similarity, before and after."""
    parts = [
        f"{name} {spread.before_mean:.{digits}f} -> {spread.mean:.{digits}f}"
        for name, spread, digits in (
            ("landmark distance (px)", result.distance_px, 2),
            ("landmark distance (mm)", result.distance_mm, 2),
            ("Dice", result.dice, 3),
            ("NCC", result.ncc, 3),
        )
        if spread and spread.mean is not None and spread.before_mean is not None
    ]
    pairs = f"{result.pairs} pair" + ("s" if result.pairs != 1 else "")
    return f"{result.label}, {pairs}, before -> after registration: {', '.join(parts)}.\n"


def prepared_otherwise(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence on records that were prepared otherwise than the images of the network measured on them.

    >>> prepared_otherwise({"intensity": {"weights": "clahe", "records": "equalize"}})
    'trained on images that were prepared otherwise than these records: intensity clahe, here equalize.'
    """
    named = (
        f"{name} {_plain(values['weights'])}, here {_plain(values['records'])}"
        for name, values in differences.items()
    )
    return f"trained on images that were prepared otherwise than these records: {'; '.join(named)}."


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def read_scores(result: Result) -> list[PairScore]:
    """Reads the per-pair CSV file of a result; empty if there is none.

    Raises:
        UserError: a column is missing or a cell is not a number.
    """
    if not result.scores_path.is_file():
        return []
    with open(result.scores_path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        fields = dataclasses.fields(PairScore)
        names = [field.name for field in fields]
        missing = [
            field.name
            for field in fields
            if field.default is dataclasses.MISSING and field.name not in (reader.fieldnames or ())
        ]
        if missing:
            raise UserError(f"{result.scores_path} lacks the column {missing[0]!r}; evaluate again")
        return [_pair_score(row, names, result.scores_path, line) for line, row in enumerate(reader, 2)]


def read_examples(result: Result) -> ExamplePairs | None:
    """Reads the example pairs of a result; None if there is no such file.

    Raises:
        UserError: the file is damaged or lacks an array.
    """
    if not result.examples_path.is_file():
        return None
    try:
        # Opened here, since NumPy would leave a damaged file open.
        with open(result.examples_path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return _examples(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{result.examples_path} is damaged ({_one_line(error)}); evaluate again") from error


def read_metrics(stage_dir: StrPath) -> list[dict[str, Any]]:
    """Reads <stage_dir>/metrics.jsonl: training and evaluation lines in the order of their steps.

    A run that was interrupted and resumed has written some steps twice: the later line counts. A last line
    without a line break is still being written and is ignored.

    Raises:
        UserError: a line is not a JSON object with a `step`.
    """
    path = Path(stage_dir, "metrics.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    latest = {}
    for number, text in enumerate(lines, 1):
        if not text.strip() or not text.endswith("\n"):
            continue
        line = _metrics_line(text, path, number)
        latest[_is_evaluation(line), line["step"]] = line
    return sorted(latest.values(), key=lambda line: line["step"])


def read_stages(workdir: StrPath) -> dict[str, list[dict[str, Any]]]:
    """Reads the metrics of all stages in `workdir`, in the order in which stages run."""
    names = [path.parent.name for path in Path(workdir).glob("*/metrics.jsonl")]
    names.sort(key=lambda name: (_STAGE_ORDER.get(name, len(_STAGE_ORDER)), name))
    return {name: read_metrics(Path(workdir, name)) for name in names}


def series(lines: Iterable[Mapping[str, Any]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of `x` and `y` in the lines that have both, as two float64 arrays (n,)."""
    points = [(line[x], line[y]) for line in lines if line.get(x) is not None and line.get(y) is not None]
    values = np.asarray(points, np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        UserError: it does not.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({_one_line(error)}); write it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def read_result(path: Path) -> Result:
    """Reads <workdir>/results/<method>.json.

    Raises:
        UserError: the file is damaged or lacks a key.
    """
    record = read_json_object(path)
    if record.get("schema") != 1:
        raise UserError(f"{path}: `schema` must be 1, got {record.get('schema')!r}; evaluate again")
    try:
        return _result(record, path)
    except KeyError as error:
        raise UserError(f"{path} lacks the key {error}; evaluate again to rewrite it") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({_one_line(error)}); evaluate again to rewrite it") from error


def _result(record: dict[str, Any], path: Path) -> Result:
    distance, folding = record["distance_px"], record["folding_percent"]
    return Result(
        method=str(record["method"]),
        task=str(record["task"]),
        split=str(record["split"]),
        seed=record["seed"],
        pairs=int(record["pairs"]),
        epochs=_number(record["epochs"]),
        landmarks=None if distance is None else distance["landmarks"],
        distance_px=_optional_summary(distance),
        distance_mm=_optional_summary(record.get("distance_mm")),  # Older results lack the key.
        ncc=_summary(record["ncc"]),
        local_ncc=_summary(record["local_ncc"]),
        dice=_optional_summary(record.get("dice")),
        folding_percent=_number(folding["mean"]),
        seconds_per_pair=_number(record["seconds_per_pair"]["median"]),
        # Null without alignment; older results lack the key.
        seconds_alignment=_number(record["seconds_per_pair"].get("alignment_median") or None),
        scores_path=path.with_name(str(record["per_pair"])),
        examples_path=path.with_name(f"{path.stem}.examples.npz"),
        preprocessing_differs=record.get("preprocessing_differs", {}),
        seeds=tuple(record.get("seeds", ())),
        seed_distances=tuple(record.get("over_seeds", {}).get("distance_px", {}).get("means", ())),
        **{name: _optional_summary(record.get(name)) for name in SURFACE_DISTANCES},
        labels={label: _label(entry) for label, entry in (record.get("labels") or {}).items()},
    )


def _label(record: dict[str, Any]) -> LabelSummary:
    measures = {name: _optional_summary(record[name]) for name in ("dice", *SURFACE_DISTANCES)}
    return LabelSummary(int(record["pairs"]), int(record["lost"]), measures)


def _summary(record: dict[str, Any]) -> MeasureSummary:
    return MeasureSummary(*(_number(record[name]) for name in MeasureSummary._fields))


def _optional_summary(record: dict[str, Any] | None) -> MeasureSummary | None:
    return None if record is None else _summary(record)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _pair_score(row: dict[str, str], names: list[str], path: Path, line: int) -> PairScore:
    key, subject, *measures = (row.get(name) or "" for name in names)
    try:
        return PairScore(
            from_cell(key), from_cell(subject), *(float(text) if text.strip() else None for text in measures)
        )
    except ValueError as error:
        raise UserError(f"{path}, line {line}: {_one_line(error)}; evaluate again to rewrite it") from error


def _examples(arrays: Any) -> ExamplePairs:
    keys = tuple(str(key) for key in arrays["key"])
    images: dict[str, Any] = {name: arrays[name] for name in ("moving", "fixed", "warped", "displacement")}
    height, width = images["fixed"].shape[1:]
    for name, array in images.items():
        expected = (len(keys), height, width) + ((2,) if name == "displacement" else ())
        if array.shape != expected:
            raise ValueError(f"`{name}` must have the shape {expected}, got {array.shape}")
    fixed_landmarks, moving_landmarks = (
        tuple(arrays[f"{name}_{i}"].reshape(-1, 2) for i in range(len(keys)))
        for name in ("fixed_landmarks", "moving_landmarks")
    )
    labels: dict[str, Any] = {
        f"{name}_labels": tuple(
            _label_map(arrays, f"{name}_labels_{i}", (height, width)) for i in range(len(keys))
        )
        for name in ("fixed", "moving", "warped")
    }
    return ExamplePairs(
        keys=keys,
        fixed_landmarks=fixed_landmarks,
        moving_landmarks=moving_landmarks,
        originals=tuple(_original(arrays, index) for index in range(len(keys))),
        intensity=str(arrays["intensity"]) if "intensity" in arrays else "",
        comparison=str(arrays["comparison"]) if "comparison" in arrays else "",
        **images,
        **labels,
    )


def _original(arrays: Any, index: int) -> PairImages | None:
    names = [f"original_{name}_{index}" for name in PairImages._fields]
    if names[0] not in arrays:
        return None
    return PairImages(*(arrays[name].astype(np.float32) / 255 for name in names))


def _label_map(arrays: Any, name: str, shape: tuple[int, int]) -> np.ndarray | None:
    if name not in arrays:
        return None
    if arrays[name].shape != shape:
        raise ValueError(f"`{name}` must have the shape {shape}, got {arrays[name].shape}")
    return arrays[name]


def _metrics_line(text: str, path: Path, number: int) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON ({_one_line(error)})") from error
    if not isinstance(line, dict) or not isinstance(line.get("step"), (int, float)):
        raise UserError(f"{path}, line {number} must be a JSON object with a number `step`")
    return line


def _is_evaluation(line: dict[str, Any]) -> bool:
    return any(name.startswith("test/") for name in line)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
