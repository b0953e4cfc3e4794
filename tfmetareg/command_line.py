"""The command line: parses the options, checks rules that span several, explains mistakes in one line."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import yaml
from jsonargparse import ArgumentError, ArgumentParser

import tfmetareg
from tfmetareg.config import MODES, RESERVED_NAMES, Config
from tfmetareg.errors import UserError


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, read and checked."""

    mode: str
    workdir: Path
    config: Config


USAGE = (
    "tfmetareg --mode MODE [--config NAME] [--workdir DIR] [--section.key=value]...\n"
    "       tfmetareg register MOVING FIXED [--register.key=value]..."
)


def build_parser(mode: str = "") -> ArgumentParser:
    """The parser of the command line.

    Args:
        mode: leaves out the sections that this mode does not read; empty for all.
    """
    parser = ArgumentParser(
        prog="tfmetareg",
        usage=USAGE,
        exit_on_error=False,
        allow_abbrev=False,
        description="Meta-learned medical image registration: pretrain, Reptile, fine-tune, evaluate.",
    )
    parser.add_argument("--mode", type=Literal[tuple(MODES)], required=True, help="What to do.")
    parser.add_argument("--version", action="version", version=f"tfmetareg {tfmetareg.__version__}")
    parser.add_argument(
        "--config",
        action="config",
        help=f"YAML file of options, or the name of a preset: {', '.join(preset_names())}.",
    )
    parser.add_argument("--workdir", type=Optional[str], help="Where results go; runs/<mode> without it.")
    of_modes = {section for each in MODES.values() for section in each.sections}
    skipped = of_modes.difference(MODES[mode].sections) if mode else set()
    parser.add_class_arguments(Config, as_group=True, skip=skipped)
    return parser


def parse_command(arguments: Sequence[str]) -> Command:
    """Reads the command line.

    Args:
        arguments: without the program's name.

    Raises:
        UserError: an unknown key, a wrong type, a value out of range, a missing
            or damaged file; one line that names the key, the rule and the value.

    >>> parse_command(["--mode", "pretrain", "--pretrain.steps=7"]).config.pretrain.steps
    7
    """
    parser = build_parser()
    try:
        values = parser.parse_args(_with_config_paths(_files_first(expand_short_form(arguments))))
    except ArgumentError as error:
        raise UserError(_explain(str(error))) from None
    config = _instantiated(parser, values)
    return Command(values.mode, Path(values.workdir or f"runs/{values.mode}"), config)


def preset_names() -> list[str]:
    """Names of the configurations that come with the package.

    >>> "reproduce_smoke" in preset_names()
    True
    """
    return sorted(path.stem for path in _presets().glob("*.yaml"))


def _presets() -> Path:
    """Folder of the presets: within the installed package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("tfmetareg")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def expand_short_form(arguments: Sequence[str]) -> list[str]:
    """`register MOVING FIXED [options]` as the options that it stands for; other arguments as they are.

    It takes the weights that come with the package, aligns first, and writes beside the moving image.

    >>> expand_short_form(["register", "eye/a.png", "eye/b.png"])[-2:]
    ['--register.moving=eye/a.png', '--register.fixed=eye/b.png']

    Args:
        arguments: without the program's name.

    Raises:
        UserError: `register` without two images.
    """
    if not arguments or arguments[0] != "register":
        return list(arguments)
    images = list(arguments[1:3])
    if len(images) < 2 or any(image.startswith("-") for image in images):
        raise UserError("`register` needs two images: `tfmetareg register MOVING FIXED [options]`.")
    moving, fixed = images
    return [
        f"--register.output={Path(moving).parent}",
        "--register.weights=start",
        "--register.align=affine",
        *arguments[3:],
        "--mode=register",
        f"--register.moving={moving}",
        f"--register.fixed={fixed}",
    ]


def _files_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with each `--config NAME` ahead of all others: what comes later counts.

    >>> _files_first(["--seed=1", "--config", "a.yaml", "--config=b.yaml"])
    ['--config', 'a.yaml', '--config=b.yaml', '--seed=1']
    """
    files = [place for place, argument in enumerate(arguments) if argument.partition("=")[0] == "--config"]
    of_files = {place + more for place in files for more in range(1 if "=" in arguments[place] else 2)}
    ordered = sorted(range(len(arguments)), key=lambda place: place not in of_files)
    return [arguments[place] for place in ordered]


