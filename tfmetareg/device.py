"""Choices that depend on the hardware, made from its properties, not timings, so that runs are repeatable."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import tensorflow as tf


def resolve_precision(precision: str) -> str:
    """Resolves "auto" to a precision for this machine; returns any other precision unchanged.

    "auto" is bfloat16 if the GPU (compute capability 8 or later) or the CPU multiplies it faster than
    float32, else float32. A CPU without bfloat16 instructions emulates them, several times slower than
    float32.

    >>> resolve_precision("float32")
    'float32'

    Args:
        precision: "auto", "float32", "tensorfloat32" or "mixed_bfloat16".
    """
    if precision != "auto":
        return precision
    faster = _gpu_capability() >= (8, 0) if accelerator() else _cpu_gains_from_bfloat16()
    return "mixed_bfloat16" if faster else "float32"


def set_precision(precision: str) -> None:
    """Allows or forbids a GPU to round the factors of float32 products to TensorFloat32.

    Args:
        precision: as for `resolve_precision`; only "tensorfloat32" allows it.
    """
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tensorfloat32")


def accelerator() -> Optional[str]:
    """The device for which XLA compiles whole steps: the first GPU, or None without one."""
    return "GPU:0" if tf.config.list_physical_devices("GPU") else None


def slow_kernel_gradient() -> bool:
    """Whether TensorFlow's gradient of a convolution kernel is slow on this machine.

    On CPUs without AVX512 it reaches a fifth of the speed of matrix products.
    """
    return accelerator() is None and "avx512f" not in cpu_flags()


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the first processor, as Linux reports them; empty on other systems."""
    return frozenset(_cpu_field("flags", "Features").split())


def cpu_vendor() -> str:
    """Vendor of the first processor, as Linux reports it (for instance "GenuineIntel"); else empty."""
    return _cpu_field("vendor_id")


def _cpu_gains_from_bfloat16() -> bool:
    # Intel's cores have half as many ports for AVX512-BF16 as for float32: without AMX, bfloat16 is slower
    # there (docs/performance.md).
    return "amx_bf16" in cpu_flags() or ("avx512_bf16" in cpu_flags() and cpu_vendor() != "GenuineIntel")


@functools.lru_cache
def _cpu_field(*names: str) -> str:
    """The first entry with one of these names in /proc/cpuinfo; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(names)), "")


def _gpu_capability() -> tuple[int, int]:
    """Lowest compute capability of the GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return min(detail.get("compute_capability", (0, 0)) for detail in details)
