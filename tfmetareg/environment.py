"""What has to be installed for TensorFlow 2.15 to be imported."""

from __future__ import annotations

from importlib import metadata

from tfmetareg.errors import UserError


def check_numpy() -> None:
    """Refuses NumPy 2 in one line; TensorFlow 2.15 would end with pages about modules compiled for NumPy 1.

    Raises:
        UserError: NumPy 2 or newer is installed.
    """
    version = metadata.version("numpy")
    if int(version.partition(".")[0]) >= 2:
        raise UserError(
            f"NumPy {version} is installed, with which TensorFlow 2.15 cannot be imported: run "
            "`pip install 'numpy>=1.26,<2'`. Packages like itk-elastix and antspyx bring it along; the extra "
            "`peers` of this package installs versions of them for NumPy 1."
        )
