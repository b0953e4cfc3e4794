"""Meta-learned medical image registration."""

import os

# oneDNN's kernels, which TensorFlow leaves off on CPUs without AVX512, halve the time of a training step
# there. Read when TensorFlow is imported: import this package first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
