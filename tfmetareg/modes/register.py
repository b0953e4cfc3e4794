"""Registers images of any size and format with a trained network, adapted to them if asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfmetareg.cache import differing_names, digest
from tfmetareg.config import Config, ModelOptions, RegisterOptions
from tfmetareg.errors import UserError
from tfmetareg.files import sha256
from tfmetareg.imaging.choices import COLOURS
from tfmetareg.imaging.preprocessing_file import find_preprocessing
from tfmetareg.modes.configured import build_configured, configure_tensorflow, loss_function, resolve_options
from tfmetareg.modes.workdir import find_weights
from tfmetareg.registration.inputs import PairFiles, find_pairs, read_pairs
from tfmetareg.registration.output import SUMMARY, DiskFullError, save_registration
from tfmetareg.registration.pair import PairRegistrar
from tfmetareg.registration.similarity import similarities
from tfmetareg.registration.weights import SHIPPED, TrainedNetwork
from tfmetareg.types import nothing_found_line

# Options that a summary tells elsewhere, under other names.
_INPUTS = ("moving", "fixed", "pairs", "points", "labels", "fixed_labels")
_TOLD_ELSEWHERE = (*_INPUTS, "weights", "output")
_SPACINGS = ("moving_spacing", "fixed_spacing")


def run(config: Config, workdir: Path) -> Path:
    """Registers every pair that `config.register` names; returns the folder of the results.

    A pair that cannot be registered is left out, and the others go on. A pair that was registered
    already, from the same files in the same way, is left as it is.

    Raises:
        UserError: nothing to register, no such weights, an output that cannot be written; or, at the end,
            which pairs were left out and why.
    """
    options = config.register
    pairs = find_pairs(**{name: getattr(options, name) for name in _INPUTS})
    output = Path(options.output) if options.output else Path(workdir) / "register"
    _check_writable(output)
    weights = find_weights(workdir, options.weights)
    options = _with_alignment(options, weights)
    config = dataclasses.replace(config, register=options)
    configure_tensorflow(config)
    model_options = resolve_options(config.model, weights)
    network = TrainedNetwork(build_configured(model_options, (64, 64), weights), find_preprocessing(weights))
    registrar = PairRegistrar(
        network,
        fit=options.fit,
        align=options.align,
        loss_fn=loss_function(config.loss),
        similarities=similarities(options.similarity, like=config.loss.similarity),
        adapt_learning_rate=options.adapt_learning_rate,
    )
    colour = network.preprocessing.colour or COLOURS[0]
    with skipped_pairs(len(pairs), output) as skipped:
        keys = _cache_keys(pairs, config, model_options, network, weights, skipped)
        todo = []
        for files in pairs:
            with skipped.collected(files):
                if files.name in keys and not _is_registered(output / files.name, keys[files.name]):
                    todo.append(files)
        if todo and options.adapt_epochs:
            readable = read_pairs(pairs, colour)
            registrar.adapt_to(
                readable,
                epochs=options.adapt_epochs,
                seed=config.seed,
                log_every=config.log_every,
                skip_unusable=True,  # Registering them says why.
            )
        unaligned, aligned = [], 0
        for files in todo:
            with skipped.collected(files):
                pair = files.read(colour, options.points_in)
                registered = registrar.register(pair, adapt_steps=options.adapt_steps)
                summary = save_registration(
                    registered,
                    output / files.name,
                    formats=options.formats,
                    figures=options.figures,
                    comparison=options.comparison,
                    description=keys[files.name],
                )
                _print_outcome(output / files.name, summary)
                aligned += registered.prepared.align != "none"
                if registered.prepared.align != "none" and not registered.prepared.is_aligned:
                    unaligned.append(files.name)
        if unaligned and len(todo) > 1:
            print(f"note: {nothing_found_line(unaligned, aligned)}.", file=sys.stderr)
    return output


def _with_alignment(options: RegisterOptions, weights: Path) -> RegisterOptions:
    """The options, with an affine alignment where nothing is said and the weights come with the package."""
    if options.align == "records" and weights in SHIPPED.values():
        return dataclasses.replace(options, align="affine")
    return options


class SkippedPairs:
    """Pairs that were left out, and why."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    @contextlib.contextmanager
    def collected(self, files: PairFiles) -> Iterator[None]:
        """Notes a mistake of the user's in the block, and skips the rest of it."""
        try:
            yield
        except DiskFullError:
            raise
        except UserError as error:
            self.lines[files.name] = " ".join(str(error).splitlines())