def config_path(name: str) -> str:
    """Path of a configuration file.

    Args:
        name: path of a file; or a preset's name, with or without `.yaml`.

    Raises:
        UserError: neither a file nor a preset, or a file that holds no configuration.
    """
    path = Path(name)
    preset = _presets() / f"{path.name.removesuffix('.yaml')}.yaml"
    if not path.is_file() and path.name == name and preset.is_file():
        path = preset
    elif not path.exists() and path.suffix in ("", ".yaml") and path.stem in MODES:
        raise UserError(
            f"`config` ({name}) is not needed any more: it held the defaults of `--mode {path.stem}`. Leave "
            "`--config` out; `--config reference` is the list of all keys and defaults."
        )
    elif not path.exists():
        raise UserError(
            f"`config` ({name}) must be a file that can be read: no such file. "
            f"Presets by name: {', '.join(preset_names())}."
        )
    _file_content(path)
    return str(path)


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with some keys changed.

    Args:
        config: the configuration.
        changes: new values by `section.key`.

    Raises:
        UserError: as `parse_command`.
    """
    values = {**config.to_dict(), "mode": next(iter(MODES))}
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
        raise UserError(_explain(str(error))) from None


def _instantiated(parser: ArgumentParser, values: Any) -> Config:
    """The configuration out of what the parser read."""
    # jsonargparse names the call `instantiate_classes` up to 4.48, where `instantiate` is missing.
    values = getattr(parser, "instantiate", parser.instantiate_classes)(values)
    return _checked(Config(**{field.name: values[field.name] for field in dataclasses.fields(Config)}))


def _with_config_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments with the file's path, or its content, in place of each `--config NAME`."""
    resolved: list[str] = []
    for argument in arguments:
        option, equals, name = argument.partition("=")
        if option == "--config" and name:
            argument = option + equals + _path_or_content(config_path(name))
        elif resolved[-1:] == ["--config"] and not argument.startswith("--"):
            argument = _path_or_content(config_path(argument))
        resolved.append(argument)
    return resolved


def _path_or_content(path: str) -> str:
    """The path; in place of a file of version 0.1.0, its content as JSON in today's keys."""
    content = _file_content(Path(path))
    data = content.get("data")
    if not isinstance(data, dict) or not any(f"data.{key}" in _REPLACED for key in data):
        return path
    size, align = data.pop("embedded_size", 128), data.pop("embedded_align", "none")
    if data.pop("embedded_share", 1) != 1:
        raise UserError(f"{path}: {_unknown('data.embedded_share')}")
    options = [f"--image-size {size} {size}"] * (size != 128) + [f"--align {align}"] * (align != "none")
    data.setdefault("embedded", " ".join(options))
    return json.dumps(content)


def _file_content(path: Path) -> dict[str, Any]:
    """What a configuration file holds; a mistake names the file, which jsonargparse leaves out."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"`config` ({path}) must be a file that can be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections with their keys, got {content!r:.40}.")
    return content


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
    if config.finetune.name in RESERVED_NAMES:
        raise UserError(
            f"`finetune.name` must not be one of {', '.join(RESERVED_NAMES)}: they have a meaning already."
        )
    return config


_REWORDED = (
    (r'^Parser key "([\w.]+)":', r"`\1`:"),
    (
        r"Does not validate against any of the Union subtypes .*Given value: (.*)$",
        r"must be as `--help_all` says, got \1.",
    ),
    (r"Not of type \w+: (.+) does not conform to restriction (.+)$", r"must be \2 (v: the value), got \1."),
    (r"Not of type (\w+): .*(?:: | not )'(.*)'$", r"must be of type \1, got \2."),
    (r"Expected a typing\.Literal\[(.+)\]\. Got value: (.*)$", r"must be one of \1, got \2."),
    (r"Expected a <class '(\w+)'>\. Got value: (.*)$", r"must be of type \1, got \2."),
)


def _explain(message: str) -> str:
    """One line out of jsonargparse's message; names the nearest known key where one is unknown."""
    line = " ".join(message.split())
    for pattern, plain in _REWORDED:
        line = re.sub(pattern, plain, line)
    if group := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", line):
        return _unknown(".".join(group.groups()))
    if option := re.search(r"(?:Option '|unrecognized arguments: --)([\w.]+)", line):
        return _unknown(option[1])
    return line


# What to give in place of a key of version 0.1.0.
_REPLACED = {
    "data.embedded_size": '`--data.embedded "--image-size 96 96"`',
    "data.embedded_align": '`--data.embedded "--align affine"`',
    "data.embedded_share": '`--data.embedded "--source-pairs 20 --target-finetune 30"`',
}


def _unknown(unknown: str) -> str:
    """The line on a key that does not exist."""
    if unknown in _REPLACED:
        return (
            f"`{unknown}` is now one of the options in `data.embedded`, those of "
            f"`tfrecords_builder build --source embedded`: {_REPLACED[unknown]} for instance."
        )
    known = ["mode", "config", "workdir", *flat_keys()]
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    hint = f"; did you mean `{near[0]}`?" if near else "; `--help_all` lists them."
    return f"`{unknown}` is not an option{hint}"


def flat_keys() -> list[str]:
    """Every key as the command line spells it."""
    sections = [field.name for field in dataclasses.fields(Config)]
    whole = dataclasses.asdict(Config())
    return list(Config().flat("", *[name for name in sections if isinstance(whole[name], dict)]))
