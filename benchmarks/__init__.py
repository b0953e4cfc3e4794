"""Benchmarks: the project and its peers on the same work, in one run; README.md explains them."""
