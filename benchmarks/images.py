"""The images that all contenders register: smooth random textures from a seed."""

from __future__ import annotations

import numpy as np

_SMOOTHNESS_PX = 3.0
_SHIFT_PX = (2, 1)


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise smoothed by a periodic Gaussian: float32 (size, size) in [0, 1], in 256 grey levels."""
    frequencies = np.fft.rfftfreq(size)[None] ** 2 + np.fft.fftfreq(size)[:, None] ** 2
    damping = np.exp(-2 * (np.pi * _SMOOTHNESS_PX) ** 2 * frequencies)
    smooth = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * damping, s=(size, size))
    grey = np.clip(127.5 + 50 * smooth / smooth.std(), 0, 255)
    return np.rint(grey).astype(np.float32) / 255


def pairs(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Moving and fixed images, float32 (count, size, size, 1) in [0, 1], a few pixels apart."""
    rng = np.random.default_rng(seed)
    fixed = np.stack([texture(size, rng) for _ in range(count)])[..., None]
    return np.roll(fixed, _SHIFT_PX, axis=(1, 2)), fixed


def episode(tasks: int, inner_steps: int, batch: int, size: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Moving and fixed images of one meta-step, each float32 (tasks, inner_steps, batch, size, size, 1)."""
    shape = (tasks, inner_steps, batch, size, size, 1)
    return tuple(images.reshape(shape) for images in pairs(tasks * inner_steps * batch, size, seed))
