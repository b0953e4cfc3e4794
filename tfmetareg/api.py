"""Registering from Python: the functions that stand at the top of the package."""

from __future__ import annotations

import base64
import copy
import dataclasses
import functools
import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Union, get_args

import numpy.typing as npt

from tfmetareg.errors import UserError
from tfmetareg.files import StrPath
from tfmetareg.geometry.frame import inside_image
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.labels import open_labels
from tfmetareg.imaging.landmark_files import read_landmark_file
from tfmetareg.imaging.landmarks import points_on
from tfmetareg.imaging.read import ImageLike, open_image
from tfmetareg.registration.measures import measure
from tfmetareg.registration.output import panels, save_registration
from tfmetareg.registration.pair import InputPair, PairRegistrar
from tfmetareg.registration.result import RegisteredPair, as_points
from tfmetareg.registration.similarity import Similarity, similarities
from tfmetareg.registration.weights import TrainedNetwork, load_network, weights_file
from tfmetareg.types import ImagePair

Array = npt.NDArray[Any]
Weights = Union[str, "os.PathLike[str]", TrainedNetwork]
Align = Literal["none", "rigid", "affine", "records"]
Fit = Literal["records", "native"]
Comparison = Literal["auto", "overlay", "checkerboard"]
# Networks that are kept ready, and pictures' dots per inch in a notebook.
_KEPT_NETWORKS, _DOTS_PER_INCH = 4, 60


class Registration(RegisteredPair):
    """A registered pair, as `register` gives it.

    Attributes:
        displacement: float32 (height, width, 2), pixels, (row, column), on the fixed image's own grid: its
            point p lies at p + displacement[p] in the moving image.
        warped: the moving image on the fixed image's grid, with all its channels, in its own dtype.
        moving, fixed: the images, with their grids.
        warped_labels: the moving image's label map on the fixed image's grid, in its own integers; None
            unless it was given.
        prepared: the pair as the network saw it, with the `alignment` found ahead of it.

    In a notebook it shows itself: both images compared, before and after.
    """

    @property
    def summary(self) -> dict[str, Any]:
        """Measures by name: similarity before and after, folding, overlap, length of the displacement."""
        return copy.deepcopy(self._measures)

    @property
    def warnings(self) -> list[str]:
        """What to look at before trusting the result, a line each; empty where nothing is suspicious."""
        return list(self._measures["warnings"])

    @functools.cached_property
    def _measures(self) -> dict[str, Any]:
        return measure(self)

    def save(
        self,
        folder: StrPath,
        *,
        formats: Sequence[str] = ("npz", "nii.gz", "h5"),
        figures: bool = True,
        comparison: Comparison = "auto",
    ) -> Path:
        """Writes what `--mode register` writes of a pair: image, displacement, points, figures, summary.

        Args:
            folder: made here; must not be there yet.
            formats: of the displacement: "npz" holds it in pixels, "nii.gz" (vectors), "h5" and "tfm"
                (transforms) are ITK's, in mm.
            figures: draws them and `registration.html`, the page that shows them, too.
            comparison: picture that compares both images, "overlay" or "checkerboard"; "auto" takes the
                latter where they differ in contrast or stain.

        Returns:
            The folder.

        Raises:
            UserError: the folder is there already or cannot be written.
        """
        formats = [formats] if isinstance(formats, str) else formats
        for ending in formats:
            _check_choice("formats", ending, ("npz", "nii.gz", "h5", "tfm"))
        _check_choice("comparison", comparison, get_args(Comparison))
        save_registration(
            self,
            Path(folder),
            formats=formats,
            figures=figures,
            comparison=comparison,
            measures=self._measures,
        )
        return Path(folder)

    def _repr_html_(self) -> str:
        from tfmetareg.report.registration import figure_compared  # Slow to import.

        content = io.BytesIO()
        figure_compared(panels(self).decided()).savefig(content, format="png", dpi=_DOTS_PER_INCH)
        picture = base64.b64encode(content.getvalue()).decode()
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.warnings)
        return f'<img alt="before and after" src="data:image/png;base64,{picture}"/><ul>{notes}</ul>'


