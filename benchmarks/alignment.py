"""`python -m benchmarks.alignment --data DIR`: the affine alignment beside a plain SimpleITK one.

The sets are those of real images to develop on (`DIR`): repeat scans of eyes and stained sections with
landmarks, discs with labels, brain slices of two subjects, and slices with a known warp: T2w and FLAIR onto
T1w of one head, abdomen CT. Both methods get the same images, as the builder prepares them, and one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from scipy import ndimage

from benchmarks import machine
from tfmetareg.evaluation.overlap import dice
from tfmetareg.files import write_text
from tfmetareg.geometry.affine import points_to_moving, resample
from tfmetareg.geometry.align import align
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_pair
from tfmetareg.imaging.read import read_image
from tfmetareg.imaging.volumes import canonical, open_nifti
from tfmetareg.registration.inputs import find_pairs
from tfmetareg.types import ImagePair, no_alignment

Align = Callable[[np.ndarray, np.ndarray], np.ndarray]
_CHANNELS = {"FLAIR": 0, "T1w": 1, "T2w": 3}
# Shares of the height, of the volumes' slices and of the known warps: their shift, and what bends on top.
_SLICES = (0.35, 0.42, 0.5, 0.58)
_SHIFT, _BEND = 0.06, 0.01


class Scale(NamedTuple):
    """What a set is measured by: a name for the table, and whether less is better."""

    name: str
    less_is_better: bool


PIXELS, DICE, NCC = Scale("px", True), Scale("Dice", False), Scale("NCC", False)


class PairSet(NamedTuple):
    """A set of prepared pairs and what measures their alignment."""

    name: str
    scale: Scale
    pairs: Sequence[ImagePair]


def plain_simpleitk(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """What a user writes down first: centres of mass, Mattes mutual information, three levels.

    Args:
        moving, fixed: (height, width).

    Returns:
        (2, 3), as `align` gives it.
    """
    images = [sitk.GetImageFromArray(image.astype(np.float32)) for image in (fixed, moving)]
    start = sitk.CenteredTransformInitializer(
        *images, sitk.AffineTransform(2), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(start, inPlace=False)
    transform = method.Execute(*images)
    origin, x, y = (np.array(transform.TransformPoint(point))[::-1] for point in ((0, 0), (1, 0), (0, 1)))
    return np.column_stack([y - origin, x - origin, origin])


def real_sets(data: Path, preprocessing: Preprocessing) -> Iterator[PairSet]:
    """Yields the sets of the folder of real images."""

    def prepared(pairs: Sequence[ImagePair]) -> list[ImagePair]:
        return [prepare_pair(pair, preprocessing) for pair in pairs]

    yield PairSet("retina (OCTA), repeat scans", PIXELS, prepared(_listed(data / "octa_scp")))
    yield PairSet("imaginal discs", DICE, prepared(_discs(data / "disc")))
    yield PairSet("histology, other stain", PIXELS, prepared(_listed(data / "histology")))
    yield PairSet("brain T1w, two subjects", NCC, prepared(_subjects(data / "oasis2d", 20)))
    heads = sorted((data / "Task01_BrainMS" / "imagesTr").glob("*.nii.gz"))
    for channel in ("T2w", "FLAIR"):
        pairs = _warped_slices(heads, _CHANNELS[channel], _CHANNELS["T1w"])
        yield PairSet(f"brain {channel} onto T1w, known warp", PIXELS, prepared(pairs))
    trunks = sorted((data / "Task03_AbdomenCT" / "imagesTr").glob("*.nii.gz"))
    yield PairSet("abdomen CT, known warp", PIXELS, prepared(_warped_slices(trunks, 0, 0)))


def _listed(folder: Path) -> list[ImagePair]:
    return [files.read("green").images for files in find_pairs(pairs=str(folder))]


def _discs(folder: Path) -> list[ImagePair]:
    return [files.read("green").images for files in find_pairs(pairs=str(folder / "labels.csv"))]


def _subjects(folder: Path, count: int) -> list[ImagePair]:
    images = [read_image(file) for file in sorted(folder.glob("*.png"))[: count + 1]]
    return [
        ImagePair(f"{number}", f"{number}", *images[number : number + 2]) for number in range(len(images) - 1)
    ]


def _warped_slices(volumes: Sequence[Path], moving: int, fixed: int) -> list[ImagePair]:
    """Axial slices, the moving channel warped; its warp gives the landmarks, on what is not background."""
    rng = np.random.default_rng(0)
    pairs = []
    for path in volumes:
        channels = [canonical(open_nifti(path), channel) for channel in (moving, fixed)]
        for share in _SLICES:
            index = int(share * channels[0].voxels.shape[2])
            images = [np.maximum(volume.axial(index), volume.voxels.min()) for volume in channels]
            images = [np.float32(np.clip(image, *np.percentile(image, [1, 99.9]))) for image in images]
            pairs.append(_warped(f"{path.name}:{index}", images[0], images[1], rng))
    return pairs


def _warped(key: str, moving: np.ndarray, fixed: np.ndarray, rng: np.random.Generator) -> ImagePair:
    """Moves one image of an aligned pair by a small affine map and a smooth bend."""
    height = fixed.shape[0]
    grid = np.stack(np.mgrid[: moving.shape[0], : moving.shape[1]], -1).astype(np.float32)
    centre = np.array(moving.shape) / 2
    matrix = np.eye(2) + rng.uniform(-0.08, 0.08, (2, 2))
    bend = [ndimage.gaussian_filter(rng.normal(size=moving.shape), 0.1 * height) for _ in range(2)]
    bend = _BEND * height * np.stack([each / each.std() for each in bend], -1)
    sources = (grid - centre) @ matrix.T + centre + rng.uniform(-_SHIFT, _SHIFT, 2) * height + bend
    warped = ndimage.map_coordinates(moving, np.moveaxis(sources, -1, 0), order=1, mode="nearest")
    inside = (warped > warped.min() + 0.1 * np.ptp(warped)) & (sources >= 0).all(-1)
    inside &= (sources <= np.array(fixed.shape) - 1).all(-1)
    chosen = np.flatnonzero(inside)[:: max(1, inside.sum() // 200)]
    points, partners = (each.reshape(-1, 2)[chosen].astype(np.float32) for each in (grid, sources))
    return ImagePair(key, key, warped, fixed, moving_landmarks=points, fixed_landmarks=partners)


def quality(pair: ImagePair, alignment: np.ndarray, scale: Scale) -> float:
    """How well an alignment fits a pair: mean landmark distance in pixels, or mean Dice, or the NCC."""
    if scale == PIXELS:
        carried = points_to_moving(pair.fixed_landmarks, alignment)
        return float(np.linalg.norm(carried - pair.moving_landmarks, axis=1).mean())
    if scale == NCC:
        return float(np.corrcoef(resample(pair.moving, alignment).ravel(), pair.fixed.ravel())[0, 1])
    codes = [code for code in np.unique(pair.fixed_labels) if code]
    matrix, shift = alignment[:, :2], alignment[:, 2]
    carried = ndimage.affine_transform(pair.moving_labels, matrix, shift, order=0)
    return float(np.mean([dice(carried == code, pair.fixed_labels == code) for code in codes]))


class Row(NamedTuple):
    """One method on one set: each pair's quality, the median processor time in ms, pairs left as they are."""

    qualities: list[float]
    milliseconds: float
    unmoved: list[str]


