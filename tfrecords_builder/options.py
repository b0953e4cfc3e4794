"""Preprocessing as it is asked for on the command line; knows its words without loading TensorFlow."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tfmetareg.errors import UserError
from tfmetareg.geometry.align import KINDS
from tfmetareg.imaging.choices import FITS, INTENSITIES, PERCENTILES
from tfrecords_builder.sources.base import Request, number

if TYPE_CHECKING:
    from tfmetareg.imaging.preprocessing import Preprocessing


def add_preprocessing_options(group: argparse._ArgumentGroup) -> None:
    """Adds them to a group of a parser."""
    group.add_argument(
        "--fit",
        choices=FITS,
        default="resize",
        help="stretch images to --image-size (default), or keep their pixels: pad refuses larger images, "
        "crop cuts them; both keep the middle in the middle",
    )
    group.add_argument(
        "--intensity",
        choices=INTENSITIES,
        default="equalize",
        help="equalise the histogram (default), adaptively with limited contrast (clahe), scale between two "
        "percentiles, or keep 8 and 16 bit values as they are",
    )
    group.add_argument(
        "--percentiles",
        nargs=2,
        type=number(float, 0, 100),
        metavar=("LOW", "HIGH"),
        help="what becomes black and white before anything else (default: 0.1 99.9)",
    )
    group.add_argument(
        "--spacing",
        type=number(float, 1e-6),
        metavar="MM",
        help="resample images to pixels of that size; needs --fit crop or pad, and known pixel sizes",
    )
    group.add_argument(
        "--align",
        choices=KINDS,
        default="none",
        help="find the alignment of the moving image, for training and evaluation to apply (default: none)",
    )


def requested_preprocessing(options: argparse.Namespace, request: Request) -> Preprocessing:
    """What the parsed options ask for.

    Raises:
        UserError: options that exclude each other.
    """
    from tfmetareg.imaging.preprocessing import Preprocessing

    if options.percentiles and options.intensity == "none":
        raise UserError("`--percentiles` has no use with `--intensity none`; leave one of them out.")
    return Preprocessing(
        image_size=request.image_size,
        fit=options.fit,
        intensity=options.intensity,
        percentiles=tuple(options.percentiles or PERCENTILES),
        spacing=options.spacing,
        align=options.align,
        colour=request.options.get("colour"),
    )
