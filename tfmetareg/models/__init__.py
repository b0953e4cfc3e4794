"""Registration networks; importing the package registers those of the project."""

from tfmetareg.models import vxm  # noqa: F401
