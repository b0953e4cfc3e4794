"""Synthetic data: any number of registration tasks, each a random imaging domain, generated from a seed.

Domain randomisation, as in SynthMorph (Hoffmann et al., 2022): a network that has seen enough unlike domains
takes a real one for one more. A task depends only on the seed and its number, a pair in addition on its
split and index, not on how many there are or on the order in which they are made.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tfmetareg.errors import UserError
from tfmetareg.types import ImagePair
from tfrecords_builder.phantoms.domains import draw_pair, landmarks, random_domain
from tfrecords_builder.phantoms.fields import keyed_rng
from tfrecords_builder.sources import base
from tfrecords_builder.sources.base import LazyPairs, Option, Partition, Request, SourceTask, source

# Pairs that one worker makes at a time; the drawing of their domain takes no time to speak of.
_PAIRS_PER_PARTITION = 8


def synthetic_tasks(
    *,
    image_size: tuple[int, int] = (128, 128),
    tasks: int = 200,
    pairs: int = 24,
    test_pairs: int = 2,
    seed: int = 0,
) -> list[SourceTask]:
    """Tasks of random domains; their images are made as the pairs are iterated.

    >>> first, second = synthetic_tasks(image_size=(48, 48), tasks=2, pairs=1, test_pairs=1)
    >>> first.name, [pair.split for pair in second.pairs]
    ('synthetic_000', ['train', 'test'])

    Args:
        image_size: (height, width) in pixels; structures scale with the shorter side, motions with the width.
        tasks: number of tasks.
        pairs, test_pairs: number of pairs in the splits "train" and "test" of each task.
        seed: seed of everything random, at least 0.

    Returns:
        synthetic_000, synthetic_001, ..., all with the role "source". Test pairs have landmarks on a lattice.
        Images are float32 in [0, 1].

    Raises:
        UserError: an image size that scenes do not fit, or tasks without any pair.
    """
    if min(image_size) < 32 or max(image_size) > 2 * min(image_size):
        raise UserError(
            f"--image-size ({image_size[0]} {image_size[1]}) must be at least 32 for synthetic tasks, "
            "and neither side more than twice the other: the scenes would not fit."
        )
    if pairs + test_pairs < 1:
        raise UserError("--pairs (0) and --test-pairs (0) leave no pair; raise one of them.")
    return [
        SourceTask(
            name=(name := f"synthetic_{number:03d}"),
            role="source",
            modality="synthetic",
            pairs=LazyPairs(
                _partitions(name, number, image_size, {"train": pairs, "test": test_pairs}, seed),
                pairs + test_pairs,
            ),
            two_contrasts=random_domain(seed, number).two_contrasts,
        )
        for number in range(tasks)
    ]


def _partitions(
    name: str, number: int, shape: tuple[int, int], splits: dict[str, int], seed: int
) -> list[Partition]:
    return [
        functools.partial(
            _pairs, name, number, shape, seed, split, first, min(first + _PAIRS_PER_PARTITION, count)
        )
        for split, count in splits.items()
        for first in range(0, count, _PAIRS_PER_PARTITION)
    ]


def _pairs(
    name: str, number: int, shape: tuple[int, int], seed: int, split: str, first: int, end: int
) -> Iterator[ImagePair]:
    """Yields the pairs `first` to `end - 1` of a split; each shows a subject of its own."""
    domain = random_domain(seed, number)
    for index in range(first, end):
        drawn = draw_pair(domain, keyed_rng(seed, "scene", number, split, index), shape)
        key = f"{name}-{split}-{index:04d}"
        moving_points, fixed_points = landmarks(drawn)
        if split == "train":
            moving_points, fixed_points = moving_points[:0], fixed_points[:0]
        yield ImagePair(
            key,
            key,
            drawn.moving,
            drawn.fixed,
            moving_points,
            fixed_points,
            moving_like_fixed=drawn.moving_like_fixed,
            split=split,
        )


def _count(flag: str, least: int, default: int, what: str) -> Option:
    settings = {"type": base.number(int, least), "default": default, "metavar": "N"}
    return Option(flag, {**settings, "help": f"number of {what} (default: {default})"})


@source(
    "synthetic",
    summary="any number of random imaging domains made from a seed, each a task of its own",
    options=(
        _count("--tasks", 1, 200, "tasks, each a random imaging domain"),
        _count("--pairs", 0, 24, "training pairs of each task"),
        _count("--test-pairs", 0, 2, "test pairs, with landmarks, of each task"),
    ),
    image_size=(128, 128),
    needs_input=False,
)
def _requested_tasks(request: Request) -> list[SourceTask]:
    return synthetic_tasks(image_size=request.image_size, seed=request.seed, **request.options)
