"""`decathlon`: one task folder of the Medical Segmentation Decathlon, as downloaded and unpacked.

`dataset.json` names the modalities (the channels of a 4D image) and, under
`training`, the images and their labels. Each modality becomes a task; its
pairs are neighbouring axial slices of one volume (see `volumes`), the upper
one moving. An image is a patient, hence a subject. Of `labelsTr`, where it is
there, the slices' labels come along.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import Problems, UserError
from tfmetareg.imaging.read import stem
from tfmetareg.imaging.volumes import Volume, canonical, channel_count, open_nifti, same_grid
from tfmetareg.types import ImagePair
from tfrecords_builder.slices import slice_pairs
from tfrecords_builder.sources.base import (
    SLICE_OPTIONS,
    Lazy,
    Option,
    Request,
    SourceTask,
    existing_folder,
    source,
    window,
)

DATASET = "dataset.json"
_IMAGES = "imagesTr"
_MODALITIES = Option(
    "--modalities",
    {
        "nargs": "+",
        "default": None,
        "metavar": "NAME",
        "help": "channels to take, by their names in dataset.json in any case; each becomes a task "
        "(default: all)",
    },
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One patient: image and, where there are some, labels."""

    subject: str
    image: Path
    labels: Optional[Path]


@source(
    "decathlon",
    summary="task folder of the Medical Segmentation Decathlon",
    options=(_MODALITIES, *SLICE_OPTIONS),
)
def decathlon_tasks(request: Request) -> list[SourceTask]:
    """A task for each modality asked for, named as the user, or else `dataset.json`, writes it.

    `request.task` names the task of a single modality, and goes before the
    modality's name where there are several: `brain_t1w`.

    Raises:
        UserError: no folder, no readable `dataset.json`, no image, an unknown
            modality or an impossible window.
    """
    root = existing_folder(request.input)
    dataset = _read_dataset(root)
    modalities = _modalities(root / DATASET, dataset)
    chosen = _chosen(modalities, request.options["modalities"], root / DATASET)
    limits = window(request)
    slicing = {**{name: request.options[name] for name in ("gap", "stride", "foreground")}, "window": limits}
    cases = _cases(root, dataset, request.problems)
    return [
        SourceTask(
            name=_task_name(name, request.task, alone=len(chosen) == 1),
            role=request.role,
            modality=modalities[channel] + (" ({:g} to {:g})".format(*limits) if limits else ""),
            pairs=Lazy(
                [
                    functools.partial(_read_case, case, channel, modalities, slicing, request.problems)
                    for case in cases
                ]
            ),
        )
        for name, channel in chosen.items()
    ]


def _task_name(modality: str, prefix: Optional[str], alone: bool) -> str:
    if prefix and alone:
        return prefix
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", modality)
    return f"{prefix}_{name}" if prefix else name


def _read_dataset(root: Path) -> dict[str, Any]:
    path = root / DATASET
    try:
        dataset = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        inside = sorted(found.parent.name for found in root.glob(f"*/{DATASET}"))
        hint = f"did you mean {root / inside[0]}?" if inside else "give the folder of one task, as unpacked."
        raise UserError(f"{path}: no such file; {hint}") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable as JSON ({reason}); unpack the task again.") from None
    if not isinstance(dataset, dict):
        raise UserError(f"{path}: must hold a JSON object, got {type(dataset).__name__}.")
    return dataset


def _modalities(path: Path, dataset: dict[str, Any]) -> list[str]:
    """Names of the channels, in their order."""
    found = dataset.get("modality")
    rule = 'must name the channels in order, as in {"0": "FLAIR", "1": "T1w"}'
    if not isinstance(found, dict) or not found or {*found} != {str(i) for i in range(len(found))}:
        raise UserError(f"{path}: `modality` {rule}, got {json.dumps(found)}.")
    names = [found[str(channel)] for channel in range(len(found))]
    if not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: `modality` {rule}, got {json.dumps(found)}.")
    if len({name.lower() for name in names}) < len(names):
        raise UserError(f"{path}: two modalities have the same name: {', '.join(names)}; rename one.")
    return names


