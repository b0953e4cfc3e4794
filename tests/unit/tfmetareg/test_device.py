"""What "auto" stands for, from what a machine says of itself."""

from __future__ import annotations

import pytest
import tensorflow as tf

import tfmetareg.device as device


class Machine:
    """A machine by its flags, its GPUs' compute capabilities and its maker."""

    def __init__(self, flags=(), capabilities=(), vendor="AuthenticAMD"):
        self.flags, self.capabilities, self.vendor = frozenset(flags), capabilities, vendor

    def stand_in(self, monkeypatch) -> None:
        monkeypatch.setattr(device, "cpu_flags", lambda: self.flags)
        monkeypatch.setattr(device, "cpu_vendor", lambda: self.vendor)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(self.capabilities))
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu}
        )


@pytest.mark.parametrize(
    ("machine", "precision", "slow"),
    [
        (Machine(["avx2"]), "float32", True),
        (Machine(["avx2", "avx512f"]), "float32", False),
        (Machine(["avx512f", "avx512_bf16"]), "mixed_bfloat16", False),
        (Machine(["avx512f", "avx512_bf16"], vendor="GenuineIntel"), "float32", False),
        (Machine(["avx512f", "avx512_bf16", "amx_bf16"], vendor="GenuineIntel"), "mixed_bfloat16", False),
        (Machine(["avx2"], [(9, 0)]), "mixed_bfloat16", False),
        (Machine(["avx512_bf16", "avx512f"], [(7, 5)]), "float32", False),
        (Machine(["avx2"], [(9, 0), (7, 0)]), "float32", False),
        (Machine(), "float32", True),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_the_faster_one(machine, precision, slow, monkeypatch):
    machine.stand_in(monkeypatch)
    assert device.resolve_precision("auto") == precision
    assert device.slow_kernel_gradient() is slow


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "mixed_bfloat16"])
def test_what_is_named_is_what_one_gets(precision):
    assert device.resolve_precision(precision) == precision


@pytest.mark.parametrize(
    ("precision", "allowed"),
    [("auto", False), ("float32", False), ("tensorfloat32", True), ("mixed_bfloat16", False)],
)
def test_tensorfloat32_has_to_be_asked_for(precision, allowed):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        device.set_precision(precision)
        assert tf.config.experimental.tensor_float_32_execution_enabled() is allowed
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def test_this_machines_processor_names_its_instruction_sets():
    assert device.cpu_flags() & {"sse2", "asimd"}
    assert device.cpu_vendor() or "asimd" in device.cpu_flags()
