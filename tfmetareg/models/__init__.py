"""Registration networks. Importing this package registers the project's own."""

from tfmetareg.models import affine_deformable, cascade, large_kernel, vxm  # noqa: F401
