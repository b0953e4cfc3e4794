"""Classical registration for comparison: elastix and ANTs, which optimise anew for every pair.

Both first find an affine transform, starting from the identity, and then a deformation. They need the extra
`peers`.
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
    """Returns a peer's registration function, for `Evaluator`.

    Args:
        name: one of `PEERS`.

    Returns:
        A function of an unaligned pair, (1, height, width, 1) float32 each, that returns warped and
        displacement. If the peer fails on a pair, the displacement is zero and a line on stderr says why.

    Raises:
        UserError: the package of the peer is not installed.
    """
    package, load = _PEERS[name]
    try:
        find_displacement = load()
    except (ImportError, AttributeError):  # `itk` may be installed without elastix.
        raise UserError(
            f"`{name}` needs the package {package}, which is not installed: `pip install 'tfmetareg[peers]'`."
        ) from None

    def displacement(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        try:
            field = find_displacement(moving[0, ..., 0], fixed[0, ..., 0])
        except RuntimeError as error:
            print(f"note: {name} gives up on a pair: {' '.join(str(error).split())[-200:]}", file=sys.stderr)
            field = np.zeros([*fixed.shape[1:3], 2])
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{name} fails with {reason}") from error
        return np.ascontiguousarray(field[None], np.float32)

    def register(pair: PairBatch) -> tuple[tf.Tensor, tf.Tensor]:
        field = tf.constant(displacement(pair.moving.numpy(), pair.fixed.numpy()))
        return warp(pair.moving, field), field

    return register


def _elastix() -> FindDisplacement:
    """elastix: affine, then B-splines, by normalized correlation, since both images have one modality.

    The other parameters are elastix's defaults, except: no bending energy, a final grid spacing of 16
    pixels, and B-splines at full resolution only. At coarser resolutions, where vessels vanish, the B-splines
    would undo the affine transform.
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
        with tempfile.TemporaryDirectory() as folder:  # transformix also writes the field to a file.
            field = itk.transformix_deformation_field(images[1], transform, output_directory=folder)
        return itk.array_from_image(field)[..., ::-1]  # (x, y)

    return find


def _syn() -> FindDisplacement:
    """ANTs' `SyN`: affine, then symmetric diffeomorphic, by mutual information.

    The other parameters are ANTs' defaults, with two exceptions. It starts from the identity: centres of
    mass, the default, mean nothing for two views of a retina. The affine step uses all pixels: a fifth of
    them, the default, is too few in 2D.
    """
    import ants

    def find(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        moving, fixed = ants.from_numpy(moving), ants.from_numpy(fixed)
        with tempfile.TemporaryDirectory() as folder:
            prefix = str(Path(folder) / "syn")
            registration = ants.registration(
                fixed,
                moving,
                "SyN",
                initial_transform="Identity",
                aff_random_sampling_rate=1.0,
                outprefix=prefix,
                random_seed=1,
            )
            field = ants.apply_transforms(fixed, moving, registration["fwdtransforms"], compose=prefix)
            return ants.image_read(field).numpy()  # ANTs' first axis is the array's first: (row, column).

    return find


_PEERS = {"elastix": ("itk-elastix", _elastix), "syn": ("antspyx", _syn)}
PEERS = tuple(_PEERS)
