"""Preprocessing of image pairs before they become records; the defaults are the paper's."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from tfmetareg.errors import UserError
from tfmetareg.geometry.align import KINDS, align
from tfmetareg.geometry.frame import FrameMapping, centre_mapping, inside_image, resize_mapping
from tfmetareg.imaging.choices import COLOURS, FITS, INTENSITIES, PERCENTILES
from tfmetareg.imaging.image import check_image
from tfmetareg.imaging.intensity import CLAHE_CLIP_LIMIT, LEVELS, map_intensities, scale_by_dtype, unit_range
from tfmetareg.imaging.labels import label_codes
from tfmetareg.imaging.landmarks import check_inside
from tfmetareg.types import ImagePair

# To be raised with every change that gives other records: old and new records must not be mixed.
VERSION = 3


class MisfitError(UserError):
    """An image does not fit the records' frame.

    Attributes:
        problem: what is wrong, without the remedy, which applies to the builder's command line only.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Settings of the preprocessing.

    >>> Preprocessing((128, 128), intensity="clahe").describe()["clahe_clip_limit"]
    0.01

    Attributes:
        image_size: (height, width) of the records.
        fit: "resize" stretches the image to that size; "pad" and "crop" keep the pixel size and centre the
            image: "pad" refuses a larger image, "crop" cuts it.
        intensity: "equalize" (histogram equalisation), "clahe" (adaptive, with limited contrast),
            "percentile" (linear scaling), or "none" (8 and 16 bit values and floats in [0, 1] unchanged).
        percentiles: (low, high) that become black and white; not used for "none".
        spacing: pixel size in mm that each image is resampled to; None for no resampling. Not with "resize".
        align: alignment of the moving to the fixed image: "none", "rigid" or "affine". The record holds the
            moving image unaligned, and the alignment for the reader to apply.
        colour: grey value of colour images: "green" or "luminance"; None for a source without colour images.
    """

    image_size: tuple[int, int] = (400, 400)
    fit: str = "resize"
    intensity: str = "equalize"
    percentiles: tuple[float, float] = PERCENTILES
    spacing: Optional[float] = None
    align: str = "none"
    colour: Optional[str] = COLOURS[0]

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            UserError: a setting out of its range, or two that exclude each other.
        """
        for name, known in (("fit", FITS), ("intensity", INTENSITIES), ("align", KINDS)):
            if getattr(self, name) not in known:
                raise UserError(f"`{name}` must be one of {', '.join(known)}, got `{getattr(self, name)}`.")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise UserError(
                f"`percentiles` must be LOW below HIGH, both from 0 to 100, got {low:g} and {high:g}; "
                "change them."
            )
        if self.spacing is not None and self.fit == "resize":
            raise UserError(
                "`--spacing` keeps a pixel size, which resizing would change; add `--fit crop` or `pad`."
            )

    def describe(self) -> dict[str, Any]:
        """The settings as stored in the manifest; values are plain JSON."""
        scaled = self.intensity != "none"
        return {
            "version": VERSION,
            "fit": self.fit,
            "interpolation": "bilinear, antialiased, half-pixel centres",
            "intensity": self.intensity,
            "percentiles": list(self.percentiles) if scaled else None,
            "equalize_levels": LEVELS if self.intensity == "equalize" else None,
            "clahe_clip_limit": CLAHE_CLIP_LIMIT if self.intensity == "clahe" else None,
            "spacing_mm": self.spacing,
            "align": self.align,
            "colour": self.colour,
        }

    @classmethod
    def from_description(cls, image_shape: Sequence[int], description: dict[str, Any]) -> Preprocessing:
        """Inverse of `describe`. If the records come from no colour images, `colour` is the default.

        Args:
            image_shape: (height, width).
            description: as returned by `describe`.

        Raises:
            UserError: the description is of another version of the preprocessing.
        """
        if description.get("version") != VERSION:
            raise UserError(
                f"preprocessing is of version {description.get('version')}, this program has {VERSION}; "
                "build the records again."
            )
        return cls(
            image_size=(image_shape[0], image_shape[1]),
            fit=description["fit"],
            intensity=description["intensity"],
            percentiles=tuple(description["percentiles"] or PERCENTILES),
            spacing=description["spacing_mm"],
            align=description["align"],
            colour=description["colour"] or COLOURS[0],
        )


def prepare_pair(pair: ImagePair, preprocessing: Preprocessing) -> ImagePair:
    """Brings both images of a pair to the records' size and intensities, and aligns them if set.

    Each image is resampled from its own size, with its landmarks, labels and
    spacing. A landmark that is cut off with the border of one image is left
    out of both; a line on stderr reports it.

    >>> import numpy as np
    >>> moving, fixed = np.random.default_rng(0).random((2, 40, 60))
    >>> pair = prepare_pair(ImagePair("a:b", "eye1", moving, fixed), Preprocessing((32, 32)))
    >>> pair.moving.shape, pair.moving.dtype
    ((32, 32), dtype('uint8'))

    Args:
        pair: raw images (height, width), any real dtype.
        preprocessing: settings.

    Returns:
        The pair with uint8 images of `image_size`, the codes of their labels, and the alignment of the moving
        image, not applied. `moving_like_fixed` is treated as the moving image.

    Raises:
        UserError: an image that is not 2D, not finite or constant, does not
            fit, or has an unknown spacing; landmarks outside their image, or
            different numbers of landmarks; more labels than a record holds.
    """
    check_pair(pair)
    changed: dict[str, Any] = {}
    for name in ("moving", "fixed"):
        image, labels = getattr(pair, name), getattr(pair, f"{name}_labels")
        spacing, where = getattr(pair, f"{name}_spacing"), f"pair {pair.key}, {name} image"
        changed[name], mapping = frame_image(image, preprocessing, where, spacing)
        changed[f"{name}_landmarks"] = mapping.points(getattr(pair, f"{name}_landmarks"))
        if spacing is not None:
            changed[f"{name}_spacing"] = mapping.spacing(spacing)
        if labels is not None:
            changed[f"{name}_labels"] = mapping.labels(labels)
    if pair.moving_like_fixed is not None:
        where = f"pair {pair.key}, moving image in the fixed image's contrast"
        changed["moving_like_fixed"] = prepare_image(
            pair.moving_like_fixed, preprocessing, where, pair.moving_spacing
        )
    if pair.moving_labels is not None and pair.fixed_labels is not None:
        codes = label_codes(changed["moving_labels"], changed["fixed_labels"], f"pair {pair.key}")
        changed["moving_labels"], changed["fixed_labels"], changed["label_values"] = codes
    prepared = _with_landmarks_inside(dataclasses.replace(pair, **changed))
    alignment = align(prepared.moving, prepared.fixed, preprocessing.align)
    return dataclasses.replace(prepared, alignment=alignment)


