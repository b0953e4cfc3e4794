from __future__ import annotations

from pathlib import Path

import pytest

from tfmetareg.config import RegisterOptions
from tfmetareg.modes.register import _with_alignment
from tfmetareg.registration.weights import SHIPPED


@pytest.mark.parametrize(
    ("weights", "said", "expected"),
    [
        (SHIPPED["start"], "records", "affine"),
        (SHIPPED["start"], "none", "none"),
        (SHIPPED["start"], "rigid", "rigid"),
        (Path("runs/mine/finetune/model.h5"), "records", "records"),
    ],
)
def test_the_shipped_start_aligns_unless_told_otherwise(weights, said, expected):
    assert _with_alignment(RegisterOptions(align=said), weights).align == expected
