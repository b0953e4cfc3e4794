"""The command line: parses the options, checks rules that span several, explains mistakes in one line."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from tfmetareg.config import _RESERVED, MODES, Config
from tfmetareg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Command:
    """What the user asked for on the command line."""

    mode: str
    workdir: Path
    config: Config


def build_parser() -> ArgumentParser:
    """The parser of `train.py`."""
    parser = ArgumentParser(
        prog="train.py",
        exit_on_error=False,
        allow_abbrev=False,
        description="Meta-learned medical image registration: pretrain, Reptile, fine-tune, evaluate.",
    )
    parser.add_argument("--mode", type=Literal[MODES], required=True, help="What to do.")
    parser.add_argument(
        "--config", action="config", help="YAML file of options; configs/<mode>.yaml without it."
    )
    parser.add_argument("--workdir", type=Optional[str], help="Where results go; runs/<mode> without it.")
    parser.add_class_arguments(Config, as_group=True)
    return parser


def parse_command(arguments: Sequence[str], configs: Path) -> Command:
    """Reads the command line.

    Args:
        arguments: without the program's name.
        configs: folder whose `<mode>.yaml` is read where no `--config` is given.

    Raises:
        UserError: an unknown key, a wrong type, a value out of range, a missing
            or damaged file; one line that names the key, the rule and the value.
    """
    parser = build_parser()
    arguments = list(arguments)
    mode, files = _ahead(arguments)
    default = configs / f"{mode}.yaml"
    if default.is_file() and not files:
        arguments = ["--config", str(default), *arguments]
    for path in filter(None, files):
        _check_file(path)
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        raise UserError(_explain(str(error), parser)) from None
    config = _instantiated(parser, values)
    return Command(values.mode, Path(values.workdir or f"runs/{values.mode}"), config)


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with some keys changed.

    Args:
        config: the configuration.
        changes: new values by `section.key`.

    Raises:
        UserError: as `parse_command`.
    """
    values = {**config.to_dict(), "mode": MODES[0]}
    for key, value in changes.items():
        section, _, name = str(key).rpartition(".")
        if key not in flat_keys():
            raise UserError(_unknown(str(key)))
        if value is None:
            raise UserError(f"`{key}` must have a value, got none.")
        (values[section] if section else values)[name] = value
    parser = build_parser()
    try:
        return _instantiated(parser, parser.parse_object(values))
    except ArgumentError as error:
        raise UserError(_explain(str(error), parser)) from None


def _instantiated(parser: ArgumentParser, values: Any) -> Config:
    """The configuration out of what the parser read."""
    # jsonargparse names the call `instantiate_classes` up to 4.48, where `instantiate` is missing.
    values = getattr(parser, "instantiate", parser.instantiate_classes)(values)
    return _checked(Config(**{field.name: values[field.name] for field in dataclasses.fields(Config)}))


def _ahead(arguments: list[str]) -> tuple[Optional[str], list[Optional[str]]]:
    """The mode and the files, read ahead of everything else: the mode decides on the default file."""
    ahead = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ahead.add_argument("--mode", nargs="?")
    ahead.add_argument("--config", nargs="?", action="append", default=[])
    found = ahead.parse_known_args(arguments)[0]
    return found.mode, found.config


def _check_file(path: str) -> None:
    """Refuses a file that holds no configuration by its name, which jsonargparse leaves out."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"`config` ({path}) must be a file that can be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections with their keys, got {content!r:.40}.")


def _checked(config: Config) -> Config:
    """Rules that span more than one value's type."""
    if config.loss.window % 2 == 0:
        raise UserError(f"`loss.window` ({config.loss.window}) must be odd: the window has a centre pixel.")
    if config.reptile.side_by_side and config.reptile.reset_inner != "task":
        raise UserError(
            "`reptile.side_by_side` (true) must be false, unless `reptile.reset_inner` is task: "
            "tasks that are adapted at once cannot hand their slots on."
        )
    features = config.model.features
    if features and (len(features) != 2 or not features[0] or len(features[1]) < len(features[0])):
        raise UserError(
            f"`model.features` ({features}) must be [encoder, decoder], the decoder at least as long."
        )
    for key in ("features", "precision"):
        if key in config.model.options:
            raise UserError(f"`model.options` must not hold {key}; give `model.{key}`.")
    if config.reptile.inner_annealing != "none" and config.reptile.reset_inner == "task":
        raise UserError(
            "`reptile.inner_annealing` (linear) must be none, unless `reptile.reset_inner` is never: "
            "an optimizer that is reset begins its schedule anew."
        )
    for key, seeds in (("reproduce.seeds", config.reproduce.seeds), ("study.seeds", config.study.seeds)):
        if isinstance(seeds, list) and len(set(seeds)) != max(len(seeds), 1):
            raise UserError(f"`{key}` ({seeds}) must be a number or a list of different seeds.")
    for name in config.study.schedules:
        if not re.fullmatch(r"\w[\w.-]*", str(name)) or re.match(r"(start|control)-", str(name)):
            raise UserError(
                "`study.schedules` must have plain names of letters, digits, '_', '-' and '.' that do not "
                f"begin with `start-` or `control-`, got {name!r}."
            )
    for key in ("finetune.name", "evaluate.method", "export.name"):
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if not re.fullmatch(r"[\w.-]*", value) or value.startswith(".") or (name == "name" and not value):
            raise UserError(f"`{key}` ({value!r}) must be a plain name of letters, digits, '_', '-' and '.'.")
    if config.finetune.name in _RESERVED:
        raise UserError(
            f"`finetune.name` must not be one of {', '.join(_RESERVED)}: they have a meaning already."
        )
    return config


_REWORDED = (
    (r'^Parser key "([\w.]+)":', r"`\1`:"),
    (
        r"Does not validate against any of the Union subtypes .*Given value: (.*)$",
        r"must be as `--help` says, got \1.",
    ),
    (r"Not of type \w+: (.+) does not conform to restriction (.+)$", r"must be \2 (v: the value), got \1."),
    (r"Not of type (\w+): .*(?:: | not )'(.*)'$", r"must be of type \1, got \2."),
    (r"Expected a typing\.Literal\[(.+)\]\. Got value: (.*)$", r"must be one of \1, got \2."),
    (r"Expected a <class '(\w+)'>\. Got value: (.*)$", r"must be of type \1, got \2."),
)


def _explain(message: str, parser: ArgumentParser) -> str:
    """One line out of jsonargparse's message; names the nearest known key where one is unknown."""
    line = " ".join(message.split())
    for pattern, plain in _REWORDED:
        line = re.sub(pattern, plain, line)
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line)
    option = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", line)
    if not group and not option:
        return line
    return _unknown(".".join(group.groups()) if group else next(filter(None, option.groups())))


def _unknown(unknown: str) -> str:
    """The line on a key that does not exist."""
    known = ["mode", "config", "workdir", *flat_keys()]
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    hint = f"; did you mean `{near[0]}`?" if near else "; `--help` lists them."
    return f"`{unknown}` is not an option{hint}"


def flat_keys() -> list[str]:
    """Every key as the command line spells it."""
    sections = [field.name for field in dataclasses.fields(Config)]
    whole = dataclasses.asdict(Config())
    return list(Config().flat("", *[name for name in sections if isinstance(whole[name], dict)]))
