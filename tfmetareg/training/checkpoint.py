"""Checkpoints of a training stage, bound to the configuration that they belong to."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.files import write_json


class TrainState:
    """The changing state of a training stage: model, optimizers, position in the data, step."""

    def __init__(
        self,
        model: tf.keras.Model,
        optimizers: dict[str, tf.keras.optimizers.legacy.Optimizer],
        batches: tf.data.Dataset,
    ):
        self.model = model
        self.optimizers = optimizers
        self.iterator = iter(batches)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")

    def trackable(self) -> tf.train.Checkpoint:
        """The whole state as one checkpoint object."""
        return tf.train.Checkpoint(
            model=self.model, step=self.step, iterator=self.iterator, **self.optimizers
        )


class Checkpoints:
    """The checkpoints folder of one stage."""

    def __init__(self, directory: Path, fingerprint: dict[str, Any], every_seconds: float):
        """
        Args:
            directory: folder of the checkpoints, made by the first `save`.
            fingerprint: the configuration keys and values that the stage's result depends on.
            every_seconds: seconds between two checkpoints.

        Raises:
            UserError: the folder belongs to another configuration; the message names the keys that differ.
        """
        self.directory = Path(directory)
        self.every_seconds = every_seconds
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._saved_at = time.monotonic()
        self._refuse_another_configuration()

    @property
    def _fingerprint_file(self) -> Path:
        return self.directory / "config.json"

    def _refuse_another_configuration(self) -> None:
        if not self._fingerprint_file.is_file():
            return
        stored = json.loads(self._fingerprint_file.read_text())
        keys = sorted({**stored, **self._fingerprint})
        different = [key for key in keys if stored.get(key) != self._fingerprint.get(key)]
        if different:
            changes = "; ".join(
                f"`{key}` was {stored.get(key)}, is {self._fingerprint.get(key)}" for key in different
            )
            raise UserError(
                f"{self.directory.parent}: begun with another configuration ({changes}); "
                "use another --workdir, or remove that folder."
            )

    def restore(self, state: TrainState) -> int:
        """Restores `state` from the newest checkpoint, if there is one; returns its step.

        Raises:
            UserError: the checkpoint is damaged, or a file of it is missing.
        """
        newest = tf.train.get_checkpoint_state(str(self.directory))
        if newest:
            try:
                state.trackable().restore(newest.model_checkpoint_path).assert_existing_objects_matched()
            except (tf.errors.OpError, AssertionError):
                raise UserError(
                    f"{newest.model_checkpoint_path}: damaged checkpoint; remove {self.directory.parent} "
                    "to train that stage again."
                ) from None
        return int(state.step.numpy())

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint; the previous one is kept."""
        if not self._fingerprint_file.is_file():
            write_json(self._fingerprint_file, self._fingerprint)
        manager = tf.train.CheckpointManager(state.trackable(), str(self.directory), max_to_keep=2)
        manager.save(checkpoint_number=int(state.step.numpy()))
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether `every_seconds` have passed since the last checkpoint."""
        return time.monotonic() - self._saved_at >= self.every_seconds
