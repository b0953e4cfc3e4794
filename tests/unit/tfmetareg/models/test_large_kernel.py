"""A large-kernel block against its branches, one by one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfmetareg.models.large_kernel import LargeKernelBlock
from tfmetareg.models.registry import build_model


def test_one_convolution_computes_all_branches_and_the_identity():
    block = LargeKernelBlock(4, 7, name="block")
    images = tf.random.stateless_normal((2, 12, 9, 4), [0, 0])
    assert [tuple(branch.shape[:2]) for branch in block.branches] == [(7, 7), (3, 3), (1, 1)]
    apart = images + sum(tf.nn.conv2d(images, branch, 1, "SAME") for branch in block.branches)
    np.testing.assert_allclose(tf.nn.conv2d(images, block.kernel, 1, "SAME"), apart, atol=1e-5)
    assert np.abs(apart - images).max() > 0.1


def test_every_level_of_the_encoder_ends_with_a_block_of_its_features():
    model = build_model("large_kernel", (32, 32), features=[[4, 6], [5, 4]], kernel_size=9)
    blocks = [layer for layer in model.network.layers if isinstance(layer, LargeKernelBlock)]
    assert [(block.name, tuple(block.kernel.shape)) for block in blocks] == [
        ("large_kernel_unet_enc_block_0", (9, 9, 4, 4)),
        ("large_kernel_unet_enc_block_1", (9, 9, 6, 6)),
    ]
    names = [layer.name for layer in model.network.layers]
    assert names.index("large_kernel_unet_enc_block_0") == names.index("large_kernel_unet_enc_conv_0_0") + 1
