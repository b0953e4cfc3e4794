"""What users get wrong when they register: one line, status 2, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.conftest import FEATURES, texture
from tfmetareg.cli import main
from tfmetareg.files import write_json
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import save_weights

SIDE = 40
IMAGES = ("moving", "fixed")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Two images, folders of them, a table, points and weights, all of them good."""
    root = tmp_path_factory.mktemp("good")
    model = build_model("vxm_dense", (32, 32), features=FEATURES)
    save_weights(model, root / "finetune" / "model.h5")
    described = {"image_shape": [32, 32], "preprocessing": Preprocessing((32, 32)).describe()}
    write_json(root / "finetune" / "preprocessing.json", described)
    other = build_model("vxm_dense", (32, 32), features=[[4], [4, 4]])
    save_weights(other, root / "other.h5")
    for seed, name in enumerate(IMAGES):
        image = texture(np.random.default_rng(seed), 2.0, SIDE)
        (root / f"{name}s").mkdir()
        for path in (root / f"{name}.png", root / f"{name}s" / "a.png", root / f"{name}s" / "b.png"):
            Image.fromarray(np.uint8(255 * (image - image.min()) / np.ptp(image))).save(path)
    (root / "points.csv").write_text("x,y\n10,12\n20,30\n")
    (root / "pairs.csv").write_text("moving,fixed\nmoving.png,fixed.png\n")
    return root


class Case:
    """A copy of the good files, the options to register them, and chance."""

    def __init__(self, root: Path, seed: int):
        self.root, self.rng = root, np.random.default_rng(seed)
        self.options = {name: str(root / f"{name}.png") for name in IMAGES}
        self.options["output"] = str(root / "out")

    def choose(self, *values):
        return values[self.rng.integers(len(values))]

    @property
    def name(self) -> str:
        return self.choose(*IMAGES)

    def replace(self, ending: str, content: bytes) -> None:
        """Puts a file in the place of one of the two images."""
        name = self.name
        path = self.root / f"broken{ending}"
        path.write_bytes(content)
        self.options[name] = str(path)

    def array(self, array: np.ndarray) -> None:
        """Puts an array in the place of one of the two images, in a format that takes it."""
        if array.dtype == np.float32 and self.rng.random() < 0.5:
            path = self.root / "broken.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        else:
            path = self.root / "broken.npy"
            np.save(path, array)
        self.options[self.name] = str(path)

    def points(self, text: str) -> None:
        (self.root / "broken.csv").write_text(text)
        self.options["points"] = str(self.root / "broken.csv")
        self.options["points_in"] = self.name

    def table(self, text: str) -> None:
        (self.root / "broken.csv").write_text(text)
        self.instead(pairs=self.choose(self.root / "broken.csv", self.root / "broken.csv"))

    def instead(self, **options) -> None:
        for name in IMAGES:
            del self.options[name]
        self.options.update({name: str(value) for name, value in options.items()})


def missing(case):
    case.options[case.name] = str(
        case.root / case.choose("none.png", "none.tif", "no/such.npy", "none.nii.gz")
    )