@contextlib.contextmanager
def skipped_pairs(count: int, output: Path) -> Iterator[SkippedPairs]:
    """Collects the pairs that are left out in the block, and raises one error at its end that tells of all.

    Args:
        count: pairs in all.
        output: where the others are.
    """
    skipped = SkippedPairs()
    yield skipped
    if skipped.lines and count == 1:
        raise UserError(*skipped.lines.values())
    if skipped.lines:
        raise UserError(
            f"{len(skipped.lines)} of {count} pairs were not registered; the others are in {output}.\n"
            + "\n".join(f"{name}: {line}" for name, line in skipped.lines.items())
        )


def _check_writable(output: Path) -> None:
    """Refuses an output that cannot be written before any work is done for it."""
    there = next(folder for folder in (output, *output.absolute().parents) if os.path.lexists(folder))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{output}: cannot be written ({there} is no folder, or one without the permission); "
            "name another `register.output`."
        )


def _cache_keys(
    pairs: list[PairFiles],
    config: Config,
    model_options: ModelOptions,
    network: TrainedNetwork,
    weights: Path,
    skipped: SkippedPairs,
) -> dict[str, dict[str, Any]]:
    """By pair, what decides on its results, as its summary tells it; without pairs that cannot be read."""
    options, preprocessing = config.register, network.preprocessing
    inputs = {}
    for files in pairs:
        with skipped.collected(files):
            spacing = {name: files.row.get(name, "") for name in _SPACINGS}
            inputs[files.name] = {"inputs": files.digests(), "spacing": spacing}
    common: dict[str, Any] = {
        "weights": {"file": str(weights), "sha256": sha256(weights)},
        "options": {
            name: value for name, value in dataclasses.asdict(options).items() if name not in _TOLD_ELSEWHERE
        },
        "preprocessing": {"image_shape": list(preprocessing.image_size), **preprocessing.describe()},
        "network": dataclasses.asdict(model_options),
    }
    if options.adapt_epochs or options.adapt_steps:
        common.update(loss=dataclasses.asdict(config.loss), seed=config.seed)
    if options.adapt_epochs:
        common["adapted_to"] = digest(inputs, sort_keys=False)
    return {name: {**files, **common} for name, files in inputs.items()}


def _is_registered(folder: Path, key: dict[str, Any]) -> bool:
    """Whether a pair was registered already, from the same files in the same way.

    Raises:
        UserError: something else is there.
    """
    if not os.path.lexists(folder):
        return False
    try:
        kept = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        differing = differing_names(kept, key)
    except (OSError, ValueError):
        differing = ["it has no readable summary"]
    if differing:
        raise UserError(
            f"{folder}: is there already, made otherwise ({', '.join(differing)}); move it away, or "
            "name another `register.output`."
        )
    print(f"{folder.name}: registered already, {folder}", file=sys.stderr)
    return True


def _print_outcome(folder: Path, summary: dict[str, Any]) -> None:
    """How a pair went, what to be wary of, and where the results are."""
    for warning in summary["warnings"]:
        print(f"warning: {folder.name}: {warning}", file=sys.stderr)
    ncc, labels, adapted = (summary["similarity"]["ncc"], summary["labels"], summary["adaptation_loss"])
    by = f"adapted by {adapted['similarity']}, " if adapted else ""
    dice = ""
    if labels and labels["dice"] is not None:
        dice = f"Dice {labels['dice_before']:.3f} -> {labels['dice']:.3f}, "
    print(
        f"{folder.name}: NCC {ncc['before']:.3f} -> {ncc['after']:.3f}, {dice}{by}"
        f"folding {summary['folding_percent']:.2f} %, {sum(summary['seconds'].values()):.1f} s, {folder}",
        file=sys.stderr,
    )
