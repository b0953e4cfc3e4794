"""FLOPs and bytes of a step against counts by hand and against the network itself."""

from __future__ import annotations

import pytest
import tensorflow as tf

from benchmarks.cases import FEATURES
from benchmarks.flops import Convolution, convolutions, step_bytes, step_floor, step_flops
from tfmetareg._compat import vxm

# 4 x 6 pixels, 3 channels to 5: 27 products for each of 5 * 24 outputs, an addition each, three passes.
LAYER = Convolution(height=4, width=6, inputs=3, upsampled=2, outputs=5)


def test_one_layer_by_hand():
    assert LAYER.flops(folded=False) == 27 * 5 * 24 * 2 * 3
    # One channel with 9 taps, two with 16 products for each block of 4 pixels.
    assert LAYER.flops(folded=True) == (9 + 2 * 4) * 5 * 24 * 2 * 3
    assert LAYER.bytes(folded=False) == (3 + 5) * 24 * 4 * 3
    # The upsampled channels are read at 2 x 3 pixels.
    assert LAYER.bytes(folded=True) == (1 * 24 + 2 * 6 + 5 * 24) * 4 * 3


def test_the_first_layer_needs_no_gradient_of_the_images():
    first = Convolution(4, 6, 3, 0, 5, first=True)
    assert first.flops(folded=False) == 27 * 5 * 24 * 2 * 2
    assert first.bytes(folded=False) == (3 + 5) * 24 * 4 * 2


def vxm_dense(features) -> tf.keras.Model:
    return vxm.networks.VxmDense((32, 32), features, int_steps=0, int_resolution=1)


@pytest.mark.parametrize("features", [FEATURES, [[4, 6], [8, 3]], [[5], [7, 9, 4]]])
def test_the_layers_are_those_of_the_network(features):
    network = vxm_dense(features)
    built = [layer for layer in network.layers if isinstance(layer, tf.keras.layers.Conv2D)]
    counted = [
        (c.height, c.width, c.outputs, (3, 3, c.inputs, c.outputs)) for c in convolutions(features, 32)
    ]
    assert counted == [(*layer.output_shape[1:], tuple(layer.kernel.shape)) for layer in built]


def test_the_upsampled_inputs_are_those_of_upsampling_layers():
    network = vxm_dense(FEATURES)
    upsampled = [
        layer.output_shape[-1] for layer in network.layers if isinstance(layer, tf.keras.layers.UpSampling2D)
    ]
    assert [layer.upsampled for layer in convolutions(FEATURES, 32) if layer.upsampled] == upsampled


def test_the_whole_network_at_400_by_hand():
    at_400 = 160_000 * (2 * 16 + 48 * 32 + 32 * 16 + 16 * 16 + 16 * 2)
    at_200 = 40_000 * (16 * 32 + 64 * 32)
    at_100_and_50 = (10_000 + 2_500) * (32 * 32 + 64 * 32)
    at_25 = 625 * 32 * 32
    forward = 2 * 9 * (at_400 + at_200 + at_100_and_50 + at_25)
    input_gradient_of_the_first = 2 * 9 * 160_000 * 2 * 16
    assert step_flops(FEATURES, 400, 1) == 3 * forward - input_gradient_of_the_first
    assert 26.5e9 < step_flops(FEATURES, 400, 1) < 28.1e9
    saved = 2 * 3 * 5 * 32 * 32 * (160_000 + 40_000 + 10_000 + 2_500)
    assert step_flops(FEATURES, 400, 8, folded=True) == 8 * (step_flops(FEATURES, 400, 1) - saved)


def test_the_floor_is_arithmetic_or_memory_whichever_takes_longer():
    work = step_flops(FEATURES, 64, 2), step_bytes(FEATURES, 64, 2)
    fast = 1e30
    assert step_floor(FEATURES, 64, 2, flops_per_second=1e9, bytes_per_second=fast) == pytest.approx(
        work[0] / 1e9
    )
    assert step_floor(FEATURES, 64, 2, flops_per_second=fast, bytes_per_second=1e9) == pytest.approx(
        work[1] / 1e9
    )
    both = step_floor(FEATURES, 64, 2, flops_per_second=1e9, bytes_per_second=1e8)
    assert max(work[0] / 1e9, work[1] / 1e8) < both < work[0] / 1e9 + work[1] / 1e8