def register(
    moving: ImageLike,
    fixed: ImageLike,
    *,
    weights: Weights = "start",
    align: Align = "affine",
    fit: Fit = "records",
    adapt_steps: int = 0,
    learning_rate: float = 5e-4,
    similarity: Similarity = "auto",
    points: Union[Array, StrPath, None] = None,
    points_in: Literal["fixed", "moving"] = "fixed",
    moving_labels: Optional[ImageLike] = None,
    fixed_labels: Optional[ImageLike] = None,
) -> Registration:
    """Registers one image onto another.

    >>> import numpy as np, tfmetareg
    >>> rows, columns = np.mgrid[:64, :64]
    >>> fixed = np.exp(-((rows - 30) ** 2 + (columns - 34) ** 2) / 90.0)
    >>> registration = tfmetareg.register(np.roll(fixed, 2, axis=1), fixed, align="none")
    >>> registration.displacement.shape
    (64, 64, 2)

    Args:
        moving: image to be brought onto `fixed`: path (PNG, TIFF, JPEG, NIfTI, npy; `volume.nii.gz#12` for
            a slice), NumPy array (height, width[, channels]), SimpleITK or nibabel image, 2D or of one slice.
            Any size.
        fixed: likewise; may have another size.
        weights: "start", the weights that come with the package; an `.h5` file of this project or of
            voxelmorph; or what `adapt` and `load_network` give.
        align: alignment ahead of the network; "records" takes that of the images it was trained on.
        fit: "records" brings the images to the size that the network was trained at, "native" keeps their
            pixels.
        adapt_steps: gradient steps on this pair alone before it is registered.
        learning_rate: Adam's, for those.
        similarity: what those raise: "auto" takes "mind" where the images differ in contrast, else "ncc";
            any of "ncc", "voxelmorph" and "mind" is taken as it is, see `registration_loss`.
        points: points to carry over and to save with the result: (n, 2) float, (row, column), pixels, or a
            file of landmarks, see `read_landmarks`.
        points_in: image that they are given in.
        moving_labels: label map of the moving image, integers (0 is background) of the same size, as path,
            array, SimpleITK or nibabel image: carried over as `warped_labels`, and saved with the result.
        fixed_labels: label map of the fixed image; with both, `summary["labels"]` tells how well they agree.

    Returns:
        The registered pair. One network serves many calls, compiled at the first pair of a size; it computes
        in float32.

    Raises:
        UserError: an image, labels or weights that cannot be used, or points outside their image.
    """
    _check_choice("align", align, get_args(Align))
    _check_choice("fit", fit, get_args(Fit))
    _check_choice("points_in", points_in, ("fixed", "moving"))
    _check_choice("similarity", similarity, get_args(Similarity))
    _check_count("adapt_steps", adapt_steps)
    network = _network(weights)
    pair = _input_pair(moving, fixed, network.preprocessing.colour, points, points_in)
    pair = pair._replace(
        moving_labels=None
        if moving_labels is None
        else open_labels(moving_labels, pair.moving, "moving_labels"),
        fixed_labels=None if fixed_labels is None else open_labels(fixed_labels, pair.fixed, "fixed_labels"),
    )
    registrar = _registrar(network, align, fit, learning_rate, similarity)
    registered = registrar.register(pair, adapt_steps=adapt_steps)
    return Registration(
        **{field.name: getattr(registered, field.name) for field in dataclasses.fields(registered)}
    )


