"""What `--help` prints: one screen, the options of one mode, or all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from tfmetareg.command_line import USAGE, build_parser, preset_names
from tfmetareg.config import MODES

MOST_USED = (
    ("--workdir DIR", "where results go (runs/MODE)"),
    ("--config NAME", "a preset, or a YAML file of options"),
    ("--data.root DIR", "records built by tfrecords_builder (the embedded tasks)"),
    ("--data.target TASK", "the target, where the records hold several"),
    ("--finetune.init X", "start weights: reptile, pretrain, scratch, start, an .h5 file"),
    ("--finetune.epochs N", "passes over the fine-tuning pairs"),
    ("--evaluate.weights X", "a stage, an .h5 file, start; none, affine, elastix, syn"),
    ("--evaluate.split X", "train, finetune or test"),
    ("--register.moving X", "image or folder to register, onto --register.fixed"),
    ("--register.pairs X", "in place of both: a pairs.csv"),
    ("--register.weights X", "a stage, an .h5 file, start"),
    ("--register.align X", "none, rigid, affine, or that of the training records"),
    ("--reproduce.seeds N", "number of seeds, or a list of them"),
    ("--seed N", "seed of the initial weights and of the data's order"),
)
_MORE = (
    ("--mode MODE --help", "every option of a mode, with its range and default"),
    ("--help_all", "every option of all modes"),
    ("--print_config", "the configuration that the other options give"),
    ("--version", "the version"),
)


def help_text(arguments: Sequence[str]) -> str:
    """The help that a command line asks for; empty where it asks for none.

    `--help` is one screen, with `--mode MODE` all options of that mode; `--help_all` all there are.

    >>> "--finetune.annealing" in help_text(["--help"])
    False
    >>> "--finetune.annealing" in help_text(["--mode", "finetune", "--help"])
    True

    Args:
        arguments: without the program's name.
    """
    if "--help_all" in arguments:
        return build_parser().format_help()
    if not {"--help", "-h"}.intersection(arguments):
        return ""
    mode = _named_mode(arguments)
    return build_parser(mode).format_help() if mode else _one_screen()


def _named_mode(arguments: Sequence[str]) -> str:
    """The mode that a command line names; empty where it names none that there is."""
    if arguments[0] == "register":
        return "register"
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("--mode=")]
    named += [after for argument, after in zip(arguments, arguments[1:]) if argument == "--mode"]
    return next((name for name in named if name in MODES), "")


def _one_screen() -> str:
    blocks = {
        "modes": [(name, mode.summary) for name, mode in MODES.items()],
        "most used options": MOST_USED,
        "\n  ".join(textwrap.wrap(f"presets: {', '.join(preset_names())}")): (),
        "more": _MORE,
    }
    lines = [f"usage: {USAGE}"]
    for title, rows in blocks.items():
        lines += ["", title + (":" if rows else ""), *_columns(rows)]
    return "\n".join(lines) + "\n"


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in rows:
        yield f"  {name:<22}{text}"
