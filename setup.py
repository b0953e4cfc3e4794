"""What setup.cfg cannot say: the presets in configs/ are part of the package too, as tfmetareg/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tfmetareg*", "tfrecords_builder*"]), "tfmetareg.configs"],
    package_dir={"tfmetareg.configs": "configs"},
)
