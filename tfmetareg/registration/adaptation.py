"""Adapts a network to pairs by the similarity, and from the start, that fit their contrast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from tfmetareg.models.registry import RegistrationModel
from tfmetareg.registration.network import Adaptation, Registrar, as_batch, reset_to_identity
from tfmetareg.registration.similarity import Similarities, differ_in_contrast
from tfmetareg.types import LossTerms, PairBatch

# Moving, aligned, and fixed, as the network gets them: uint8 (height, width) of one shape.
NetworkInput = tuple[np.ndarray, np.ndarray]
# (pair, warped, displacement, similarity="..."), as `registration_loss`.
LossBySimilarity = Callable[..., LossTerms]


class AdaptationOutcome(NamedTuple):
    """How gradient steps went.

    Attributes:
        similarity: name of the similarity that they were made by, as `registration_loss` takes it.
        start: what they began with: the displacement of the "network", or none, the "identity".
        first, last: the loss before the first and before the last step.
    """

    similarity: str
    start: str
    first: float
    last: float


class FittingAdaptation:
    """Gradient steps on given pairs, which decide on the similarity and on the start.

    By MIND, the steps begin with no displacement where that has a lower loss than the network's own. A
    network that has only learned to fit images of one contrast finds wrong matches in images of two, and the
    steps would spend themselves on undoing these.
    """

    def __init__(
        self,
        model: RegistrationModel,
        loss_fn: LossBySimilarity,
        similarities: Similarities,
        learning_rate: float,
    ):
        """
        Args:
            model: adapted in place.
            loss_fn: takes `similarity`, a name, as `registration_loss` does.
            similarities: to choose from, by whether the images differ in contrast.
            learning_rate: Adam's.
        """
        self._model, self._loss_fn, self._similarities = model, loss_fn, similarities
        self._learning_rate = learning_rate
        self._adaptations: dict[str, Adaptation] = {}

    def __call__(
        self, pairs: Sequence[NetworkInput], steps: Iterable[NetworkInput], register: Registrar
    ) -> Optional[AdaptationOutcome]:
        """One step on each pair of `steps`.

        Args:
            pairs: those that decide.
            steps: pairs in the order of the steps.
            register: of the same network.

        Returns:
            How they went; None without steps.

        Raises:
            UserError: the loss or a weight is no longer finite.
        """
        similarity = self._fitting(pairs)
        is_misled = similarity == "mind" and self._is_misled(pairs, register)
        if is_misled:
            reset_to_identity(self._model)
        losses = self._by(similarity)(steps)
        return losses and AdaptationOutcome(similarity, "identity" if is_misled else "network", *losses)

    def _fitting(self, pairs: Sequence[NetworkInput]) -> str:
        """The similarity that fits most of the pairs."""
        like, unlike = self._similarities
        return unlike if like != unlike and differ_in_contrast(pairs) else like

    def _by(self, similarity: str) -> Adaptation:
        """The adaptation by a similarity, compiled once."""
        if similarity not in self._adaptations:
            loss_fn = functools.partial(self._loss_fn, similarity=similarity)
            self._adaptations[similarity] = Adaptation(self._model, loss_fn, self._learning_rate)
        return self._adaptations[similarity]

    def _is_misled(self, pairs: Sequence[NetworkInput], register: Registrar) -> bool:
        """Whether the network's displacements have a higher loss by MIND than none, summed over the pairs."""
        excess = 0.0
        for pair in pairs:
            warped, displacement = (tf.constant(each[None]) for each in register(*pair))
            moving, fixed = (as_batch(image) for image in pair)
            versions = ((warped[..., None], displacement), (moving, tf.zeros_like(displacement)))
            losses = [
                self._loss_fn(PairBatch(moving, fixed), image, field, similarity="mind").total
                for image, field in versions
            ]
            excess += float(losses[0] - losses[1])
        return excess > 0
