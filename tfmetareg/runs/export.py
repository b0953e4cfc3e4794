"""Writes weights as a SavedModel that TF Serving, or plain TensorFlow, loads without this project."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Optional

import tensorflow as tf

from tfmetareg.config import Config
from tfmetareg.data.records import Records, examples
from tfmetareg.errors import UserError
from tfmetareg.files import published
from tfmetareg.runs.preprocessing import find_preprocessing
from tfmetareg.runs.run import build_network, find_weights
from tfmetareg.schema import SPLITS
from tfmetareg.serving import onnx
from tfmetareg.serving.preprocess import unservable
from tfmetareg.serving.saved_model import save
from tfmetareg.serving.warmup import Example
from tfrecords_builder.preprocess import Preprocessing, prepare_pair
from tfrecords_builder.sources.embedded import embedded_tasks


def run(config: Config, workdir: Path) -> Path:
    """Exports `config.export.weights` to `<workdir>/export/<name>/<next version>/`; returns that folder.

    Raises:
        UserError: no such weights or records, or the work directory cannot be written.
    """
    options = config.export
    path = find_weights(workdir, options.weights)
    # It takes any size: the one it is built at leaves no trace. It may run anywhere: hence float32.
    model = build_network(dataclasses.replace(config.model, precision="float32"), (64, 64), path)
    preprocessing = find_preprocessing(path)
    example = _recorded(config) if config.data.root else _phantom(preprocessing)
    folder = Path(workdir) / "export" / options.name
    target = folder / str(_next_version(folder))
    try:
        with contextlib.ExitStack() as stack:
            if options.onnx:
                file = target.parent.with_name(f"{options.name}-{target.name}.onnx")
                onnx.save(model, stack.enter_context(published(file)))
            temporary = stack.enter_context(published(target))
            save(model, _servable(preprocessing), temporary, name=options.name, example=example)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); name another --workdir.") from None
    print(f"Exported {path} to {target}", file=sys.stderr)
    return target


def _next_version(folder: Path) -> int:
    versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()]
    return max(versions, default=0) + 1


def _servable(preprocessing: Preprocessing) -> Optional[Preprocessing]:
    """The preprocessing, or None where no graph can do it; a line on stderr tells of what it leaves out."""
    reason = unservable(preprocessing)
    if reason:
        print(f"note: exported without the signature `register_png`: {reason}.", file=sys.stderr)
        return None
    if preprocessing.align != "none":
        print(
            f"note: the records' `--align {preprocessing.align}` is not part of the exported model: "
            "send pairs that are aligned already.",
            file=sys.stderr,
        )
    return preprocessing


def _recorded(config: Config) -> Example:
    """A pair of the records: of the target's test split, or of what there is."""
    records = Records(config.data.root)
    manifest = records.manifest
    named = [manifest.task(config.data.target).name] if config.data.target else []
    tasks = named or [*manifest.names("target"), *manifest.names("source")]
    found = [(task, split) for task in tasks for split in reversed(SPLITS) if records.pair_count(task, split)]
    if not found:
        raise UserError(f"{records.root}: holds no pairs; name other records with `data.root`.")
    pair = next(iter(examples(records, *found[0])))
    images = pair.get("aligned", pair["moving"]), pair["fixed"]
    moving, fixed = (tf.image.convert_image_dtype(image[..., 0], tf.uint8).numpy() for image in images)
    return Example(moving, fixed, pair["fixed_landmarks"].numpy())


def _phantom(preprocessing: Preprocessing) -> Example:
    """A pair of the embedded target task, in the records' size."""
    target = embedded_tasks(target_finetune=1, target_test=1)[-1]
    plain = Preprocessing(preprocessing.image_size)
    pair = prepare_pair(next(iter(target.pairs)), plain)
    return Example(pair.moving, pair.fixed, pair.fixed_landmarks)
