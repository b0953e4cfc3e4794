"""Procedural anatomy: seeded generators of brain, abdomen and retina images, without state.

The unit of length is the frame, the image's shorter side, so that the anatomy fits images of any size.
"""
