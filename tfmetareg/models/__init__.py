"""Registration networks; importing the package registers those of the project."""

from tfmetareg.models import affine_deformable, cascade, large_kernel, vxm  # noqa: F401
