"""The command line: `python train.py --mode ...`, also installed as `tfmetareg`."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Optional, Union

from tfmetareg.command_line import Command, parse_command
from tfmetareg.errors import UserError

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


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one mode.

    Args:
        arguments: the command line without the program's name; by default that of the process.

    Returns:
        0; 2 for a user's mistake (one line, no traceback), 1 for a failure of
        ours, 130 after Ctrl-C.
    """
    try:
        _run(parse_command(sys.argv[1:] if arguments is None else arguments))
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


def _show_warning(message: Union[Warning, str], category: type[Warning], *where: Any, **more: Any) -> None:
    """One line for a warning of ours; those of the libraries are for their developers."""
    if category is UserWarning:
        print(f"warning: {message}", file=sys.stderr)


def _run(command: Command) -> None:
    module, _, function = MODE_FUNCTIONS[command.mode].partition(":")
    run = getattr(importlib.import_module(module), function)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    warnings.showwarning = _show_warning
    run(command.config, command.workdir)
