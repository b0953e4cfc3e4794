"""Registers one pair of image files after the other with the same weights."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional, TypeVar

import numpy as np

from tfmetareg import fields
from tfmetareg.alignment import align, composed, resample, to_moving
from tfmetareg.config import Config
from tfmetareg.errors import UserError
from tfmetareg.events import Progress
from tfmetareg.registration import Adaptation, Registrar, inverted, joined, on_own_grids, warp_image
from tfmetareg.runs.pair_files import PairFiles
from tfmetareg.runs.preprocessing import find_preprocessing
from tfmetareg.runs.run import build_network, loss_function, settle, settle_network
from tfmetareg.types import ImagePair, no_alignment
from tfrecords_builder.geometry import inside
from tfrecords_builder.images import read_pixels
from tfrecords_builder.inspection import NETWORK_REACH
from tfrecords_builder.preprocess import MisfitError, Preprocessing, image_geometry, prepare_image
from tfrecords_builder.tables import check_inside, read_landmarks, read_table

Item = TypeVar("Item")


class Prepared(NamedTuple):
    """A pair as it was read, and as the network sees it.

    Attributes:
        raw: the images as they were.
        moving, fixed: uint8 of one shape; the moving image is not aligned yet.
        align: the kind of alignment that was looked for between these two.
        alignment: float32 (2, 3), what was found.
        moving_matrix, fixed_matrix: float64 (2, 3), where points of the raw images lie in them.
    """

    raw: ImagePair
    moving: np.ndarray
    fixed: np.ndarray
    align: str
    alignment: np.ndarray
    moving_matrix: np.ndarray
    fixed_matrix: np.ndarray

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """What the network gets: the moving image, aligned, and the fixed one."""
        if np.array_equal(self.alignment, no_alignment()):
            return self.moving, self.fixed
        return resample(self.moving, self.alignment), self.fixed

    def seen_percent(self) -> dict[str, float]:
        """Of each image, how much lies in the frame that the network sees; `fit: crop` cuts off the rest."""
        shares = {}
        for name, matrix in (("moving", self.moving_matrix), ("fixed", self.fixed_matrix)):
            corners = np.array([[-0.5, -0.5], getattr(self.raw, name).shape])
            corners[1] -= 0.5
            places = to_moving(corners, matrix)
            within = np.clip(places, -0.5, np.array(self.fixed.shape) - 0.5)
            shares[name] = round(100 * float(np.prod(np.ptp(within, axis=0) / np.ptp(places, axis=0))), 2)
        return shares

    @property
    def unregistered(self) -> np.ndarray:
        """(2, 3): where points of the raw fixed image lie in the raw moving one, by their sizes alone."""
        return joined(inverted(self.moving_matrix), self.fixed_matrix)


class Points(NamedTuple):
    """Points of the fixed image and where they lie in the moving one, float32 (n, 2) each, (row, column).

    NaN where a point of the moving image lies nowhere in the fixed one, and where none was given.
    """

    fixed: np.ndarray
    moving: np.ndarray


class Found(NamedTuple):
    """A registered pair.

    Attributes:
        prepared: what was registered.
        reach: how far the network finds a partner, in the pixels of what it saw.
        residual: float32 (height, width, 2), what the network found, in the same pixels.
        displacement: float32 (height, width, 2), between the raw images, on the fixed one's grid.
        pixels: the moving file's pixels with all channels, warped, on the fixed image's grid.
        points: the points that were carried over, if any.
        losses: before the first and before the last step of adaptation, if there were any.
        seconds: what each part of the work took.
    """

    prepared: Prepared
    reach: float
    residual: np.ndarray
    displacement: np.ndarray
    pixels: np.ndarray
    points: Optional[Points]
    losses: Optional[tuple[float, float]]
    seconds: Clock

    @property
    def aligned(self) -> bool:
        """Whether an alignment other than the identity came before the network."""
        return not np.array_equal(self.prepared.alignment, no_alignment())

    def before(self) -> np.ndarray:
        """float32 (height, width, 2): as `displacement`, by the images' sizes alone."""
        return composed(np.zeros_like(self.displacement), self.prepared.unregistered)

    def on_frame(self) -> np.ndarray:
        """float32 (height, width, 2): between what the network saw, as it was before the alignment."""
        return composed(self.residual, self.prepared.alignment)


class Clock:
    """Seconds that each part of the work took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the time of the block to a part."""
        began = time.perf_counter()
        yield
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - began, 4)