def truncated(case):
    content = (case.root / "moving.png").read_bytes()
    case.replace(".png", content[: case.rng.integers(0, len(content) * 3 // 4)])


def garbage(case):
    ending = case.choose(".png", ".tif", ".jpg", ".npy", ".nii", ".nii.gz")
    case.replace(ending, case.rng.bytes(case.rng.integers(1, 300)))


def another_format(case):
    case.replace(case.choose(".doc", ".txt", ".dcm", ""), (case.root / "moving.png").read_bytes())


def folder_for_an_image(case):
    case.options[case.name] = str(case.root / "moving.png")
    case.options["moving" if case.rng.random() < 0.5 else "fixed"] = str(case.root / "movings")


def not_finite(case):
    image = texture(case.rng, 2.0, SIDE).astype(np.float32)
    image[tuple(case.rng.integers(0, SIDE, 2))] = case.choose(np.nan, np.inf, -np.inf)
    case.array(image)


def constant(case):
    case.array(np.full((SIDE, SIDE), case.rng.integers(0, 200), case.choose(np.float32, np.uint8, np.int16)))


def too_small(case):
    shape = (case.rng.integers(1, 8), case.rng.integers(1, 60))
    case.array(case.rng.random(shape if case.rng.random() < 0.5 else shape[::-1]).astype(np.float32))


def not_2d(case):
    shape = case.choose((20, 20, 20), (20,), (20, 20, 5), (9, 9, 9, 9))
    case.array(case.rng.random(shape).astype(np.float32))


def not_numbers(case):
    case.array(case.rng.random((SIDE, SIDE)).astype(case.choose(np.complex64, "U3", "S2", "M8[s]")))


def volume_without_slice(case):
    path = case.root / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(case.rng.random((20, 20, 6)).astype(np.float32), np.eye(4)), path)
    case.options[case.name] = str(path) + case.choose("", "#6", "#-1", "#x", "#2,3", "#99")


def points_outside(case):
    x, y = case.choose((-3, 5), (5, SIDE), (1e6, 2), (SIDE + 0.5, SIDE + 0.5))
    case.points(f"x,y\n4,4\n{x},{y}\n")


def points_that_are_none(case):
    case.points(case.choose("", "\n\n", "x,y\n", "1,2\n3,4\n", "x;z\n1;2\n", "x,y\n1\n", "x,y,x\n1,2,3\n"))


def points_not_numbers(case):
    case.points(f"x,y\n1,2\n{case.choose('nan,3', '3,inf', 'a,b', ',', '1e999,0')}\n")


def points_missing(case):
    case.options["points"] = str(case.root / case.choose("none.csv", "moving.png", "moving.png/none.csv"))


def folders_that_differ(case):
    (case.root / case.choose("movings", "fixeds") / case.choose("a.png", "b.png")).rename(
        case.root / "gone.png"
    )
    case.instead(**{name: case.root / f"{name}s" for name in IMAGES})


def empty_folder(case):
    folder = case.root / case.choose("movings", "fixeds")
    for path in folder.iterdir():
        path.unlink()
    case.instead(**{name: case.root / f"{name}s" for name in IMAGES})


def two_of_one_name(case):
    shutil.copy(case.root / "movings" / "a.png", case.root / case.choose("movings", "fixeds") / "a.tif")
    case.instead(**{name: case.root / f"{name}s" for name in IMAGES})


def broken_table(case):
    case.table(
        case.choose(
            "",
            "moving,fixed\n",
            "a,b\n1,2\n",
            "moving,fixed\nmoving.png\n",
            "moving,fixed\nmoving.png,\n",
            "moving,fixed\nmoving.png,moving.png\n",
            "moving,fixed\n../moving.png,fixed.png\n",
            "moving,fixed\nnone.png,fixed.png\n",
            "moving,fixed,moving_landmarks,fixed_landmarks\nmoving.png,fixed.png,points.csv,\n",
            "moving,fixed,moving_landmarks,fixed_landmarks\nmoving.png,fixed.png,points.csv,none.csv\n",
        )
    )


def no_table(case):
    case.instead(pairs=case.root / case.choose("movings", "none.csv", "moving.png", "none"))


def nothing_or_too_much(case):
    change = case.choose("moving", "fixed", "both", "pairs")
    if change == "both":
        case.instead()
    elif change == "pairs":
        case.options["pairs"] = str(case.root / "pairs.csv")
    else:
        del case.options[change]


def weights_that_do_not_fit(case):
    path = case.root / "broken.h5"
    content = (case.root / "finetune" / "model.h5").read_bytes()
    kind = case.choose("cut", "garbage", "none", "stage", "image", "options")
    if kind == "cut":
        path.write_bytes(content[: case.rng.integers(0, len(content) // 2)])
    elif kind == "garbage":
        path.write_bytes(case.rng.bytes(400))
    names = {
        "stage": "reptile",
        "image": str(case.root / "moving.png"),
        "options": str(case.root / "other.h5"),
    }
    case.options["weights"] = names.get(kind, str(path))
    if kind == "options":
        case.options["../model.features"] = "[[4,4],[4,4,4]]"


def damaged_preprocessing(case):
    text = case.choose(
        "", "{", "[]", "{}", '{"image_shape": 3, "preprocessing": {}}', '{"preprocessing": null}'
    )
    (case.root / "finetune" / "preprocessing.json").write_text(text)


def output_in_the_way(case):
    kind = case.choose("file", "below", "proc", "pair", "damaged")
    out = case.root / "out"
    if kind in ("file", "below"):
        out.write_text("mine")
        case.options["output"] = str(out / "x" if kind == "below" else out)
    elif kind == "proc":
        case.options["output"] = "/proc/register"
    else:
        (out / "moving-to-fixed").mkdir(parents=True)
        (out / "moving-to-fixed" / case.choose("mine.txt", "summary.json")).write_text("{")


def wrong_option(case):
    key, value = case.choose(
        ("adapt_steps", "-1"), ("adapt_steps", "many"), ("adapt_epochs", "0.5"), ("adapt_learning_rate", "0"),
        ("align", "thin_plate"), ("fit", "crop"), ("points_in", "both"), ("formats", "[jpg]"),
        ("figures", "7"),
        ("movin", "a.png"), ("adapt_learning_rate", "nan"),
    )  # fmt: skip
    case.options[key] = value


KINDS = [
    missing, truncated, garbage, another_format, folder_for_an_image, not_finite, constant, too_small, not_2d,
    not_numbers, volume_without_slice, points_outside, points_that_are_none, points_not_numbers,
    points_missing,
    folders_that_differ, empty_folder, two_of_one_name, broken_table, no_table, nothing_or_too_much,
    weights_that_do_not_fit, damaged_preprocessing, output_in_the_way, wrong_option,
]  # fmt: skip
EACH = 4


def listing(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


def call(case: Case) -> int:
    options = [f"--register.{key}={value}" for key, value in case.options.items() if "../" not in key]
    options += [f"--{key[3:]}={value}" for key, value in case.options.items() if "../" in key]
    return main(["--mode=register", f"--workdir={case.root}", "--register.figures=false", *options])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", range(EACH))
def test_a_broken_input_is_one_line_and_leaves_nothing(good, tmp_path, capsys, kind, seed):
    root = tmp_path / "in"
    shutil.copytree(good, root)
    case = Case(root, 100 * KINDS.index(kind) + seed)
    kind(case)
    before = listing(tmp_path)
    capsys.readouterr()
    assert call(case) == 2, case.options
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith(("note: ", "Network as in "))]
    assert lines[0].startswith("error: "), captured.err
    # More than one line are the mistakes of a table, a line each, or the layers of weights that do not fit.
    assert kind in (broken_table, weights_that_do_not_fit) or len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert listing(tmp_path) == before


def test_at_least_a_hundred():
    assert len(KINDS) * EACH >= 100
