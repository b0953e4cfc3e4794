"""Names as markup, and images as addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tfmetareg.report.markup import breakable, image_uri


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60))
def test_a_breakable_name_is_escaped_and_whole(name):
    shown = breakable(name)
    assert shown.replace("<wbr>", "").unescape() == name
    assert not {"<", ">", '"'} & set(shown.replace("<wbr>", ""))


@pytest.mark.parametrize(
    ("shape", "kind"), [((60, 80), "png"), ((60, 80, 3), "png"), ((300, 400, 3), "jpeg")]
)
def test_an_image_comes_back_as_it_was(shape, kind):
    image = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    start, content = image_uri(image).split(",")
    assert start == f"data:image/{kind};base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))), float) / 255
    assert shown.shape == shape
    np.testing.assert_allclose(shown, image, atol=0.002 if kind == "png" else 0.03)
