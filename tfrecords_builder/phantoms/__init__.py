"""Procedural anatomy: pure, seeded generators of brain, abdomen and retina images.

Lengths are in frames, one frame being the image's shorter side: the anatomy fits an image of any size.
"""
