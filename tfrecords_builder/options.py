"""The command line's preprocessing options. Parsing them loads no TensorFlow."""

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
    """Adds the preprocessing options to a parser's group."""
    group.add_argument(
        "--fit",
        choices=FITS,
        default="resize",
        help="stretch images to --image-size (default), or keep their pixel size and centre them: pad "
        "refuses larger images, crop cuts them",
    )
    group.add_argument(
        "--intensity",
        choices=INTENSITIES,
        default="equalize",
        help="histogram equalisation (default), adaptive equalisation with limited contrast (clahe), linear "
        "scaling between two percentiles, or 8 and 16 bit values unchanged (none)",
    )
    group.add_argument(
        "--percentiles",
        nargs=2,
        type=number(float, 0, 100),
        metavar=("LOW", "HIGH"),
        help="intensity percentiles that become black and white, ahead of the rest (default: 0.1 99.9)",
    )
    group.add_argument(
        "--spacing",
        type=number(float, 1e-6),
        metavar="MM",
        help="resample images to this pixel size; needs --fit crop or pad, and known pixel sizes",
    )
    group.add_argument(
        "--align",
        choices=KINDS,
        default="none",
        help="store an alignment of the moving image, which training and evaluation apply; pairs where "
        "none agrees better than the images as they are keep them, and are named (default: none)",
    )


def requested_preprocessing(options: argparse.Namespace, request: Request) -> Preprocessing:
    """The preprocessing that the parsed options describe.

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