def adapt(
    pairs: Iterable[tuple[ImageLike, ImageLike]],
    *,
    weights: Weights = "start",
    epochs: int = 10,
    align: Align = "affine",
    fit: Fit = "records",
    learning_rate: float = 5e-4,
    similarity: Similarity = "auto",
    seed: int = 0,
) -> TrainedNetwork:
    """Fine-tunes weights on one's own few pairs, without records or a work directory.

    >>> import numpy as np, tfmetareg
    >>> rng = np.random.default_rng(0)
    >>> pairs = [(rng.random((32, 32)), rng.random((32, 32))) for _ in range(2)]
    >>> mine = tfmetareg.adapt(pairs, epochs=1, align="none")
    >>> tfmetareg.register(*pairs[0], weights=mine, align="none").warped.shape
    (32, 32)

    Args:
        pairs: (moving, fixed), each as `register` takes them.
        weights: to start from, as `register` takes them; left as they are.
        epochs: passes over the pairs.
        align, fit: as for `register`; register with the same.
        learning_rate: Adam's.
        similarity: as for `register`; "auto" decides once, by most of the pairs.
        seed: of the pairs' order.

    Returns:
        The adapted network, for `register(..., weights=...)`; its `save` writes the `.h5` file.

    Raises:
        UserError: no pairs, images or weights that cannot be used, or training that diverges.
    """
    _check_choice("align", align, get_args(Align))
    _check_choice("fit", fit, get_args(Fit))
    _check_choice("similarity", similarity, get_args(Similarity))
    _check_count("epochs", epochs)
    pairs = list(pairs)
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise UserError("`pairs` must hold (moving, fixed) pairs of images; give a list of tuples.")
    network = _network(weights).copy()
    colour = network.preprocessing.colour
    inputs = [_input_pair(moving, fixed, colour) for moving, fixed in pairs]
    if not inputs:
        raise UserError("`pairs` must hold at least one (moving, fixed) pair, got none.")
    registrar = PairRegistrar(
        network,
        fit=fit,
        align=align,
        similarities=similarities(similarity),
        adapt_learning_rate=learning_rate,
    )
    registrar.adapt_to(inputs, epochs=epochs, seed=seed)
    return network


def _input_pair(
    moving: ImageLike,
    fixed: ImageLike,
    colour: Optional[str],
    points: Union[Array, StrPath, None] = None,
    points_in: str = "fixed",
) -> InputPair:
    images = {"moving": open_image(moving, "moving"), "fixed": open_image(fixed, "fixed")}
    pair = ImagePair(
        key="moving-to-fixed",
        subject="",
        moving=images["moving"].grey(colour or "green"),
        fixed=images["fixed"].grey(colour or "green"),
        moving_spacing=images["moving"].spacing,
        fixed_spacing=images["fixed"].spacing,
    )
    points_file = None
    if isinstance(points, (str, os.PathLike)):
        points_file = read_landmark_file(Path(points), carried=True)
        points = points_on(points_file, images[points_in])
    elif points is not None:
        points = _checked_points(points, images[points_in])
    return InputPair(pair, images["moving"], images["fixed"], points, points_in, points_file=points_file)


def _checked_points(points: Array, image: Image) -> Array:
    points = as_points(points)
    outside = ~inside_image(points, image.shape)
    if outside.any():
        row, column = points[outside][0]
        raise UserError(
            f"`points` must lie on {image.name}, {image.shape}, got (row {row:g}, column {column:g}); "
            "check their order and `points_in`."
        )
    return points


def _network(weights: Weights) -> TrainedNetwork:
    """The network of the weights; a file that has changed since it was read is read again."""
    if isinstance(weights, TrainedNetwork):
        return weights
    if not isinstance(weights, (str, os.PathLike)):
        raise UserError(
            "`weights` must be 'start', the path of an .h5 file, or what `adapt` and `load_network` give, "
            f"got {type(weights).__name__}."
        )
    path = weights_file(weights).resolve()
    versions = [file.stat() for file in (path, path.with_name("preprocessing.json")) if file.is_file()]
    return _loaded(path, tuple((version.st_mtime_ns, version.st_size) for version in versions))


@functools.lru_cache(maxsize=_KEPT_NETWORKS)
def _loaded(path: Path, _versions: tuple[tuple[int, int], ...]) -> TrainedNetwork:
    return load_network(path)


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 0:
        raise UserError(f"`{name}` must be a whole number of at least 0, got {value!r}.")


@functools.lru_cache(maxsize=_KEPT_NETWORKS)
def _registrar(
    network: TrainedNetwork, align: str, fit: str, learning_rate: float, similarity: str
) -> PairRegistrar:
    """The registrar of a network, the same one for the same arguments."""
    return PairRegistrar(
        network,
        align=align,
        fit=fit,
        similarities=similarities(similarity),
        adapt_learning_rate=learning_rate,
    )
