"""Registers one pair of images after the other with one trained network."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.geometry.affine import compose, invert, resample
from tfmetareg.geometry.align import NETWORK_REACH, align
from tfmetareg.geometry.displacement import carry_both_ways, to_image_grids, warp_image, warp_labels
from tfmetareg.imaging.direction import pair_notes, turn_to_fixed
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.landmark_files import LandmarkFile
from tfmetareg.imaging.preprocessing import MisfitError, Preprocessing, frame_image
from tfmetareg.registration.adaptation import AdaptationOutcome, FittingAdaptation
from tfmetareg.registration.network import Registrar
from tfmetareg.registration.result import CarriedPoints, PreparedPair, RegisteredPair, Seconds, timed
from tfmetareg.registration.similarity import AUTOMATIC, Similarities
from tfmetareg.registration.weights import TrainedNetwork
from tfmetareg.training.log import TrainingProgress
from tfmetareg.training.losses import registration_loss
from tfmetareg.training.steps import LossFn
from tfmetareg.types import ImagePair


class InputPair(NamedTuple):
    """A pair to register.

    Attributes:
        images: one channel of each image, with landmarks and pixel sizes where they are known.
        moving, fixed: the images with all channels and their grids.
        points: (n, 2), (row, column), pixels, to carry over, if any; NaN where there is none.
        points_in: image that they are given in, "fixed" or "moving".
        seconds: what reading them took.
        points_file: the points as their file holds them, if they come from one.
        moving_labels, fixed_labels: label maps of the images, as `imaging.labels.open_labels` gives them, if
            any.
    """

    images: ImagePair
    moving: Image
    fixed: Image
    points: Optional[np.ndarray] = None
    points_in: str = "fixed"
    seconds: Seconds = {}
    points_file: Optional[LandmarkFile] = None
    moving_labels: Optional[Image] = None
    fixed_labels: Optional[Image] = None


class PairRegistrar:
    """One trained network, compiled at the first pair of a size."""

    def __init__(
        self,
        network: TrainedNetwork,
        *,
        fit: str = "records",
        align: str = "records",
        loss_fn: LossFn = registration_loss,
        similarities: Similarities = AUTOMATIC,
        adapt_learning_rate: float = 5e-4,
    ):
        """
        Args:
            network: what registers; its weights are changed by `adapt_to` alone.
            fit: "records" brings images to the size of those the network was trained on; "native" keeps
                their pixels.
            align: alignment ahead of the network: "none", "rigid" or "affine"; "records" takes that of the
                images it was trained on.
            loss_fn: of the adaptation; takes `similarity`, a name, as `registration_loss` does.
            similarities: of the adaptation, by whether the images differ in contrast.
            adapt_learning_rate: Adam's.
        """
        self._preprocessing = network.preprocessing
        self._fit, self._align = fit, align
        self._model = network.model
        self._register = Registrar(network.model)
        self._loss_fn, self._similarities = loss_fn, similarities
        self._adapt_learning_rate = adapt_learning_rate

    @functools.cached_property
    def _adapt(self) -> FittingAdaptation:
        return FittingAdaptation(self._model, self._loss_fn, self._similarities, self._adapt_learning_rate)

    def adapt_to(
        self,
        pairs: Iterable[InputPair],
        *,
        epochs: int,
        seed: int = 0,
        log_every: int = 10,
        skip_unusable: bool = False,
    ) -> None:
        """Adapts the network's weights, by some passes over the pairs, with one similarity for all of them.

        Args:
            pairs: to adapt to.
            epochs: passes over them.
            seed: of their order.
            log_every: steps between lines on the progress.
            skip_unusable: whether pairs that cannot be prepared are left out, in place of refused.

        Raises:
            UserError: a pair that cannot be prepared, or the adaptation diverges.
        """
        inputs = []
        for pair in pairs:
            with contextlib.suppress(*[UserError] * skip_unusable):
                inputs.append(self._prepare(pair, {}).network_input)
        order = np.random.default_rng(seed)
        steps = (inputs[index] for _ in range(epochs) for index in order.permutation(len(inputs)))
        progress = TrainingProgress("adapt", total=epochs * len(inputs), start=0, every=log_every)
        try:
            self._adapt(inputs, _shown(steps, progress), self._register)
        finally:
            progress.close()

    def register(self, pair: InputPair, *, adapt_steps: int = 0) -> RegisteredPair:
        """Registers a pair.

        Args:
            pair: the images.
            adapt_steps: gradient steps on this pair alone before it is registered, from the same weights
                each time.

        Raises:
            UserError: an image that does not fit the frame, or an adaptation that diverges.
        """
        seconds = dict(pair.seconds)
        prepared = self._prepare(pair, seconds)
        residual, adaptation = self._find(prepared, adapt_steps, seconds)
        with timed(seconds, "warp"):
            from_frame = compose(invert(prepared.moving_matrix), prepared.alignment)
            displacement = to_image_grids(residual, pair.fixed.shape, prepared.fixed_matrix, from_frame)
            warped = warp_image(pair.moving.pixels, displacement)
            labels = pair.moving_labels
            warped_labels = None if labels is None else warp_labels(labels.pixels, displacement)
        points = None
        if pair.points is not None:
            with timed(seconds, "points"):
                points = CarriedPoints(*carry_both_ways(pair.points, pair.points_in, displacement))
        return RegisteredPair(
            moving=pair.moving,
            fixed=pair.fixed,
            displacement=displacement,
            warped=warped,
            prepared=prepared,
            residual=residual,
            reach=NETWORK_REACH * self._preprocessing.image_size[1],
            adaptation=adaptation,
            points=points,
            points_in=pair.points_in,
            moving_labels=labels,
            fixed_labels=pair.fixed_labels,
            warped_labels=warped_labels,
            seconds=seconds,
            points_file=pair.points_file,
        )

    def _prepare(self, pair: InputPair, seconds: Seconds) -> PreparedPair:
        """The pair as the network sees it, and where its images' points lie there."""
        raw = pair.images
        with timed(seconds, "prepare"):
            turn = turn_to_fixed(pair.moving, pair.fixed)
            notes = (*raw.notes, *pair_notes(pair.moving, pair.fixed))
            turned = turn.moving(raw)
            preprocessing = self._preprocessing_of(turned.moving.shape, raw.fixed.shape)
            try:
                (moving, moving_mapping), (fixed, fixed_mapping) = (
                    frame_image(image, preprocessing, where, spacing)
                    for image, where, spacing in (
                        (turned.moving, pair.moving.name, turned.moving_spacing),
                        (raw.fixed, pair.fixed.name, raw.fixed_spacing),
                    )
                )
            except MisfitError as error:
                raise UserError(f"{error.problem}; use `--register.fit native`.") from None
        with timed(seconds, "align"):
            alignment = align(moving, fixed, preprocessing.align)
            aligned = resample(moving, alignment)
        return PreparedPair(
            raw=raw,
            moving=moving,
            fixed=fixed,
            aligned=aligned,
            align=preprocessing.align,
            alignment=alignment,
            moving_matrix=compose(moving_mapping.matrix(), turn.matrix(raw.moving.shape)),
            fixed_matrix=fixed_mapping.matrix(),
            turn=turn,
            notes=notes,
        )

    def _find(
        self, prepared: PreparedPair, adapt_steps: int, seconds: Seconds
    ) -> tuple[np.ndarray, Optional[AdaptationOutcome]]:
        """What the network finds, after steps on the pair if asked for, and how those went."""
        adaptation = None
        weights = self._model.get_weights() if adapt_steps else None
        try:
            if adapt_steps:
                with timed(seconds, "adapt"):
                    pair = prepared.network_input
                    adaptation = self._adapt([pair], [pair] * adapt_steps, self._register)
            with timed(seconds, "register"):
                _, residual = self._register(*prepared.network_input)
        finally:
            if weights:
                self._model.set_weights(weights)
        return residual, adaptation

    def _preprocessing_of(self, *shapes: Sequence[int]) -> Preprocessing:
        """That of the network's images, changed as asked."""
        preprocessing = self._preprocessing
        if self._align != "records":
            preprocessing = dataclasses.replace(preprocessing, align=self._align)
        if self._fit == "native":
            height, width = (int(max(sides)) for sides in zip(*shapes))
            preprocessing = dataclasses.replace(
                preprocessing, image_size=(height, width), fit="pad", spacing=None
            )
        return preprocessing


def _shown(
    items: Iterable[tuple[np.ndarray, np.ndarray]], progress: TrainingProgress
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The items; shows each as a step once it is done with."""
    for step, item in enumerate(items, 1):
        yield item
        progress(step, {})
