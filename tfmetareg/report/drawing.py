"""Draws the figures of registered pairs and their page, in a second process where one was begun.

A command that registers one pair is done once its figures are: a second process imports matplotlib while the
first imports TensorFlow, and draws while the first writes the data.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from tfmetareg.files import write_text
from tfmetareg.processes import available_cpus, start_worker

if TYPE_CHECKING:
    from tfmetareg.report.registration_panels import RegistrationPanels

_process: Optional[ProcessPoolExecutor] = None


@contextlib.contextmanager
def second_process() -> Iterator[None]:
    """Context in which `drawn_beside` draws in a second process, if there is a processor for it."""
    global _process
    if available_cpus() == 1:
        yield
        return
    _process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start_worker)
    _process.submit(_prepare)
    try:
        yield
    finally:
        _process.shutdown(cancel_futures=True)
        _process = None


@contextlib.contextmanager
def drawn_beside(
    pair: RegistrationPanels, names: tuple[str, str], summary: dict[str, Any], folder: Path
) -> Iterator[None]:
    """Draws a pair while the block runs, or after it where there is no second process; done at the end.

    Args:
        pair: what to draw.
        names: of the moving and of the fixed image.
        summary: what the page tells, see `registration_page.render_registration`.
        folder: where the figures and the page are written.

    Raises:
        OSError: the folder cannot be written.
    """
    draw = functools.partial(_draw, pair, names, summary, folder)
    try:
        drawing = _process and _process.submit(draw)
    except BrokenProcessPool:
        drawing = None
    try:
        yield
    finally:
        if drawing:
            wait([drawing])
    try:
        drawing.result() if drawing else draw()
    except BrokenProcessPool:  # Killed, for want of memory perhaps.
        draw()


def _prepare() -> None:
    """Imports what drawing needs, which takes most of a second."""
    from tfmetareg.report import registration, registration_page  # noqa: F401


def _draw(pair: RegistrationPanels, names: tuple[str, str], summary: dict[str, Any], folder: Path) -> None:
    from tfmetareg.report.figures import save_figure
    from tfmetareg.report.registration import draw_registered
    from tfmetareg.report.registration_page import PAGE, render_registration

    pair = pair.decided()
    files = {}
    for name, figure in draw_registered(pair).items():
        files[name] = save_figure(figure, folder / f"{name}.png").read_bytes()
    write_text(folder / PAGE, render_registration(pair, names, summary, files))
