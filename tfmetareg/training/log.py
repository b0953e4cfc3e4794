"""Output of a running training stage: metrics.jsonl, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Optional

import tensorflow as tf
from tqdm import tqdm

from tfmetareg.files import write_text


class MetricsLog:
    """Writes the same scalars to `metrics.jsonl` and to TensorBoard."""

    def __init__(self, directory: Path, *, every: int, start: int, steps_per_epoch: Optional[float] = None):
        """
        Args:
            directory: folder of the stage.
            every: number of steps between two logged lines.
            start: step at which the stage resumes; later lines of an interrupted run are dropped.
            steps_per_epoch: if given, every line also holds the epoch.
        """
        self._path = Path(directory) / "metrics.jsonl"
        self.start = start
        self._every = every
        self._steps_per_epoch = steps_per_epoch
        if not start:
            shutil.rmtree(Path(directory) / "tensorboard", ignore_errors=True)
        self._board = tf.summary.create_file_writer(str(Path(directory) / "tensorboard"))
        self._last = (start, time.monotonic())
        self._keep_until(start)

    def __call__(self, step: int, metrics: dict[str, tf.Tensor]) -> None:
        """Logs the scalars of a training step, at every `every`-th step."""
        if step % self._every:
            return
        values = {name: float(value) for name, value in metrics.items()}
        steps, seconds = step - self._last[0], time.monotonic() - self._last[1]
        self._last = (step, time.monotonic())
        self.write(step, {**values, "steps_per_second": steps / max(seconds, 1e-9)})

    def write(self, step: int, values: dict[str, Optional[float]]) -> None:
        """Logs values of a step; None is written to the file as null and left out of TensorBoard."""
        line: dict[str, Any] = {"step": step}
        if self._steps_per_epoch:
            line["epoch"] = round(step / self._steps_per_epoch, 6)
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({**line, **values}) + "\n")
        with self._board.as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self._board.flush()

    def image(self, step: int, name: str, panels: list[tf.Tensor]) -> None:
        """Writes images, (height, width, 1) float32 in [0, 1] each, side by side to TensorBoard."""
        with self._board.as_default(step=step):
            tf.summary.image(name, tf.concat(panels, axis=1)[None])
        self._board.flush()

    def _keep_until(self, start: int) -> None:
        """Drops the lines that an interrupted run logged after its last checkpoint: those steps run again.

        TensorBoard shows such steps twice, since its files cannot be cut.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text().splitlines(keepends=True) if self._path.is_file() else []
        write_text(self._path, "".join(line for line in lines if start and _step(line) <= start))


class TrainingProgress:
    """Shows loss terms, steps per second and time left: a bar on a terminal, some ten lines in a log."""

    def __init__(self, name: str, *, total: int, start: int, every: int):
        """
        Args:
            name: name of the stage.
            total: number of steps of the stage.
            start: step at which the stage resumes.
            every: number of steps between two updates of the bar's text.
        """
        on_terminal = sys.stderr.isatty()
        self._every = every if on_terminal else max(every, total // 10)
        self._total = total
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            disable=None if on_terminal else True,
        )
        self._name, self._start, self._began = name, start, time.monotonic()

    def __call__(self, step: int, metrics: dict[str, tf.Tensor]) -> None:
        """Shows the scalars of a training step, if it is due."""
        if not self._bar.disable:
            self._bar.update(1)
        if step % self._every and step != self._total:
            return
        terms = "  ".join(f"{name} {float(value):.4f}" for name, value in metrics.items())
        if not self._bar.disable:
            self._bar.set_postfix_str(terms)
        else:
            speed = (step - self._start) / max(time.monotonic() - self._began, 1e-9)
            left = (self._total - step) / max(speed, 1e-9)
            print(
                f"{self._name}: step {step}/{self._total}  {terms}  {speed:.1f} steps/s  {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Finishes the line of the bar."""
        self._bar.close()


def _step(line: str) -> float:
    """The step of a logged line; infinite for a line that a kill cut short, so that it is dropped."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")
