"""Command line: `python -m tfrecords_builder {build,validate,inspect}`."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

import tfmetareg
from tfmetareg.environment import check_numpy
from tfmetareg.errors import UserError
from tfmetareg.imaging.names import name_on_disk
from tfmetareg.processes import available_cpus
from tfrecords_builder.options import add_preprocessing_options, requested_preprocessing
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.base import Request, number
from tfrecords_builder.splits import LEARNING_SPLIT, SplitFile, read_splits
from tfrecords_builder.workers import Engine

_COMMANDS = {
    "build": "read a source and add its tasks to the records in --output",
    "validate": "read everything, write nothing, name every problem",
    "inspect": "verify checksums, print counts, draw a contact sheet",
}


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = arguments[:1]
    try:
        options = parse_arguments(arguments)
        check_numpy()
        {"build": _build, "validate": _validate, "inspect": _inspect}[options.command](options)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        further = " Run the same command again to go on." if command == ["build"] else ""
        print(f"error: interrupted; nothing was published.{further}", file=sys.stderr)
        return 130
    except Exception:  # noqa: BLE001 - a bug: show it, and fail with status 1
        traceback.print_exc()
        return 1
    return 0


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses a command line. Of the sources' own options, only those of the chosen source are known.

    Arguments after `--` are for Beam and are kept as `pipeline_options`.
    """
    arguments, pipeline_options = _split_at_dashes(arguments)
    source = _named_source(arguments)
    parser = _Parser(prog="python -m tfrecords_builder", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tfrecords_builder {tfmetareg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{build,validate,inspect}")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == "inspect":
            _add_inspect_options(command)
            continue
        _add_source_options(command, source)
        if name == "build":
            _add_output_options(command)
    options = parser.parse_args(arguments)
    options.pipeline_options = pipeline_options
    if pipeline_options and getattr(options, "engine", None) != "beam":
        parser.error("options after `--` are for `--engine beam`")
    return options


def _split_at_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before and after the first `--`."""
    arguments = list(arguments)
    dashes = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:dashes], arguments[dashes + 1 :]


def _named_source(arguments: Sequence[str]) -> Optional[str]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--source")
    try:
        name = finder.parse_known_args(arguments)[0].source
    except argparse.ArgumentError:
        return None
    return name if name in SOURCES else None


def _add_source_options(parser: argparse.ArgumentParser, source: Optional[str]) -> None:
    kinds = "; ".join(f"{name}: {kind.summary}" for name, kind in SOURCES.items())
    parser.add_argument("--source", required=True, choices=[*SOURCES], help=f"kind of input. {kinds}")
    parser.add_argument(
        "--input",
        type=_path_on_disk,
        metavar="PATH",
        help="file or folder to read (embedded, synthetic: none)",
    )
    parser.add_argument(
        "--task", metavar="NAME", help="name of the task (default: the source's own, or the folder's)"
    )
    parser.add_argument(
        "--role",
        choices=[*LEARNING_SPLIT],
        help="source tasks are for pretraining and meta-learning, targets for fine-tuning (default: source)",
    )
    parser.add_argument(
        "--image-size",
        nargs=2,
        type=number(int, 16, 8192),
        metavar=("H", "W"),
        help="size of the records' images (default: 400 400; embedded, synthetic: 128 128)",
    )
    parser.add_argument(
        "--seed", type=number(int, 0, 2**31 - 1), default=0, help="seed of everything random (default: 0)"
    )
    parser.add_argument(
        "--test-fraction",
        type=number(float, 0, 0.9),
        default=0.2,
        metavar="X",
        help="share of the subjects to hold out where the source prescribes no split (default: 0.2)",
    )
    parser.add_argument(
        "--splits",
        type=_path_on_disk,
        metavar="FILE",
        help="CSV file with the split of each pair: columns `subject,split` or `key,split`",
    )
    parser.add_argument(
        "--workers",
        type=number(int, 1, 1024),
        default=available_cpus(),
        metavar="N",
        help="largest number of processes; does not affect the records (default: number of processors)",
    )
    add_preprocessing_options(parser.add_argument_group("preprocessing"))
    if source is not None and SOURCES[source].options:
        group = parser.add_argument_group(f"options of --source {source}")
        for option in SOURCES[source].options:
            group.add_argument(option.flag, **option.settings)


def _path_on_disk(text: str) -> Path:
    return Path(name_on_disk(Path(), text))


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="records folder to add tasks to"
    )
    parser.add_argument(
        "--shards",
        type=number(int, 1, 99999),
        default=4,
        metavar="N",
        help="largest number of files per split (default: 4)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace tasks that exist already")
    parser.add_argument(
        "--engine",
        choices=["local", "beam"],
        default="local",
        help="run the work in processes on this machine or with Apache Beam, whose options follow `--`: "
        "`-- --runner=FlinkRunner ...` (default: local)",
    )


def _add_inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", type=Path, metavar="DIR", help="records folder")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw a contact sheet (.png, .pdf or .svg)"
    )


def _request(options: argparse.Namespace) -> Request:
    source = SOURCES[options.source]
    if source.needs_input and options.input is None:
        raise UserError(f"`--input` is missing; `--source {options.source}` reads a {source.summary}.")
    given = [f"`--{name}`" for name in ("input", "task", "role") if getattr(options, name) is not None]
    if given and not source.needs_input:
        print(
            f"note: `--source {options.source}` names its own tasks; {', '.join(given)} not used.",
            file=sys.stderr,
        )
    return Request(
        input=options.input,
        task=options.task,
        role=options.role or "source",
        image_size=tuple(options.image_size or source.image_size),
        seed=options.seed,
        options={option.name: getattr(options, option.name) for option in source.options},
    )


def _build(options: argparse.Namespace) -> None:
    from tfrecords_builder.build import build

    request = _request(options)
    splits = _splits(options, request)
    build(
        SOURCES[options.source].tasks(request),
        options.output,
        preprocessing=requested_preprocessing(options, request),
        shards=options.shards,
        seed=options.seed,
        test_fraction=options.test_fraction,
        splits=splits,
        overwrite=options.overwrite,
        problems=request.problems,
        inputs=_inputs(options),
        origin=options.input if options.source == "pairs" else None,  # Its keys are the names of the files.
        workers=options.workers,
        engine=_engine(options),
    )


def _splits(options: argparse.Namespace, request: Request) -> Optional[SplitFile]:
    """The content of `--splits`; its mistakes are reported together with those of the input."""
    with request.problems.collected():
        return options.splits and read_splits(options.splits)
    return None


def _inputs(options: argparse.Namespace) -> list[Path]:
    """All files and folders that the options name as input."""
    return [
        value for name, value in sorted(vars(options).items()) if isinstance(value, Path) and name != "output"
    ]


def _engine(options: argparse.Namespace) -> Optional[Engine]:
    if options.engine == "local":
        return None
    from tfrecords_builder.beam import beam_engine

    return beam_engine(options.workers, options.pipeline_options)


def _validate(options: argparse.Namespace) -> None:
    from tfrecords_builder.build import validate

    request = _request(options)
    splits = _splits(options, request)
    validate(
        SOURCES[options.source].tasks(request),
        preprocessing=requested_preprocessing(options, request),
        seed=options.seed,
        test_fraction=options.test_fraction,
        splits=splits,
        problems=request.problems,
        workers=options.workers,
    )


def _inspect(options: argparse.Namespace) -> None:
    from tfrecords_builder.contact_sheet import MOST_SPLITS, PAIRS_PER_SPLIT, draw_contact_sheet
    from tfrecords_builder.inspection import inspect_records, notes, table

    manifest, summaries = inspect_records(options.records, examples=PAIRS_PER_SPLIT if options.figure else 0)
    height, width = manifest.image_shape
    print(f"{options.records}: images of {height} x {width}, every shard verified.")
    print(table(summaries))
    for line in notes(summaries, manifest):
        print(line)
    if options.figure:
        draw_contact_sheet(summaries, options.figure)
        some = f", {MOST_SPLITS} splits at most" if len(summaries) > MOST_SPLITS else ""
        print(f"contact sheet: {options.figure}{some}")


if __name__ == "__main__":
    # No TensorFlow log lines; no GPU memory, which another process may need.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.exit(main())
