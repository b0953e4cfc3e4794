"""The command line: `python train.py --mode ...`, also installed as `tfmetareg`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from tfmetareg.command_line import Command, parse_command
from tfmetareg.config import MODES
from tfmetareg.errors import UserError

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_ROOMS = {
    mode: "tfmetareg.experiments" if mode in ("reproduce", "study") else "tfmetareg.modes" for mode in MODES
}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one mode.

    Returns:
        0; 2 for a user's mistake (one line, no traceback), 1 for a failure of
        ours, 130 after Ctrl-C.
    """
    try:
        command = parse_command(sys.argv[1:] if arguments is None else arguments, _CONFIGS)
        _run(command)
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


def _show_warning(message: Warning, category: type, *where: Any) -> None:
    """One line for a warning of ours; those of the libraries are for their developers."""
    if category is UserWarning:
        print(f"warning: {message}", file=sys.stderr)


def _run(command: Command) -> None:
    # TensorFlow's own notices (missing CUDA, fusion passes that gave up) would bury what matters here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    mode = importlib.import_module(f"{_ROOMS[command.mode]}.{command.mode}")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    warnings.showwarning = _show_warning
    mode.run(command.config, command.workdir)