class Session:
    """One network with its weights and the preprocessing that belongs to them."""

    def __init__(self, config: Config, weights: Path):
        """
        Raises:
            UserError: no such weights, weights of another network, or damaged preprocessing.
        """
        settle(config)
        self._config, self._options = config, config.register
        # It takes any size: the one it is built at leaves no trace.
        self._network = settle_network(config.model, weights)
        self._model = build_network(self._network, (64, 64), weights)
        self._preprocessing = find_preprocessing(weights)
        self._start = self._model.get_weights()
        self._register = Registrar(self._model)
        self._adapt = Adaptation(self._model, loss_function(config.loss), self._options.adapt_learning_rate)

    def told(self) -> dict[str, Any]:
        """What decides on the results besides images, weights and options, in JSON's types."""
        told: dict[str, Any] = {
            "preprocessing": {
                "image_shape": list(self._preprocessing.image_size),
                **self._preprocessing.describe(),
            },
            "network": dataclasses.asdict(self._network),
        }
        if self._options.adapt_epochs or self._options.adapt_steps:
            told.update(loss=dataclasses.asdict(self._config.loss), seed=self._config.seed)
        return told

    def adapt_to(self, pairs: Iterable[PairFiles]) -> None:
        """Adapts the weights that every pair starts from, by some passes over the pairs.

        Pairs that cannot be read are left out: registering them says why.
        """
        seen = []
        for files in pairs:
            with contextlib.suppress(UserError):
                seen.append(self._prepare(files, Clock()).seen())
        epochs = self._options.adapt_epochs
        order = np.random.default_rng(self._config.seed)
        steps = (seen[index] for _ in range(epochs) for index in order.permutation(len(seen)))
        progress = Progress("adapt", total=epochs * len(seen), start=0, every=self._config.log_every)
        try:
            self._adapt(_shown(steps, progress))
        finally:
            progress.close()
        self._start = self._model.get_weights()

    def register(self, files: PairFiles) -> Found:
        """Registers a pair, after adapting fresh copies of the weights to it where that is asked for.

        Raises:
            UserError: a file that cannot be read or used.
        """
        clock = Clock()
        prepared = self._prepare(files, clock)
        with clock("read"):
            pixels = read_pixels(files.moving)
            points = _read_points(files, prepared.raw, self._options.points_in)
        seen = prepared.seen()
        losses = None
        if self._options.adapt_steps:
            with clock("adapt"):
                self._model.set_weights(self._start)
                losses = self._adapt(seen for _ in range(self._options.adapt_steps))
        with clock("register"):
            _, residual = self._register(*seen)
        with clock("warp"):
            from_frame = joined(inverted(prepared.moving_matrix), prepared.alignment)
            displacement = on_own_grids(residual, prepared.raw.fixed.shape, prepared.fixed_matrix, from_frame)
            pixels = warp_image(pixels, displacement)
        with clock("points"):
            carried = None if points is None else self._carried(points, displacement)
        reach = NETWORK_REACH * self._preprocessing.image_size[1]
        return Found(prepared, reach, residual, displacement, pixels, carried, losses, clock)

    def _prepare(self, files: PairFiles, clock: Clock) -> Prepared:
        with clock("read"):
            raw = files.read(self._preprocessing.colour)
        with clock("prepare"):
            preprocessing = self._preprocessing_of(raw)
            images, matrices = {}, {}
            for name in ("moving", "fixed"):
                image, spacing = getattr(raw, name), getattr(raw, f"{name}_spacing")
                where = str(getattr(files, name))
                try:
                    images[name] = prepare_image(image, preprocessing, where, spacing)
                    matrices[name] = image_geometry(image.shape, preprocessing, spacing, where).matrix()
                except MisfitError as error:
                    raise UserError(f"{error.problem}; use `--register.fit native`.") from None
        with clock("align"):
            alignment = align(images["moving"], images["fixed"], preprocessing.align)
        return Prepared(raw, *images.values(), preprocessing.align, alignment, *matrices.values())

    def _preprocessing_of(self, raw: ImagePair) -> Preprocessing:
        """That of the records, changed as the options ask."""
        changed = {}
        if self._options.align != "records":
            changed["align"] = self._options.align
        if self._options.fit == "native":
            frame = tuple(map(max, raw.moving.shape, raw.fixed.shape))
            changed.update(image_size=frame, fit="pad", spacing=None)
        return dataclasses.replace(self._preprocessing, **changed)

    def _carried(self, points: np.ndarray, displacement: np.ndarray) -> Points:
        if self._options.points_in == "fixed":
            return Points(points, fields.to_moving(points, displacement))
        return Points(fields.to_fixed(points, displacement), points)


def _read_points(files: PairFiles, raw: ImagePair, points_in: str) -> Optional[np.ndarray]:
    if files.points is None:
        return None
    shape = getattr(raw, points_in).shape
    # What was carried here from another image may lie beyond this one, or nowhere.
    carried = {"moving_x", "fixed_x"} & {*read_table(files.points).columns}
    points = read_landmarks(files.points, gaps=bool(carried))
    if not len(points):
        raise UserError(f"{files.points}: no points; add a row for each below the header.")
    if carried:
        points[~inside(points, shape)] = np.nan
    else:
        check_inside(points, shape, str(files.points))
    return points


def _shown(items: Iterable[Item], progress: Progress) -> Iterator[Item]:
    """The items; shows each as a step once it is done with."""
    for step, item in enumerate(items, 1):
        yield item
        progress(step, {})
