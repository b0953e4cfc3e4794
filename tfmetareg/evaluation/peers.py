"""What a user would pick instead of a network: classical registration, optimised anew for every pair.

Both find an affine transform first and deform from there, and start from the images as they are.
They come with the extra `peers`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmetareg.errors import UserError
from tfmetareg.geometry.warp import warp
from tfmetareg.types import PairBatch

# moving, fixed: (height, width) float32 -> displacement on the fixed grid, (height, width, 2), pixels.
FindDisplacement = Callable[[np.ndarray, np.ndarray], np.ndarray]


def peer(name: str) -> Callable[[PairBatch], tuple[tf.Tensor, tf.Tensor]]:
    """The peer of that name, to be measured as a network is.

    Returns:
        (1, height, width, 1) pair, float32, not aligned -> warped, displacement. Where the peer gives up,
        the displacement is zero and a line on stderr says why.

    Raises:
        UserError: the peer's package is not installed.
    """
    package, make = _PEERS[name]
    try:
        find = make()
    except (ImportError, AttributeError):  # `itk` may be there without elastix.
        raise UserError(
            f"`{name}` needs the package {package}, which is not installed: `pip install 'tfmetareg[peers]'`."
        ) from None

    def displacement(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        try:
            found = find(moving[0, ..., 0], fixed[0, ..., 0])
        except RuntimeError as error:
            print(f"note: {name} gives up on a pair: {' '.join(str(error).split())[-200:]}", file=sys.stderr)
            found = np.zeros([*fixed.shape[1:3], 2])
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{name} fails with {told}") from error
        return np.ascontiguousarray(found[None], np.float32)

    def register(pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.constant(displacement(pair.moving.numpy(), pair.fixed.numpy()))
        return warp(pair.moving, found), found

    return register


def _elastix() -> FindDisplacement:
    """elastix, affine and then B-splines, by normalized correlation: both images are of one modality.

    elastix's default parameters otherwise, without their bending energy; a final grid of 16 pixels, and
    B-splines at full resolution alone. At the coarser ones, where vessels are gone, they undo what the affine
    transform has found.
    """
    import itk

    stages = itk.ParameterObject.New()
    for transform, resolutions in (("affine", 4), ("bspline", 1)):
        stage = stages.GetDefaultParameterMap(transform, resolutions, 16.0)
        stage["Registration"] = ["MultiResolutionRegistration"]
        stage["Metric"] = ["AdvancedNormalizedCorrelation"]
        stage["RandomSeed"] = ["1"]
        stages.AddParameterMap(stage)

    def find(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        images = [itk.image_from_array(image) for image in (fixed, moving)]
        _, transform = itk.elastix_registration_method(*images, parameter_object=stages, log_to_console=False)
        with tempfile.TemporaryDirectory() as folder:  # It writes the field to a file, too.
            field = itk.transformix_deformation_field(images[1], transform, output_directory=folder)
        return itk.array_from_image(field)[..., ::-1]  # (x, y)

    return find


def _syn() -> FindDisplacement:
    """ANTs' `SyN`: affine and then symmetric diffeomorphic, by mutual information.

    ANTs' defaults otherwise, but it starts from where the images are, and the affine step takes all pixels:
    centres of mass, the default start, say nothing about two views of a retina, and a fifth of the pixels,
    the default, is few in 2D.
    """
    import ants

    def find(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        moving, fixed = ants.from_numpy(moving), ants.from_numpy(fixed)
        with tempfile.TemporaryDirectory() as folder:
            prefix = str(Path(folder) / "syn")
            found = ants.registration(
                fixed,
                moving,
                "SyN",
                initial_transform="Identity",
                aff_random_sampling_rate=1.0,
                outprefix=prefix,
                random_seed=1,
            )
            field = ants.apply_transforms(fixed, moving, found["fwdtransforms"], compose=prefix)
            return ants.image_read(field).numpy()  # Its first axis is the array's: (row, column).

    return find


_PEERS = {"elastix": ("itk-elastix", _elastix), "syn": ("antspyx", _syn)}
PEERS = tuple(_PEERS)
