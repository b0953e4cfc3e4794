"""A trained network together with what was done to the images it was trained on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Union

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.preprocessing_file import find_preprocessing, is_described, write_preprocessing
from tfmetareg.models.build import build_network, load_model
from tfmetareg.models.registry import RegistrationModel
from tfmetareg.models.weights import save_weights

# Weights that come with the package, by the word that stands for them.
SHIPPED = {"start": Path(__file__).resolve().parents[1] / "weights" / "start.h5"}


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and the preprocessing that belongs to its weights.

    Attributes:
        model: warped, displacement = model([moving, fixed]).
        preprocessing: what is done to an image before the network sees it.
    """

    model: RegistrationModel
    preprocessing: Preprocessing

    def save(self, path: StrPath) -> None:
        """Publishes the weights as `.h5`, as voxelmorph reads it, and `preprocessing.json` beside it.

        Args:
            path: of the `.h5` file; its folder is made. What lies in one folder has one preprocessing.

        Raises:
            UserError: weights with another preprocessing, or with none, lie in that folder already.
        """
        path, preprocessing = Path(path), self.preprocessing
        others = [file.name for file in path.parent.glob("*.h5") if file.name != path.name]
        if others and not is_described(path, preprocessing):
            raise UserError(
                f"{path}: {', '.join(sorted(others)[:3])} in that folder are for images prepared otherwise; "
                "name a folder of its own."
            )
        save_weights(self.model, path)
        write_preprocessing(path, preprocessing.image_size, preprocessing.describe())

    def copy(self) -> TrainedNetwork:
        """The same with variables of its own, for training that leaves this one as it is."""
        if self.model.architecture is None:
            raise UserError(f"{self.model.name}: does not say what it was built from; use `build_model`.")
        model = build_network(self.model.architecture)
        model.set_weights(self.model.get_weights())
        return TrainedNetwork(model, self.preprocessing)


def weights_file(weights: Union[str, os.PathLike]) -> Path:
    """The file that weights are named by: a path, or a word of `SHIPPED`."""
    return SHIPPED.get(str(weights), Path(weights))


def load_network(weights: Union[str, os.PathLike]) -> TrainedNetwork:
    """The network of a weights file.

    Args:
        weights: `.h5` file of this project or of voxelmorph, or "start": the weights that come with the
            package.

    Raises:
        UserError: no such file, or none that describes its network.
    """
    path = weights_file(weights)
    return TrainedNetwork(load_model(path), find_preprocessing(path))
