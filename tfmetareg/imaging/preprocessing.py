"""What is done to each pair before it becomes a record: by default, as the paper does."""

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
from tfmetareg.imaging.intensity import CLAHE_CLIP_LIMIT, LEVELS, as_it_is, map_intensities, unit_range
from tfmetareg.imaging.read import check_image
from tfmetareg.imaging.tables import check_inside
from tfmetareg.types import ImagePair

# Raised whenever the same input gives other records, so that old and new ones are never mixed.
VERSION = 3


class MisfitError(UserError):
    """An image that cannot be brought to the records' frame: what is wrong, and what the builder can do."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to each image, and then to the pair.

    Attributes:
        image_size: (height, width) of the records.
        fit: "resize" stretches the image to that size; "pad" and "crop" keep its pixels and put its middle
            into the records' middle: "pad" refuses a larger image, "crop" cuts it.
        intensity: "equalize" (histogram), "clahe" (adaptive, limited contrast), "percentile" (scaling
            alone), or "none" (8 and 16 bit values and floats in [0, 1] as they are).
        percentiles: (low, high) that become black and white; not used for "none".
        spacing: pixel size in mm that each image is resampled to, None to leave it; not with "resize".
        align: "none", or "rigid" or "affine" alignment of the moving to the fixed image, for the reader to
            apply: the record keeps the moving image as it is, and the alignment beside it.
        colour: what stands for a colour image when it is read; None for records made of none.
    """

    image_size: tuple[int, int] = (400, 400)
    fit: str = "resize"
    intensity: str = "equalize"
    percentiles: tuple[float, float] = PERCENTILES
    spacing: Optional[float] = None
    align: str = "none"
    colour: Optional[str] = COLOURS[0]

    def __post_init__(self) -> None:
        """
        Raises:
            UserError: an option out of its range, or two that exclude each other.
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
        """What the manifest tells about it; its values are plain JSON."""
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
    def from_description(cls, image_shape: Sequence[int], told: dict[str, Any]) -> Preprocessing:
        """Inverse of `describe`, with a `colour` for new images where the records were made of none.

        Raises:
            UserError: told by another version of the preprocessing.
        """
        if told.get("version") != VERSION:
            raise UserError(
                f"preprocessing is of version {told.get('version')}, this program has {VERSION}; "
                "build the records again."
            )
        return cls(
            image_size=tuple(image_shape),
            fit=told["fit"],
            intensity=told["intensity"],
            percentiles=tuple(told["percentiles"] or PERCENTILES),
            spacing=told["spacing_mm"],
            align=told["align"],
            colour=told["colour"] or COLOURS[0],
        )


def prepare_pair(pair: ImagePair, preprocessing: Preprocessing) -> ImagePair:
    """Brings both images of a pair to the records' size and intensities; finds their alignment if asked to.

    Images of different size are each brought there by themselves; landmarks,
    labels and spacing follow. Landmarks that are cut off with the border of
    either image are left out of both, and a line on stderr says so.

    Args:
        pair: raw images (height, width), any real dtype.
        preprocessing: what to do.

    Returns:
        The pair with uint8 images of `image_size`, and the alignment of the moving one, not applied.

    Raises:
        UserError: an image that is not 2D, finite and of varying intensity,
            does not fit or is of unknown spacing, or landmarks outside their
            image or not equal in number.
    """
    check_pair(pair)
    changed: dict[str, Any] = {}
    for name in ("moving", "fixed"):
        image, labels = getattr(pair, name), getattr(pair, f"{name}_labels")
        spacing, where = getattr(pair, f"{name}_spacing"), f"pair {pair.key}, {name} image"
        geometry = image_geometry(image.shape, preprocessing, spacing, where)
        changed[name] = _prepared(image, geometry, preprocessing, where)
        changed[f"{name}_landmarks"] = geometry.points(getattr(pair, f"{name}_landmarks"))
        if spacing is not None:
            changed[f"{name}_spacing"] = geometry.spacing(spacing)
        if labels is not None:
            changed[f"{name}_labels"] = geometry.labels(labels)
    prepared = _with_landmarks_inside(dataclasses.replace(pair, **changed))
    alignment = align(prepared.moving, prepared.fixed, preprocessing.align)
    return dataclasses.replace(prepared, alignment=alignment)


def prepare_image(
    image: np.ndarray,
    preprocessing: Preprocessing,
    where: str = "image",
    spacing: Optional[tuple[float, float]] = None,
) -> np.ndarray:
    """uint8 `image_size` of a raw image: brought to size, intensities mapped, then padded.

    Args:
        image: (height, width), any real dtype, finite, not constant.
        preprocessing: what to do.
        where: names the image in an error.
        spacing: pixel size (row, column) in mm, if known.

    Raises:
        UserError: `where`, if the image is constant once it has that size,
            does not fit, or its spacing is needed and unknown.
    """
    return _prepared(image, image_geometry(image.shape, preprocessing, spacing, where), preprocessing, where)


def image_geometry(
    shape: tuple[int, ...],
    preprocessing: Preprocessing,
    spacing: Optional[tuple[float, float]] = None,
    where: str = "image",
) -> FrameMapping:
    """How an image of that shape comes to the records' size; arguments and errors as `prepare_image`."""
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


def _prepared(
    image: np.ndarray, geometry: FrameMapping, preprocessing: Preprocessing, where: str
) -> np.ndarray:
    unit = as_it_is(image, where) if preprocessing.intensity == "none" else unit_range(image)
    content = geometry.resample(unit)
    check_image(content, f"{where}, brought to {preprocessing.image_size} by `{preprocessing.fit}`")
    unit = map_intensities(content, preprocessing.intensity, preprocessing.percentiles)
    return geometry.pad(np.rint(255 * unit).astype(np.uint8))


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
        UserError: which pair, and what is wrong with it.
        ValueError: labels that do not fit: those are a source's own work, and no mistake of the user.
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
    if len(pair.moving_landmarks) != len(pair.fixed_landmarks):
        raise UserError(
            f"pair {pair.key}: {len(pair.moving_landmarks)} moving and {len(pair.fixed_landmarks)} fixed "
            "landmarks; row i of one must match row i of the other."
        )
