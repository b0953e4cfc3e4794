"""The command line: `python train.py --mode ...`, also installed as `tfmetareg`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Optional, Union

from tfmetareg.command_help import help_text
from tfmetareg.command_line import Command, parse_command
from tfmetareg.environment import check_numpy
from tfmetareg.errors import UserError
from tfmetareg.loading import uncollected
from tfmetareg.lock import run_in
from tfmetareg.report.drawing import second_process

# The function behind each mode; it takes the configuration and the work directory.
MODE_FUNCTIONS = {
    "pretrain": "tfmetareg.modes.pretrain:run",
    "reptile": "tfmetareg.modes.reptile:run",
    "finetune": "tfmetareg.modes.finetune:run",
    "evaluate": "tfmetareg.modes.evaluate:run",
    "register": "tfmetareg.modes.register:run",
    "export": "tfmetareg.modes.export:run",
    "reproduce": "tfmetareg.experiments.reproduce:run",
    "study": "tfmetareg.experiments.study:run",
}
# They publish folders of their own, so that several processes may work in one work directory.
_SHARING = ("register", "export")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one mode.

    Args:
        arguments: the command line without the program's name; by default that of the process.

    Returns:
        0; 2 for a user's mistake (one line, no traceback), 1 for a failure of
        ours, 130 after Ctrl-C. A SIGTERM ends the program as an exit does.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if asked := help_text(arguments):
            print(asked, end="")
            return 0
        with _tidy_termination():
            _run(parse_command(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command continues from the last checkpoint.", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _tidy_termination() -> Iterator[None]:
    """Lets a batch system's SIGTERM leave the work directory free, for a job that goes on elsewhere."""

    def leave(number: int, _: Any) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Union[Warning, str], category: type[Warning], *where: Any, **more: Any) -> None:
    """One line for a warning of ours; those of the libraries are for their developers."""
    if category is UserWarning:
        print(f"warning: {message}", file=sys.stderr)


def _run(command: Command) -> None:
    check_numpy()
    with contextlib.ExitStack() as stack:
        if command.mode not in _SHARING:
            stack.enter_context(run_in(command.workdir))
        if command.mode == "register" and command.config.register.figures and "tensorflow" not in sys.modules:
            stack.enter_context(second_process())
        module, _, function = MODE_FUNCTIONS[command.mode].partition(":")
        with uncollected():
            run = getattr(importlib.import_module(module), function)
            import tensorflow as tf
        gc.freeze()  # Or the collection at exit takes half a second over what was imported.

        tf.get_logger().setLevel("ERROR")
        warnings.showwarning = _show_warning
        run(command.config, command.workdir)
