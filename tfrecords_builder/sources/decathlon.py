"""`decathlon`: one task folder of the Medical Segmentation Decathlon, as downloaded and unpacked.

`dataset.json` names the modalities (the channels of a 4D image) and, under `training`, the images and their
labels. Each modality becomes a task. Its pairs are neighbouring axial slices of one volume (see
`imaging.volumes`); the upper slice is the moving one. Each image is a patient and hence a subject. If the
folder `labelsTr` exists, the pairs get the slices' labels.
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

from tfmetareg.errors import Problems, UserError, one_line
from tfmetareg.imaging.labels import read_label_volume
from tfmetareg.imaging.names import name_on_disk
from tfmetareg.imaging.pair_table import leads_out
from tfmetareg.imaging.read import stem
from tfmetareg.imaging.volumes import Volume, canonical, channel_count, open_nifti
from tfmetareg.types import ImagePair
from tfrecords_builder.slices import slice_pairs
from tfrecords_builder.sources.base import (
    SLICE_OPTIONS,
    LazyPairs,
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
        "help": "channels to use, named as in dataset.json (upper or lower case); each becomes a task "
        "(default: all)",
    },
)


@dataclasses.dataclass(frozen=True)
class Patient:
    """The files of one patient: the image and, if there are any, its labels."""

    subject: str
    image: Path
    labels: Optional[Path]


@source(
    "decathlon",
    summary="task folder of the Medical Segmentation Decathlon",
    options=(_MODALITIES, *SLICE_OPTIONS),
)
def decathlon_tasks(request: Request) -> list[SourceTask]:
    """A task for each chosen modality, named as in `--modalities`, else as in `dataset.json`.

    `request.task` is the name of the task if there is one modality; with
    several it is a prefix of the modality's name: `brain_t1w`.

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
    patients = _patients(root, dataset, request.problems)
    return [
        SourceTask(
            name=_task_name(name, request.task, alone=len(chosen) == 1),
            role=request.role,
            modality=modalities[channel] + (" ({:g} to {:g})".format(*limits) if limits else ""),
            pairs=LazyPairs(
                [
                    functools.partial(_read_patient, patient, channel, modalities, slicing, request.problems)
                    for patient in patients
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
        inside = sorted(file.parent.name for file in root.glob(f"*/{DATASET}"))
        hint = f"did you mean {root / inside[0]}?" if inside else "give the folder of one task, as unpacked."
        raise UserError(f"{path}: no such file; {hint}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({one_line(error)}); unpack the task again.") from None
    if not isinstance(dataset, dict):
        raise UserError(f"{path}: must hold a JSON object, got {type(dataset).__name__}.")
    return dataset


def _modalities(path: Path, dataset: dict[str, Any]) -> list[str]:
    """Names of the channels, in order."""
    entry = dataset.get("modality")
    rule = 'must name the channels in order, as in {"0": "FLAIR", "1": "T1w"}'
    if not isinstance(entry, dict) or not entry or {*entry} != {str(i) for i in range(len(entry))}:
        raise UserError(f"{path}: `modality` {rule}, got {json.dumps(entry)}.")
    names = [entry[str(channel)] for channel in range(len(entry))]
    if not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: `modality` {rule}, got {json.dumps(entry)}.")
    if len({name.lower() for name in names}) < len(names):
        raise UserError(f"{path}: two modalities have the same name: {', '.join(names)}; rename one.")
    return names


def _chosen(modalities: Sequence[str], wanted: Optional[Sequence[str]], path: Path) -> dict[str, int]:
    """Channel by modality, the modalities named as the user writes them."""
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


def _patients(root: Path, dataset: dict[str, Any], problems: Problems) -> list[Patient]:
    """The patients in `dataset.json`; reports files that are missing or not listed."""
    entries = dataset.get("training")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{root / DATASET}: `training` must list the images; unpack the task again.")
    patients: dict[str, Patient] = {}
    for index, entry in enumerate(entries):
        with problems.collected():
            patient = _patient(root, entry, f"{root / DATASET}, training[{index}]")
            if patient.subject in patients:
                raise UserError(f"{root / DATASET}: {patient.subject} is listed twice; remove one.")
            patients[patient.subject] = patient
    _check_files(root, list(patients.values()), problems)
    return list(patients.values())


def _patient(root: Path, entry: Any, where: str) -> Patient:
    image = _path(root, entry, "image", where)
    labels = _path(root, entry, "label", where) if "label" in entry else None
    has_labels = labels is not None and os.path.isdir(labels.parent)
    return Patient(stem(image), image, labels if has_labels else None)


def _path(root: Path, entry: Any, key: str, where: str) -> Path:
    """The path that an entry names, which must lie in the folder."""
    if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
        raise UserError(
            f'{where}: must name its `{key}`, as in {{"{key}": "./{_IMAGES}/name.nii.gz"}}, '
            f"got {json.dumps(entry):.80}; correct it."
        )
    name = name_on_disk(root, entry[key])
    if leads_out(name):
        raise UserError(f"{where}: `{entry[key]}` leads out of the folder; copy or link the file into it.")
    return root / os.path.normpath(name)


def _check_files(root: Path, patients: Sequence[Patient], problems: Problems) -> None:
    """Reports files that are listed but missing, and files that exist but are not listed.

    Hidden files do not count: macOS writes a `._*` file beside each file.
    """
    listed = {path for patient in patients for path in (patient.image, patient.labels) if path is not None}
    missing = sorted(path for path in listed if not os.path.isfile(path))
    present = (path for path in (root / _IMAGES).glob("*.nii*") if not path.name.startswith("."))
    unlisted = sorted(path for path in present if path not in listed)
    if missing:
        problems.add(f"{root / DATASET}: {_first(missing)} not there; fetch, or take off the list.")
    if unlisted:
        problems.add(f"{root / DATASET}: does not list {_first(unlisted)}; add to `training`, or move away.")


def _first(paths: Sequence[Path]) -> str:
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _read_patient(
    patient: Patient, channel: int, modalities: Sequence[str], slicing: dict[str, Any], problems: Problems
) -> Iterator[ImagePair]:
    """Yields the pairs of one patient and modality; mistakes go to `problems`."""
    if not os.path.isfile(patient.image):  # `_check_files` has reported it.
        return
    read: dict[str, Any] = {}
    with problems.collected():
        read["volume"] = _read_volume(patient.image, channel, modalities)
    with problems.collected():
        read["labels"] = _read_labels(patient)
    if len(read) == 2:
        with problems.collected():
            yield from slice_pairs(**read, subject=patient.subject, where=str(patient.image), **slicing)


def _read_volume(path: Path, channel: int, modalities: Sequence[str]) -> Volume:
    image = open_nifti(path)
    if channel_count(image) != len(modalities):
        raise UserError(
            f"{path}: shape {image.shape} has {channel_count(image)} channels, {DATASET} names "
            f"{len(modalities)} ({', '.join(modalities)}); correct `modality` there, or the image."
        )
    return canonical(image, channel)


def _read_labels(patient: Patient) -> Optional[Volume]:
    """The labels, on the image's grid; None if there are none."""
    if patient.labels is None or not os.path.isfile(patient.labels):
        return None
    return read_label_volume(patient.labels, patient.image)