def _chosen(modalities: Sequence[str], wanted: Optional[Sequence[str]], path: Path) -> dict[str, int]:
    """Channel by name, the names as the user writes them."""
    channels = {name.lower(): channel for channel, name in enumerate(modalities)}
    chosen: dict[str, int] = {}
    for name in wanted or modalities:
        if name.lower() not in channels:
            near = difflib.get_close_matches(name.lower(), channels, 1)
            hint = f" did you mean `{modalities[channels[near[0]]]}`?" if near else ""
            raise UserError(
                f"{path}: no modality `{name}`;{hint} `--modalities` must be of: {', '.join(modalities)}."
            )
        if channels[name.lower()] in chosen.values():
            raise UserError(f"`--modalities`: `{name}` is named twice; remove one.")
        chosen[name] = channels[name.lower()]
    return chosen


def _cases(root: Path, dataset: dict[str, Any], problems: Problems) -> list[Case]:
    """The patients that `dataset.json` lists; reports those that are not there, or not listed."""
    entries = dataset.get("training")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{root / DATASET}: `training` must list the images; unpack the task again.")
    cases: dict[str, Case] = {}
    for index, entry in enumerate(entries):
        with problems.collected():
            case = _case(root, entry, f"{root / DATASET}, training[{index}]")
            if case.subject in cases:
                raise UserError(f"{root / DATASET}: {case.subject} is listed twice; remove one.")
            cases[case.subject] = case
    _check_files(root, list(cases.values()), problems)
    return list(cases.values())


def _case(root: Path, entry: Any, where: str) -> Case:
    image = _path(root, entry, "image", where)
    labels = _path(root, entry, "label", where) if "label" in entry else None
    has_labels = labels is not None and os.path.isdir(labels.parent)
    return Case(stem(image), image, labels if has_labels else None)


def _path(root: Path, entry: Any, key: str, where: str) -> Path:
    """The file that an entry names, within the folder."""
    if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
        raise UserError(f'{where}: must name its `{key}`, as in {{"{key}": "./{_IMAGES}/name.nii.gz"}}.')
    path = os.path.normpath(entry[key])
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        raise UserError(f"{where}: `{entry[key]}` leads out of the folder; copy or link the file into it.")
    return root / path


def _check_files(root: Path, cases: Sequence[Case], problems: Problems) -> None:
    """Files that are listed and missing, or there and not listed (macOS leaves `._*` beside each)."""
    listed = {path for case in cases for path in (case.image, case.labels) if path is not None}
    missing = sorted(path for path in listed if not os.path.isfile(path))
    found = (path for path in (root / _IMAGES).glob("*.nii*") if not path.name.startswith("."))
    unlisted = sorted(path for path in found if path not in listed)
    if missing:
        problems.add(f"{root / DATASET}: {_first(missing)} not there; fetch, or take off the list.")
    if unlisted:
        problems.add(f"{root / DATASET}: does not list {_first(unlisted)}; add to `training`, or move away.")


def _first(paths: Sequence[Path]) -> str:
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _read_case(
    case: Case, channel: int, modalities: Sequence[str], slicing: dict[str, Any], problems: Problems
) -> Iterator[ImagePair]:
    """Pairs of one patient and modality; what is wrong goes to `problems`."""
    if not os.path.isfile(case.image):  # reported with the other missing ones
        return
    with problems.collected():
        volume, labels = _read_volume(case.image, channel, modalities), _read_labels(case)
        yield from slice_pairs(volume, labels, case.subject, str(case.image), **slicing)


def _read_volume(path: Path, channel: int, modalities: Sequence[str]) -> Volume:
    image = open_nifti(path)
    if channel_count(image) != len(modalities):
        raise UserError(
            f"{path}: shape {image.shape} has {channel_count(image)} channels, {DATASET} names "
            f"{len(modalities)} ({', '.join(modalities)}); correct `modality` there, or the image."
        )
    return canonical(image, channel)


def _read_labels(case: Case) -> Optional[Volume]:
    """The labels, uint8, on the image's grid; None where there are none."""
    if case.labels is None or not os.path.isfile(case.labels):
        return None
    labels = open_nifti(case.labels)
    if channel_count(labels) > 1 or not same_grid(labels, open_nifti(case.image)):
        raise UserError(
            f"{case.labels}: shape {labels.shape}, voxel size, orientation or origin differs from that of "
            f"{case.image.name}; labels must be 3D, on the image's grid."
        )
    found = canonical(labels)
    with np.errstate(invalid="ignore"):
        whole = found.voxels.astype(np.uint8)
    if not np.array_equal(whole, found.voxels):
        raise UserError(f"{case.labels}: labels must be whole numbers from 0 to 255.")
    return dataclasses.replace(found, voxels=whole)
