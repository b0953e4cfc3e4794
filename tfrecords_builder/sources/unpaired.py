"""`unpaired`: a folder of single images; each becomes a pair by a known smooth deformation.

`fixed(x) = image(x)` and `moving(y) = image(y + v(y))`, each with its own noise and illumination. The point
y of `moving` is then exactly the point y + v(y) of `fixed`, which gives landmarks without error.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np
from skimage.feature import corner_harris, corner_peaks

from tfmetareg.errors import UserError
from tfmetareg.imaging.choices import FORMATS
from tfmetareg.imaging.labels import open_labels
from tfmetareg.imaging.names import composed, name_on_disk
from tfmetareg.imaging.pair_table import leads_out
from tfmetareg.imaging.read import is_image, open_image, stem
from tfmetareg.types import ImagePair, Note
from tfrecords_builder.deformation import carry_points, perturb, random_displacement, warp
from tfrecords_builder.sources.base import (
    COLOUR,
    MODALITY,
    LazyPairs,
    Option,
    Request,
    SourceTask,
    existing_folder,
    number,
    source,
)

# Intensities up to this value are empty background.
_EMPTY = 1e-3
# Mean length of a displacement from an isotropic Gaussian, divided by its root mean square.
_MEAN_OF_RMS = math.sqrt(math.pi) / 2


def _share(flag: str, default: float, text: str, low: float = 0.0, high: float = 1.0) -> Option:
    settings = {
        "type": number(float, low, high),
        "default": default,
        "metavar": "X",
        "help": f"{text} (default: {default})",
    }
    return Option(flag, settings)


@source(
    "unpaired",
    summary="folder of single images; pairs come from known smooth deformations",
    options=(
        MODALITY,
        COLOUR,
        _share(
            "--displacement", 0.025, "mean displacement as a share of the width; 0.025 is 10 pixels of 400"
        ),
        _share("--smoothness", 0.08, "smoothness of the displacement as a share of the width", low=0.01),
        _share("--rotation", 2.0, "largest rotation in degrees", high=180.0),
        _share("--noise", 0.03, "standard deviation of the noise, as a share of the intensity range"),
        _share("--illumination", 0.1, "relative standard deviation of the smooth change of brightness"),
        Option(
            "--landmarks",
            {
                "type": number(int, 0),
                "default": 25,
                "metavar": "N",
                "help": "landmarks per pair, at most (default: 25)",
            },
        ),
        Option(
            "--labels",
            {
                "default": None,
                "metavar": "FOLDER",
                "help": "folder within the input with a label map named like each image, but for the "
                "ending (default: no labels)",
            },
        ),
    ),
)
def unpaired_tasks(request: Request) -> list[SourceTask]:
    """One task of all image files directly in the folder; files of one name but different endings are one
    subject.

    Raises:
        UserError: no folder, no image in it, or an image without a label map where there are to be some.
    """
    root = existing_folder(request.input)
    files = sorted(path for path in root.iterdir() if path.is_file() and is_image(path))
    if not files:
        raise UserError(
            f"{root}: no images in this folder; put files ending in {', '.join(FORMATS)} directly into it."
        )
    labels = _label_files(root, request.options["labels"], files)
    name = request.task or root.resolve().name
    pairs = LazyPairs(
        [functools.partial(_make_pairs, file, labels.get(file), request) for file in files], len(files)
    )
    return [SourceTask(name, request.role, request.options["modality"], pairs)]


def _label_files(root: Path, name: Optional[str], images: list[Path]) -> dict[Path, Path]:
    """The label map of each image: the file of its name in a folder of `root`. Empty without a folder."""
    if name is None:
        return {}
    folder = root / name_on_disk(root, name)
    if leads_out(name) or not folder.is_dir():
        raise UserError(f"`--labels` must be a folder within {root}, got `{name}`.")
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and is_image(path))
    present = {composed(stem(path)): path for path in files}
    missing = [image.name for image in images if composed(stem(image)) not in present]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{folder}: no label map named like {missing[0]}{more}; put one there for each image."
        )
    return {image: present[composed(stem(image))] for image in images}


def _make_pairs(file: Path, labels: Optional[Path], request: Request) -> Iterator[ImagePair]:
    others = ("modality", "colour", "labels")
    options = {name: value for name, value in request.options.items() if name not in others}
    with request.problems.collected():
        image = open_image(file)
        label_map = None if labels is None else open_labels(labels, image).pixels
        pixels = image.grey(request.options["colour"])
        pair = make_pair(pixels, file.name, seed=request.seed, labels=label_map, **options)
        notes = tuple(Note(image.name, text) for text in image.notes)
        yield dataclasses.replace(
            pair, moving_spacing=image.spacing, fixed_spacing=image.spacing, notes=notes
        )


def make_pair(
    image: np.ndarray,
    name: str,
    *,
    seed: int = 0,
    displacement: float = 0.025,
    smoothness: float = 0.08,
    rotation: float = 2.0,
    noise: float = 0.03,
    illumination: float = 0.1,
    landmarks: int = 25,
    labels: Optional[np.ndarray] = None,
) -> ImagePair:
    """Makes a pair with exact landmarks from one image; depends only on the image, name, seed and options.

    >>> import numpy as np
    >>> pair = make_pair(np.random.default_rng(0).random((64, 64)), "a.png", landmarks=5)
    >>> pair.subject, pair.moving.shape, pair.moving_landmarks.shape
    ('a', (64, 64), (5, 2))

    Args:
        image: (height, width), any real dtype.
        name: file name; it is the pair's key, and without its ending the subject.
        seed: seed of the deformation, noise and illumination.
        displacement: mean length of the smooth part of the displacement, as a share of the width.
        smoothness: standard deviation of the smooth part's Gaussian, as a share of the width.
        rotation: largest rotation, degrees.
        noise: standard deviation of the additive noise, in units of the intensity range,
            and of the multiplicative noise.
        illumination: relative standard deviation of the smooth gain.
        landmarks: largest number of landmarks.
        labels: integers (height, width), the image's label map; warped along, by nearest neighbour.

    Returns:
        The pair; images float32 (height, width) in [0, 1].
    """
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big"))
    image = stretch_contrast(image)
    width = image.shape[1]
    v = random_displacement(
        image.shape,
        rng,
        rms_px=displacement * width / _MEAN_OF_RMS,
        smoothness_px=smoothness * width,
        rotation_deg=rotation,
    )
    moving = _warp_mirrored(image, v)
    moving_points, fixed_points = matching_points(moving, v, landmarks)
    return ImagePair(
        key=name,
        subject=stem(Path(name)),
        moving=_perturb_signal(moving, rng, noise, illumination),
        fixed=_perturb_signal(image, rng, noise, illumination),
        moving_landmarks=moving_points,
        fixed_landmarks=fixed_points,
        moving_labels=None if labels is None else _warp_labels_mirrored(labels, v),
        fixed_labels=labels,
    )


def _perturb_signal(
    image: np.ndarray, rng: np.random.Generator, noise: float, illumination: float
) -> np.ndarray:
    """Adds noise and illumination, except on empty background such as that of a skull-stripped brain."""
    perturbed = perturb(image, rng, noise=noise, speckle=noise, illumination=illumination)
    return np.where(image > _EMPTY, perturbed, 0).astype(np.float32)


def stretch_contrast(image: np.ndarray) -> np.ndarray:
    """Scales linearly between the 0.1 and 99.9 percentiles, clipped to [0, 1]; float32."""
    low, high = np.percentile(image, [0.1, 99.9])
    if low == high:
        low, high = image.min(), image.max()
    return np.clip((image - np.float64(low)) / (float(high) - float(low)), 0, 1).astype(np.float32)


def _warp_mirrored(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Like `warp`, but continues the image by its mirror image instead of repeating its border."""
    margin = int(np.abs(displacement).max()) + 2
    padded = np.pad(displacement, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    warped = warp(np.pad(image, margin, mode="symmetric"), padded)[margin:-margin, margin:-margin]
    return np.clip(warped, 0, 1)


def _warp_labels_mirrored(labels: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Like `_warp_mirrored`, by nearest neighbour."""
    margin = int(np.abs(displacement).max()) + 2
    places = np.rint(np.indices(labels.shape) + np.moveaxis(displacement, -1, 0)).astype(int) + margin
    return np.pad(labels, margin, mode="symmetric")[tuple(places)]


def matching_points(
    moving: np.ndarray, displacement: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of `moving` and the corresponding points of `fixed`, well apart and inside both images.

    Args:
        moving: float32 (height, width), without noise.
        displacement: v of `moving(y) = fixed(y + v(y))`, (height, width, 2), pixels.
        count: largest number of points.

    Returns:
        Moving and fixed points, each float32 (n, 2), pixels, (row, column).
    """
    margin = max(2, min(moving.shape) // 40)
    corners = corner_peaks(
        corner_harris(moving, sigma=max(1.0, moving.shape[1] / 200)),
        min_distance=max(2, min(moving.shape) // 20),
        threshold_rel=0.001,
        exclude_border=margin,
    ).astype(np.float32)
    places = carry_points(corners, displacement)
    inside = ((places >= margin) & (places <= np.asarray(moving.shape) - 1 - margin)).all(axis=1)
    return corners[inside][:count], places[inside][:count]