def measure(found: PairSet, method: Align) -> Row:
    """Aligns each pair of a set."""
    alignments, seconds = [], []
    for pair in found.pairs:
        began = time.process_time()
        alignments.append(method(pair.moving, pair.fixed))
        seconds.append(time.process_time() - began)
    qualities = [quality(pair, each, found.scale) for pair, each in zip(found.pairs, alignments)]
    unmoved = [
        pair.key for pair, each in zip(found.pairs, alignments) if np.array_equal(each, no_alignment())
    ]
    return Row(qualities, 1000 * float(np.median(seconds)), unmoved)


METHODS: dict[str, Align] = {
    "as they are": lambda moving, fixed: no_alignment(),
    "SimpleITK": plain_simpleitk,
    "tfmetareg": align,
}


def summed_up(qualities: Sequence[float], scale: Scale) -> list[str]:
    """Cells of a table: mean, median and worst pair."""
    worst = max(qualities) if scale.less_is_better else min(qualities)
    digits = 2 if scale.less_is_better else 3
    return [f"{each:.{digits}f}" for each in (np.mean(qualities), np.median(qualities), worst)]


def table(sets: Sequence[PairSet], rows: Sequence[dict[str, Row]]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| set | pairs | by | method | mean | median | worst | CPU ms per pair | nothing found |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for found, by_method in zip(sets, rows):
        for name, row in by_method.items():
            timed = ["-", "-"] if name == "as they are" else [f"{row.milliseconds:.0f}", len(row.unmoved)]
            cells = [found.name, len(found.pairs), found.scale.name, name]
            cells += summed_up(row.qualities, found.scale) + timed
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Aligns all sets; prints the table, and writes it as a page.

    Returns:
        0.
    """
    options = _parser().parse_args(arguments)
    described = machine.describe()
    preprocessing = Preprocessing((options.size, options.size), intensity=options.intensity)
    sets, rows = [], []
    for found in real_sets(options.data, preprocessing):
        sets.append(found)
        rows.append({name: measure(found, method) for name, method in METHODS.items()})
        print(table(sets[-1:], rows[-1:]), file=sys.stderr, flush=True)
    page = (
        "# Alignment\n\n"
        f"`python -m benchmarks.alignment --data DIR --intensity {options.intensity}`, "
        f"{time.strftime('%Y-%m-%d')}, on {described['cpu']}, {described['cores']} shared cores, one thread "
        f'each; images of {options.size}×{options.size}. "px" is the distance of the landmarks (of a known '
        'warp, of the points that it gives: what bends is no part of an affine map), "nothing found" counts '
        "the pairs left as they are. SimpleITK is the plain affine of "
        "`benchmarks.alignment.plain_simpleitk`: centres of mass, Mattes mutual information, three levels."
        f"\n\n{table(sets, rows)}"
    )
    print(page)
    if options.output:
        write_text(options.output, page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.alignment", description=str(__doc__).split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--size", type=int, default=320, help="side of the images (default: 320)")
    parser.add_argument("--intensity", default="equalize", help="as for the builder (default: equalize)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="page to write the table to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
