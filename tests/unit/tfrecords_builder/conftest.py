"""Small inputs on disk, and the command line called as a user calls it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrecords_builder.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[3]


def blobs(seed: int = 0, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    """uint8 `shape`: smooth random structure."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    image = np.zeros(shape)
    for _ in range(12):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        image += rng.uniform(0.3, 1) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 12)
    return np.uint8(255 * image / image.max())


class PairsFolder:
    """A `pairs` input that a test writes to and breaks."""

    def __init__(self, root: Path):
        self.root = root
        self.columns = ["moving", "fixed", "subject"]
        self.rows: list[list[str]] = []

    def image(self, name: str, seed: int = 0, shape: tuple[int, int] = (40, 48)) -> str:
        Image.fromarray(blobs(seed, shape)).save(self.root / name)
        return name

    def text(self, name: str, text: str) -> str:
        (self.root / name).write_text(text)
        return name

    def table(self) -> Path:
        lines = [",".join(row) for row in [self.columns, *self.rows]]
        self.text("pairs.csv", "\n".join(lines) + "\n")
        return self.root


@pytest.fixture
def pairs_folder(tmp_path: Path) -> PairsFolder:
    """Six good pairs of three subjects; `table()` writes pairs.csv."""
    folder = PairsFolder(tmp_path / "input")
    folder.root.mkdir()
    for number in range(6):
        moving = folder.image(f"m{number}.png", 2 * number)
        fixed = folder.image(f"f{number}.png", 2 * number + 1)
        folder.rows.append([moving, fixed, f"eye{number // 2}"])
    return folder


def error_lines(err: str) -> list[str]:
    """The errors and notes on stderr, without lines about the progress on a slow machine."""
    return [line for line in err.splitlines() if line.startswith(("error: ", "note: "))]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Calls the command line; gives exit status, stdout and stderr."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """`call`, with what is printed captured."""
    return functools.partial(call, capsys)


@pytest.fixture
def listing():
    """Every file below a folder with its content, to see that nothing has changed."""

    def read(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
            for path in root.rglob("*")
        }

    return read
