"""Pages: HTML files that hold everything they show, made from the templates beside this module."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # Names come from tables and headers of any origin.
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Larger images are embedded as JPEG, of which the eye sees no trace at this quality.
_MAX_PNG_PIXELS, _JPEG_QUALITY = 256 * 256, 88


def breakable(text: object) -> Markup:
    """A name, escaped, that may be broken behind its punctuation only.

    >>> breakable("a/b_<i>")
    Markup('a/<wbr>b_<wbr>&lt;i&gt;')
    """
    return Markup("<wbr>").join(re.split(r"(?<=[/:_])", str(text)))


_ENVIRONMENT.filters["breakable"] = breakable


def render(template: str, **values: Any) -> str:
    """A page from a template of this folder; all text is escaped."""
    return _ENVIRONMENT.get_template(template).render(**values)


def data_uri(kind: str, content: bytes) -> str:
    """Content of a MIME type as an address that holds it.

    >>> data_uri("text/csv", b"a,b")
    'data:text/csv;base64,YSxi'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def image_uri(image: np.ndarray) -> str:
    """An image as an address that holds it, for looking at: PNG, or JPEG if it is large.

    Args:
        image: (height, width) or (height, width, 3) in [0, 1].
    """
    pixels = Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8))
    stream = io.BytesIO()
    if image.shape[0] * image.shape[1] <= _MAX_PNG_PIXELS:
        pixels.save(stream, "png")
        return data_uri("image/png", stream.getvalue())
    pixels.save(stream, "jpeg", quality=_JPEG_QUALITY, subsampling=0)
    return data_uri("image/jpeg", stream.getvalue())
