"""Writes weights as a SavedModel that TF Serving, or plain TensorFlow, loads without this project."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Optional

import tensorflow as tf

from tfmetareg.config import Config
from tfmetareg.data.records import Records, examples
from tfmetareg.data.schema import SPLITS
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.preprocessing_file import find_preprocessing
from tfmetareg.modes.configured import build_configured
from tfmetareg.modes.workdir import find_weights
from tfmetareg.serving import onnx
from tfmetareg.serving.preprocessing_graph import unservable
from tfmetareg.serving.saved_model import save
from tfmetareg.serving.warmup import WarmupPair, synthetic_pair


def run(config: Config, workdir: Path) -> Path:
    """Exports `config.export.weights` to `<workdir>/export/<name>/<next version>/`; returns that folder.

    Raises:
        UserError: no such weights or records, or the work directory cannot be written.
    """
    options = config.export
    path = find_weights(workdir, options.weights)
    # It takes any size: the one it is built at leaves no trace. It may run anywhere: hence float32.
    model = build_configured(dataclasses.replace(config.model, precision="float32"), (64, 64), path)
    preprocessing = find_preprocessing(path)
    example = _example(config, preprocessing)
    folder = Path(workdir) / "export" / options.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
            saved, converted = Path(temporary, "saved_model"), Path(temporary, "model.onnx")
            save(model, _servable(preprocessing), saved, name=options.name, warmup_pair=example)
            if options.onnx:
                onnx.save(model, converted)
            target = _publish_next_version(saved, folder)
            if options.onnx:
                os.replace(converted, folder.with_name(f"{options.name}-{target.name}.onnx"))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); name another --workdir."
        ) from None
    print(f"Exported {path} to {target}", file=sys.stderr)
    return target


def _publish_next_version(saved: Path, folder: Path) -> Path:
    """Moves a saved model to the number after the folder's highest, which others may raise meanwhile."""
    while True:
        names = [entry.name for entry in folder.iterdir()]
        versions = [int(name) for name in names if re.fullmatch("[0-9]+", name)]
        target = folder / str(max(versions, default=0) + 1)
        try:
            os.rename(saved, target)
            return target
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


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


def _example(config: Config, preprocessing: Preprocessing) -> WarmupPair:
    """A pair of the records if they have the size that the weights were trained at, else a synthetic one."""
    example = _recorded(config.data.root, config.data.target) if config.data.root else None
    if example and example.fixed.shape == tuple(preprocessing.image_size):
        return example
    return synthetic_pair(preprocessing.image_size)


def _recorded(root: str, target: str) -> WarmupPair:
    """A pair of the records: of the target's test split, or of what there is."""
    records = Records(root)
    manifest = records.manifest
    named = [manifest.task(target).name] if target else []
    tasks = named or [*manifest.names("target"), *manifest.names("source")]
    found = [(task, split) for task in tasks for split in reversed(SPLITS) if records.pair_count(task, split)]
    if not found:
        raise UserError(f"{records.root}: holds no pairs; name other records with `data.root`.")
    pair = next(iter(examples(records, *found[0])))
    images = pair.get("aligned", pair["moving"]), pair["fixed"]
    moving, fixed = (tf.image.convert_image_dtype(image[..., 0], tf.uint8).numpy() for image in images)
    return WarmupPair(moving, fixed, pair["fixed_landmarks"].numpy())
