"""Peer (b): voxelmorph 0.2's PyTorch backend in its own environment; Reptile by copies of the state dict.

Two of the backend's losses need help in order to run here at all; what they compute stays the same.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import images
from benchmarks.contenders.voxelmorph_peer import (
    LEARNING_RATE,
    OUTER_RATE,
    SMOOTHNESS_WEIGHT,
    import_voxelmorph,
)
from benchmarks.protocol import Repeat, serve

vxm = import_voxelmorph("pytorch")
import torch  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def losses_for_any_device() -> SimpleNamespace:
    """voxelmorph's torch losses; its NCC sends the window to "cuda", whatever device the images are on."""
    source = Path(vxm.losses.__file__).read_text().replace('.to("cuda")', ".to(Ji.device)")
    names: dict[str, Any] = {}
    exec(compile(source, vxm.losses.__file__, "exec"), names)
    return SimpleNamespace(**names)


def smoothness(flow: torch.Tensor) -> torch.Tensor:
    """`Grad("l2")` for 2D fields (batch, 2, height, width); voxelmorph's own form takes 3D ones only."""
    rows, columns = flow[:, :, 1:] - flow[:, :, :-1], flow[..., 1:] - flow[..., :-1]
    return ((rows * rows).mean() + (columns * columns).mean()) / 2


def as_tensor(batch: np.ndarray) -> torch.Tensor:
    """(batch, height, width, 1) array -> (batch, 1, height, width) on the device."""
    return torch.from_numpy(batch).to(DEVICE).float().permute(0, 3, 1, 2)


class Trainer:
    """A network with its optimizer, and the usual training step."""

    def __init__(self, options: dict[str, Any]):
        size = (options["size"],) * 2
        self.model = vxm.networks.VxmDense(size, options["features"], int_steps=0, int_downsize=1).to(DEVICE)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self._similarity = losses_for_any_device().NCC().loss

    def step(self, moving: np.ndarray, fixed: np.ndarray) -> float:
        """One update on a batch (batch, height, width, 1); the loss before it."""
        source, target = as_tensor(moving), as_tensor(fixed)
        warped, flow = self.model(source, target)
        loss = self._similarity(target, warped) + SMOOTHNESS_WEIGHT * smoothness(flow)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()


def meta_step(options: dict[str, Any]) -> Repeat:
    """One Reptile update: k steps for each of m tasks, each from a copy of theta."""
    trainer = Trainer(options)
    moving, fixed = images.episode(
        options["tasks"], options["inner_steps"], options["batch"], options["size"]
    )

    def repeat() -> None:
        theta = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        deltas = {name: torch.zeros_like(value) for name, value in theta.items()}
        for task_moving, task_fixed in zip(moving, fixed):
            trainer.model.load_state_dict(theta)
            for pair in zip(task_moving, task_fixed):
                trainer.step(*pair)
            for name, value in trainer.model.state_dict().items():
                deltas[name] += value - theta[name]
        share = OUTER_RATE / len(moving)
        trainer.model.load_state_dict({name: theta[name] + share * deltas[name] for name in theta})

    return repeat


def finetune_epoch(options: dict[str, Any]) -> Repeat:
    """One epoch over the pairs, drawn from arrays in memory."""
    trainer = Trainer(options)
    moving, fixed = images.pairs(options["pairs"], options["size"])
    rng = np.random.default_rng(0)

    def repeat() -> None:
        for index in rng.permutation(len(fixed)):
            trainer.step(moving[index : index + 1], fixed[index : index + 1])

    return repeat


def register(options: dict[str, Any]) -> Repeat:
    """One pair through the network, from arrays to arrays."""
    model = Trainer(options).model.eval()
    moving, fixed = images.pairs(1, options["size"])

    def repeat() -> None:
        with torch.no_grad():
            for output in model(as_tensor(moving), as_tensor(fixed), registration=True):
                output.cpu().numpy()

    return repeat


def about() -> dict[str, Any]:
    """Versions, threads and device."""
    packages = ("torch", "voxelmorph", "neurite", "numpy")
    return {
        "versions": {name: metadata.version(name) for name in packages},
        "threads": torch.get_num_threads(),
        "device": DEVICE,
    }


if __name__ == "__main__":
    serve(
        {
            "meta_step": meta_step,
            "training": meta_step,
            "start_up": meta_step,
            "finetune_epoch": finetune_epoch,
            "register": register,
        },
        about,
    )
