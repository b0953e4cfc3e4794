"""What the machine computes fast: read off what it is, not timed, so that a run can be repeated."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Optional

import tensorflow as tf


def resolve_precision(precision: str) -> str:
    """The precision that "auto" stands for on this machine; any other one is returned as it is.

    bfloat16 where the GPU (compute capability 8 or later) or the CPU multiplies it
    faster than float32, else float32. A CPU without such instructions emulates
    bfloat16, several times slower than float32.

    Args:
        precision: "auto", "float32", "tensorfloat32" or "mixed_bfloat16".
    """
    if precision != "auto":
        return precision
    faster = _gpu_capability() >= (8, 0) if accelerator() else _cpu_gains_from_bfloat16()
    return "mixed_bfloat16" if faster else "float32"


def set_precision(precision: str) -> None:
    """Lets a GPU round the factors of float32 products to TensorFloat32, or forbids it.

    Args:
        precision: as for `resolve_precision`; only "tensorfloat32" lets it.
    """
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tensorfloat32")


def accelerator() -> Optional[str]:
    """The device for which whole steps are compiled: the first GPU; None on a CPU."""
    return "GPU:0" if tf.config.list_physical_devices("GPU") else None


def slow_kernel_gradient() -> bool:
    """Whether the library's gradient of a convolution kernel is far from the machine's peak.

    On CPUs without AVX512 it reaches a fifth of what matrix products do.
    """
    return accelerator() is None and "avx512f" not in cpu_flags()


def cpu_flags() -> frozenset[str]:
    """Instruction sets that Linux reports for the first processor; empty elsewhere."""
    return frozenset(_cpu_field("flags", "Features").split())


def cpu_vendor() -> str:
    """The first processor's maker as Linux reports it, "GenuineIntel" for instance; empty elsewhere."""
    return _cpu_field("vendor_id")


def _cpu_gains_from_bfloat16() -> bool:
    # Intel's cores have half as many ports for AVX512-BF16 as for float32, so that without AMX bfloat16 is
    # the slower one there (docs/performance.md).
    return "amx_bf16" in cpu_flags() or ("avx512_bf16" in cpu_flags() and cpu_vendor() != "GenuineIntel")


@functools.lru_cache
def _cpu_field(*names: str) -> str:
    """The first processor's entry of one of these names in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(names)), "")


def _gpu_capability() -> tuple[int, int]:
    """The lowest compute capability among the GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return min(detail.get("compute_capability", (0, 0)) for detail in details)