def prepare_image(
    image: np.ndarray,
    preprocessing: Preprocessing,
    where: str = "image",
    spacing: Optional[tuple[float, float]] = None,
) -> np.ndarray:
    """Brings a raw image to the records' size and intensities.

    Args:
        image: (height, width), any real dtype, finite, not constant.
        preprocessing: settings.
        where: name of the image in an error.
        spacing: pixel size (row, column) in mm, if known.

    Returns:
        uint8, `image_size`.

    Raises:
        UserError: the image is constant after resampling, does not fit, or
            its spacing is needed and unknown.
    """
    return frame_image(image, preprocessing, where, spacing)[0]


def frame_image(
    image: np.ndarray,
    preprocessing: Preprocessing,
    where: str = "image",
    spacing: Optional[tuple[float, float]] = None,
) -> tuple[np.ndarray, FrameMapping]:
    """Like `prepare_image`; also returns the mapping of the image's points to the result."""
    mapping = image_geometry(image.shape, preprocessing, spacing, where)
    unit = scale_by_dtype(image, where) if preprocessing.intensity == "none" else unit_range(image)
    content = mapping.resample(unit)
    check_image(content, f"{where}, brought to {preprocessing.image_size} by `{preprocessing.fit}`")
    greys = map_intensities(content, preprocessing.intensity, preprocessing.percentiles)
    return mapping.pad(np.rint(255 * greys).astype(np.uint8)), mapping


def image_geometry(
    shape: tuple[int, ...],
    preprocessing: Preprocessing,
    spacing: Optional[tuple[float, float]] = None,
    where: str = "image",
) -> FrameMapping:
    """The mapping of an image to the records' frame; arguments and errors as `prepare_image`."""
    frame = preprocessing.image_size
    if preprocessing.fit == "resize":
        return resize_mapping(shape, frame)
    scale = None
    if preprocessing.spacing is not None:
        if spacing is None:
            raise MisfitError(
                f"{where}: pixel size unknown, which the records' spacing needs",
                "give it (for `pairs` in the columns `moving_spacing,fixed_spacing`), or build without "
                "`--spacing`.",
            )
        scale = spacing[0] / preprocessing.spacing, spacing[1] / preprocessing.spacing
    covered = [round(side * factor) for side, factor in zip(shape, scale or (1, 1))]
    if preprocessing.fit == "pad" and (covered[0] > frame[0] or covered[1] > frame[1]):
        raise MisfitError(
            f"{where}: {covered[0]} x {covered[1]} pixels are more than the records' {frame[0]} x {frame[1]}",
            "raise `--image-size`, or use `--fit crop`.",
        )
    return centre_mapping(shape, frame, scale)


def _with_landmarks_inside(pair: ImagePair) -> ImagePair:
    kept = inside_image(pair.moving_landmarks, pair.moving.shape) & inside_image(
        pair.fixed_landmarks, pair.fixed.shape
    )
    if kept.all():
        return pair
    print(
        f"note: pair {pair.key}: {(~kept).sum()} of {len(kept)} landmarks left out: cut off with the border "
        "of an image.",
        file=sys.stderr,
    )
    return dataclasses.replace(
        pair, moving_landmarks=pair.moving_landmarks[kept], fixed_landmarks=pair.fixed_landmarks[kept]
    )


def check_pair(pair: ImagePair) -> None:
    """Refuses a pair that cannot become a record.

    Raises:
        UserError: an image that `check_image` refuses, landmarks outside their image, or different numbers of
            landmarks.
        ValueError: labels or `moving_like_fixed` of another shape than their image, which is a bug of the
            source.
    """
    for name in ("moving", "fixed"):
        check_image(getattr(pair, name), f"pair {pair.key}, {name} image")
        check_inside(
            getattr(pair, f"{name}_landmarks"),
            getattr(pair, name).shape,
            f"pair {pair.key}, {name} landmarks",
        )
        labels = getattr(pair, f"{name}_labels")
        if labels is not None and labels.shape != getattr(pair, name).shape:
            raise ValueError(f"pair {pair.key}: {name} labels must have the shape of the image.")
    if pair.moving_like_fixed is not None:
        check_image(pair.moving_like_fixed, f"pair {pair.key}, moving image in the fixed image's contrast")
        if pair.moving_like_fixed.shape != pair.moving.shape:
            raise ValueError(f"pair {pair.key}: moving_like_fixed must have the shape of the moving image.")
    if len(pair.moving_landmarks) != len(pair.fixed_landmarks):
        raise UserError(
            f"pair {pair.key}: {len(pair.moving_landmarks)} moving and {len(pair.fixed_landmarks)} fixed "
            "landmarks; row i of one must match row i of the other."
        )
