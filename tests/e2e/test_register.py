"""`--mode register` on image files of every kind."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from tests.conftest import FEATURES, texture
from tfmetareg.cli import main
from tfmetareg.files import write_json
from tfmetareg.imaging.field_files import read_field
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.landmarks import read_landmarks
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.read import open_image
from tfmetareg.imaging.write import write_image
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import save_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Stages of fresh weights: their displacements are next to nothing, about a pixel, or wild."""
    root = tmp_path_factory.mktemp("runs")
    tf.keras.utils.set_random_seed(2)
    for stage, spread in (("still", 0.0), ("finetune", 0.05), ("wild", 0.3)):
        model = build_model("vxm_dense", (64, 64), features=FEATURES)
        rng = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign_add(rng.normal(0, spread, variable.shape).astype(np.float32))
        save_weights(model, root / stage / "model.h5")
        described = {"image_shape": [64, 64], "preprocessing": Preprocessing((64, 64)).describe()}
        write_json(root / stage / "preprocessing.json", described)
    return root


def register(workdir: Path, output: Path, *options: str, figures: bool = False) -> int:
    arguments = [f"--register.output={output}", f"--register.figures={str(figures).lower()}", *options]
    return main(["--mode=register", f"--workdir={workdir}", *arguments])


def scene(size: int, seed: int = 0) -> np.ndarray:
    """A smooth image in [0, 1], in detail the same whatever its size."""
    coarse = texture(np.random.default_rng(seed), 2.5, 48)
    rows, columns = np.mgrid[:size, :size] * (47 / (size - 1))
    image = ndimage.map_coordinates(coarse, [rows, columns], order=3, mode="nearest")
    return (image - image.min()) / np.ptp(image)


def save(path: Path, image: np.ndarray, as_type: str = "uint8") -> Path:
    white = {"uint8": 255, "uint16": 65535, "int16": 30000}.get(as_type, 1)
    write_image(path, (white * image).round(0 if white > 1 else 6).astype(as_type), Grid(image.shape[:2]))
    return path


def pair(folder: Path, ending: str = ".png", as_type: str = "uint8") -> list[str]:
    """The options for two images of one size, one 2 pixels to the right of the other."""
    image = scene(80)
    moving = save(folder / f"m{ending}", image[:70, 2:72], as_type)
    fixed = save(folder / f"f{ending}", image[:70, :70], as_type)
    return [f"--register.moving={moving}", f"--register.fixed={fixed}"]


def told(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def displacement(folder: Path) -> np.ndarray:
    return read_field(folder / "displacement.npz").displacement


def test_everything_that_is_promised_is_there(workdir, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("x,y\n10,20\n33.5,41\n")
    options = [*pair(tmp_path), f"--register.points={points}"]
    assert register(workdir, tmp_path / "out", *options, figures=True) == 0
    folder = tmp_path / "out" / "m-to-f"
    assert {path.name for path in folder.iterdir()} == {
        *("warped.png", "displacement.npz", "displacement.nii.gz", "displacement.h5", "summary.json"),
        *("overlay.png", "grid.png", "checkerboard.png", "jacobian.png", "points.png"),
        *("points_in_moving.csv", "registration.html"),
    }
    assert [path.name for path in folder.parent.iterdir()] == ["m-to-f"]
    summary = told(folder)
    assert summary["schema"] == 1
    assert summary["inputs"]["moving"]["file"] == str(tmp_path / "m.png")
    assert set(summary["seconds"]) >= {"read", "prepare", "align", "register", "warp", "write", "figures"}
    u = displacement(folder)
    assert summary["displacement_px"]["max"] == pytest.approx(np.linalg.norm(u, axis=-1).max())
    # The warped file is the moving one read at p + u(p), in its own intensities.
    moving, warped = (
        np.asarray(Image.open(path), float) for path in (tmp_path / "m.png", folder / "warped.png")
    )
    places = np.moveaxis(u, -1, 0) + np.indices(u.shape[:2])
    expected = ndimage.map_coordinates(moving, places, order=1, mode="nearest")
    assert np.abs(warped - expected).max() <= 0.51
    # And ITK does the same with the transform beside it, where it reads within the image.
    images = [
        sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (tmp_path / "m.png", tmp_path / "f.png")
    ]
    transform = sitk.ReadTransform(str(folder / "displacement.h5"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(images[0], images[1], transform, sitk.sitkLinear))
    assert np.abs(theirs - expected)[3:-3, 3:-3].max() < 0.02
    rows = list(csv.DictReader(open(folder / "points_in_moving.csv")))
    at = u[20, 10] + [20, 10]
    assert [float(rows[0][name]) for name in ("y", "x")] == pytest.approx(at, abs=1e-3)
    assert [rows[0]["fixed_x"], rows[1]["fixed_x"]] == ["10", "33.5"]
    assert summary["points"]["carried_to"] == "moving"


def test_a_pair_has_a_page_of_its_own(workdir, tmp_path):
    odd = tmp_path / r"<b>$\frac{$.png"
    options = pair(tmp_path)
    (tmp_path / "m.png").rename(odd)
    options[0] = f"--register.moving={odd}"
    assert register(workdir, tmp_path / "out", *options, "--register.formats=[npz]", figures=True) == 0
    (folder,) = (tmp_path / "out").iterdir()
    page = (folder / "registration.html").read_text(encoding="utf-8")
    text = page.replace("<wbr>", "")
    assert r"&lt;b&gt;$\frac{$.png (70 × 70 px) was registered onto f.png (70 × 70 px)." in text
    assert "<b>" not in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(addresses) > 8 and all(address.startswith("data:image/") for address in addresses)
    for warning in told(folder)["warnings"]:
        assert html.escape(warning[1:]) in text


def test_images_of_two_contrasts_are_compared_by_a_checkerboard(workdir, tmp_path):
    image = scene(80)
    save(tmp_path / "m.png", 1 - image)
    save(tmp_path / "f.png", image)
    files = [f"--register.{name}={tmp_path / name[0]}.png" for name in ("moving", "fixed")]
    options = [*files, "--register.weights=still", "--register.formats=[npz]"]
    for name, chosen, overlaid in (
        ("auto", [], False),
        ("overlay", ["--register.comparison=overlay"], True),
        ("none", ["--register.figures=false"], False),
    ):
        assert register(workdir, tmp_path / name, *options, *chosen, figures=True) == 0
        names = {path.name for path in (tmp_path / name / "m-to-f").iterdir()}
        assert ("overlay.png" in names) == overlaid
        assert ("checkerboard.png" in names) == ("registration.html" in names) == (name != "none")


def test_colours_are_shown_as_they_are(workdir, tmp_path):
    image = scene(80)
    colour = np.stack([image, 0.5 * image, 1 - image], axis=-1)
    save(tmp_path / "m.png", colour)
    save(tmp_path / "f.png", colour)
    files = [f"--register.{name}={tmp_path / name[0]}.png" for name in ("moving", "fixed")]
    options = [*files, "--register.weights=still", "--register.formats=[npz]"]
    assert register(workdir, tmp_path / "out", *options, figures=True) == 0
    page = (tmp_path / "out" / "m-to-f" / "registration.html").read_text(encoding="utf-8")
    source = re.search(r'src="data:image/png;base64,([^"]*)" alt="Fixed image"', page)[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(tmp_path / "f.png")))


def test_landmarks_that_came_apart_though_the_images_agree_better_are_warned_of(workdir, tmp_path):
    """Landmarks that say that nothing moved, on images of which one is shifted."""
    pair(tmp_path)
    (tmp_path / "l.csv").write_text("x,y\n20,20\n40,30\n")
    row = "moving,fixed,moving_landmarks,fixed_landmarks\nm.png,f.png,l.csv,l.csv\n"
    (tmp_path / "pairs.csv").write_text(row)
    options = [f"--register.pairs={tmp_path}", "--register.formats=[npz]", "--register.weights=still"]
    assert register(workdir, tmp_path / "out", *options, "--register.align=affine") == 0
    summary = told(tmp_path / "out" / "m-to-f")
    assert summary["similarity"]["ncc"]["after"] > summary["similarity"]["ncc"]["before"]
    (warning,) = (line for line in summary["warnings"] if "landmarks" in line)
    assert re.fullmatch(
        r"the landmarks lie farther apart than before \(0.00 -> [12].\d+ px\), though the images agree "
        r"better \(NCC .* -> .*\): do not take similarity for accuracy.",
        warning,
    )


@pytest.mark.parametrize("fit", ["records", "native"])
@pytest.mark.parametrize(("moving", "fixed"), [((97, 131), (64, 81)), ((40, 33), (51, 70))])
def test_images_of_any_two_sizes(workdir, tmp_path, fit, moving, fixed):
    """A network that moves nothing leaves what their sizes alone say."""
    names = [
        f"--register.{name}={save(tmp_path / f'{name}.png', scene(140, 1)[: shape[0], : shape[1]])}"
        for name, shape in (("moving", moving), ("fixed", fixed))
    ]
    options = [*names, "--register.weights=still", f"--register.fit={fit}", "--register.formats=[npz]"]
    assert register(workdir, tmp_path / "out", *options) == 0
    folder = tmp_path / "out" / "moving-to-fixed"
    assert open_image(folder / "warped.png").pixels.shape == fixed
    landed = displacement(folder) + np.stack(np.indices(fixed), axis=-1)
    if fit == "records":
        expected = (np.stack(np.indices(fixed), axis=-1) + 0.5) * moving / fixed - 0.5
    else:
        frame = np.maximum(moving, fixed)
        expected = np.stack(np.indices(fixed), axis=-1) + (frame - fixed) // 2 - (frame - moving) // 2
    np.testing.assert_allclose(landed, expected, atol=0.1)
    assert told(folder)["shapes"]["moving"] == list(moving)


FORMATS = [
    (".png", "uint8", 3),
    (".png", "uint16", 0),
    (".png", "uint16", 3),
    (".tif", "float32", 0),
    (".tiff", "uint16", 0),
    (".jpg", "uint8", 0),
    (".npy", "float64", 0),
    (".npy", "int16", 0),
    (".nii.gz", "int16", 0),
]


def test_the_warped_image_has_the_moving_ones_format_depth_and_colours(workdir, tmp_path):
    for name, rows in (("moving", slice(2, 72)), ("fixed", slice(0, 70))):
        (tmp_path / name).mkdir()
        for number, (ending, as_type, channels) in enumerate(FORMATS):
            image = scene(72)[rows]
            image = np.dstack([image, image[::-1], 1 - image]) if channels else image
            save(tmp_path / name / f"image{number}{ending}", image, as_type)
    options = [f"--register.{name}={tmp_path / name}" for name in ("moving", "fixed")]
    options += ["--register.weights=still", "--register.formats=[npz]"]
    assert register(workdir, tmp_path / "out", *options) == 0
    for number, (ending, as_type, _) in enumerate(FORMATS):
        moving = open_image(tmp_path / "moving" / f"image{number}{ending}").pixels
        warped = open_image(tmp_path / "out" / f"image{number}" / f"warped{ending}").pixels
        assert (warped.dtype, warped.shape) == (moving.dtype, moving.shape)
        white = {"uint8": 255, "uint16": 65535}.get(as_type, np.ptp(moving))
        assert np.abs(warped.astype(float) - moving).max() < 0.03 * white


def test_points_of_the_moving_image_go_the_other_way(workdir, tmp_path):
    images = pair(tmp_path)
    given = tmp_path / "given.csv"
    given.write_text("row,col\n20,10\n41,33.5\n30.25,50\n")
    there = [*images, f"--register.points={given}"]
    assert register(workdir, tmp_path / "there", *there) == 0
    carried = tmp_path / "there" / "m-to-f" / "points_in_moving.csv"
    back = [*images, f"--register.points={carried}", "--register.points_in=moving"]
    assert register(workdir, tmp_path / "back", *back) == 0
    found = read_landmarks(tmp_path / "back" / "m-to-f" / "points_in_fixed.csv")
    np.testing.assert_allclose(found, read_landmarks(given), atol=0.01)
    assert np.abs(read_landmarks(carried) - read_landmarks(given)).max() > 0.1


def test_a_real_pair_is_aligned_and_its_points_meet(workdir, tmp_path, real_data):
    source = real_data / "octa_scp"
    names = [f"pair38_{name}" for name in ("moving", "fixed")]
    options = [f"--register.{name.split('_')[1]}={source / 'images' / f'{name}.png'}" for name in names]
    options += [f"--register.points={source / 'landmarks' / 'pair38_fixed.csv'}", "--register.weights=still"]
    assert (
        register(workdir, tmp_path / "out", *options, "--register.align=affine", "--register.fit=native") == 0
    )
    moving, fixed = (read_landmarks(source / "landmarks" / f"{name}.csv") for name in names)
    carried = read_landmarks(tmp_path / "out" / "pair38_moving-to-pair38_fixed" / "points_in_moving.csv")
    before, after = (np.linalg.norm(points - moving, axis=1).mean() for points in (fixed, carried))
    assert before > 14 and after < 3


def table(folder: Path, count: int = 3) -> Path:
    """A pairs.csv of so many pairs, the first of them with landmarks."""
    folder.mkdir(exist_ok=True)
    rows = ["moving,fixed,subject,moving_landmarks,fixed_landmarks"]
    for number in range(count):
        image = scene(80, number)
        save(folder / f"m{number}.png", image[:70, 2:72])
        save(folder / f"f{number}.png", image[:70, :70])
        rows.append(f"m{number}.png,f{number}.png,eye{number}" + (",," if number else ",mp.csv,fp.csv"))
    (folder / "mp.csv").write_text("x,y\n20,20\n40,30\n")
    (folder / "fp.csv").write_text("x,y\n22,20\n42,30\n")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_table_of_pairs_is_adapted_to_registered_and_not_registered_twice(workdir, tmp_path, capsys):
    options = [f"--register.pairs={table(tmp_path / 'in')}", "--register.formats=[npz]"]
    options += ["--register.adapt_epochs=8", "--register.adapt_learning_rate=0.01"]
    assert register(workdir, tmp_path / "plain", *options[:2]) == 0
    assert register(workdir, tmp_path / "out", *options) == 0
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folders == ["m0-to-f0", "m1-to-f1", "m2-to-f2"]
    for name in folders:
        adapted, plain = (told(tmp_path / which / name) for which in ("out", "plain"))
        assert adapted["similarity"]["local_ncc"]["after"] > plain["similarity"]["local_ncc"]["after"] + 0.01
    landmarks = told(tmp_path / "out" / "m0-to-f0")["landmarks"]
    assert landmarks["distance_before_px"] == pytest.approx(2)
    assert landmarks["distance_px"] < 1.9
    # Stopped after the first pair, the same command makes the others and leaves the first alone.
    kept = (tmp_path / "out" / "m0-to-f0" / "summary.json").stat().st_mtime_ns
    contents = {name: displacement(tmp_path / "out" / name) for name in folders}
    for name in folders[1:]:
        shutil.rmtree(tmp_path / "out" / name)
    capsys.readouterr()
    assert register(workdir, tmp_path / "out", *options) == 0
    assert "m0-to-f0: registered already" in capsys.readouterr().err
    assert (tmp_path / "out" / "m0-to-f0" / "summary.json").stat().st_mtime_ns == kept
    for name, content in contents.items():
        np.testing.assert_array_equal(displacement(tmp_path / "out" / name), content)
    # Made otherwise, it is not passed off for what was asked for.
    assert register(workdir, tmp_path / "out", *options[:2]) == 2
    error = capsys.readouterr().err
    assert error.count("is there already, made otherwise (options") == 3


def test_each_pair_is_adapted_to_from_the_weights_themselves(workdir, tmp_path):
    """So the order of the pairs does not matter."""
    root = table(tmp_path / "in", 2)
    options = ["--register.adapt_steps=3", "--register.adapt_learning_rate=0.01", "--register.formats=[npz]"]
    assert register(workdir, tmp_path / "one", f"--register.pairs={root}", *options) == 0
    lines = (root / "pairs.csv").read_text().splitlines()
    (root / "turned.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert register(workdir, tmp_path / "other", f"--register.pairs={root / 'turned.csv'}", *options) == 0
    for name in ("m0-to-f0", "m1-to-f1"):
        one, other = (displacement(tmp_path / which / name) for which in ("one", "other"))
        np.testing.assert_array_equal(one, other)
        assert told(tmp_path / "one" / name)["adaptation_loss"]["first"] != 0


def test_two_folders_pair_up_by_name_and_a_broken_pair_does_not_stop_the_others(workdir, tmp_path, capsys):
    for name, columns in (("moving", slice(2, 72)), ("fixed", slice(0, 70))):
        (tmp_path / name).mkdir()
        for key in "abc":
            save(tmp_path / name / f"{key}.png", scene(80, ord(key))[:70, columns])
    content = (tmp_path / "fixed" / "b.png").read_bytes()
    (tmp_path / "fixed" / "b.png").write_bytes(content[: len(content) // 2])
    options = [f"--register.{name}={tmp_path / name}" for name in ("moving", "fixed")]
    assert register(workdir, tmp_path / "out", *options, "--register.formats=[npz]") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c"]
    error = [line for line in capsys.readouterr().err.splitlines() if "png" in line or "error" in line]
    assert "error: 1 of 3 pairs were not registered" in error[0]
    assert error[1].startswith("b: ") and "fixed/b.png: unreadable image" in error[1]


MEMORY = """
import pathlib, re, sys
from tfmetareg.cli import main
assert main(sys.argv[1:]) == 0
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.long
@pytest.mark.parametrize("more", [(), ("--register.fit=native", "--register.figures=false")])
def test_a_pair_of_2048x1536_takes_less_than_2_gb(tmp_path, more):
    save_weights(build_model("vxm_dense", (128, 128)), tmp_path / "model.h5")
    described = {"image_shape": [128, 128], "preprocessing": Preprocessing((128, 128)).describe()}
    write_json(tmp_path / "preprocessing.json", described)
    image = scene(2048)
    options = [
        f"--register.{name}={save(tmp_path / f'{name}.png', np.roll(image[:1536], shift, 0))}"
        for name, shift in (("moving", 0), ("fixed", 5))
    ]
    command = ["--mode=register", f"--workdir={tmp_path}", f"--register.weights={tmp_path / 'model.h5'}"]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *command, *options, *more], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 2e9
    assert displacement(tmp_path / "register" / "moving-to-fixed").shape == (1536, 2048, 2)


def test_a_displacement_near_the_reach_and_a_poor_result_are_warned_of(workdir, tmp_path, capsys):
    """Weights that were not trained move pixels anywhere."""
    options = [*pair(tmp_path), "--register.weights=wild", "--register.formats=[npz]"]
    assert register(workdir, tmp_path / "out", *options) == 0
    warnings = told(tmp_path / "out" / "m-to-f")["warnings"]
    assert "agree no better than before" in " ".join(warnings)
    assert "try `--register.align affine`" in " ".join(warnings)
    printed = capsys.readouterr().err
    assert all(f"warning: m-to-f: {line}" in printed for line in warnings)


def test_what_was_made_with_other_preprocessing_loss_seed_or_files_is_made_otherwise(
    workdir, tmp_path, capsys
):
    shutil.copytree(workdir / "finetune", tmp_path / "runs" / "finetune")
    adapted = [*pair(tmp_path), "--register.formats=[npz]", "--register.adapt_steps=1"]
    assert register(tmp_path / "runs", tmp_path / "out", *adapted) == 0
    for changed, named in (
        ("--loss.smoothness_weight=0.5", "loss"),
        ("--seed=5", "seed"),
        ("--register.formats=[npz,nii.gz]", "options"),
    ):
        assert register(tmp_path / "runs", tmp_path / "out", *adapted, changed) == 2
        assert f"made otherwise ({named})" in capsys.readouterr().err
    described = tmp_path / "runs" / "finetune" / "preprocessing.json"
    described.write_text(described.read_text().replace('"equalize"', '"percentile"'))
    assert register(tmp_path / "runs", tmp_path / "out", *adapted) == 2
    assert "made otherwise (preprocessing)" in capsys.readouterr().err


def stage_of(workdir: Path, folder: Path, **preprocessing) -> str:
    """The option for the weights that move nothing, of records made in another way."""
    folder.mkdir()
    shutil.copy(workdir / "still" / "model.h5", folder)
    described = Preprocessing((64, 64), **preprocessing).describe()
    write_json(folder / "preprocessing.json", {"image_shape": [64, 64], "preprocessing": described})
    return f"--register.weights={folder / 'model.h5'}"


def test_what_cropped_records_leave_out_is_told_and_what_padded_ones_refuse_can_be_kept(
    workdir, tmp_path, capsys
):
    images = [*pair(tmp_path), "--register.formats=[npz]"]
    cropped = stage_of(workdir, tmp_path / "crop", fit="crop")
    assert register(workdir, tmp_path / "out", *images, cropped) == 0
    summary = told(tmp_path / "out" / "m-to-f")
    share = pytest.approx(100 * (64 / 70) ** 2, abs=0.01)
    assert summary["seen_percent"] == {"moving": share, "fixed": share}
    assert "only 84 % of the fixed image are registered" in " ".join(summary["warnings"])
    native = [*images, cropped, "--register.fit=native"]
    assert register(workdir, tmp_path / "native", *native) == 0
    assert told(tmp_path / "native" / "m-to-f")["seen_percent"] == {"moving": 100, "fixed": 100}
    capsys.readouterr()
    for name, options in (("pad", {"fit": "pad"}), ("spacing", {"fit": "crop", "spacing": 0.5})):
        refusing = stage_of(workdir, tmp_path / name, **options)
        assert register(workdir, tmp_path / "none", *images, refusing) == 2
        error = capsys.readouterr().err
        assert "use `--register.fit native`." in error and "--fit " not in error.replace("register.fit", "")


def test_images_out_of_reach_are_warned_of_before_the_network_could_tell(workdir, tmp_path):
    image = scene(320)
    names = [
        f"--register.{name}={save(tmp_path / f'{name}.png', image[:200, shift : shift + 200])}"
        for name, shift in (("moving", 60), ("fixed", 0))
    ]
    options = [*names, "--register.weights=still", "--register.formats=[npz]", "--register.fit=native"]
    assert register(workdir, tmp_path / "out", *options) == 0
    warnings = " ".join(told(tmp_path / "out" / "moving-to-fixed")["warnings"])
    # The network was trained at 64 pixels, whatever the size of these.
    assert "seem to lie 59 px and more apart, the network finds about 2.6 px: try" in warnings
    assert register(workdir, tmp_path / "aligned", *options, "--register.align=affine") == 0
    assert told(tmp_path / "aligned" / "moving-to-fixed")["warnings"] == []


def test_images_that_have_nothing_in_common_are_warned_of(workdir, tmp_path):
    names = [
        f"--register.{name}={save(tmp_path / f'{name}.png', texture(np.random.default_rng(seed), 2.5, 64))}"
        for seed, name in enumerate(("moving", "fixed"))
    ]
    options = [*names, "--register.weights=still", "--register.formats=[npz]", "--register.align=affine"]
    assert register(workdir, tmp_path / "out", *options) == 0
    warnings = " ".join(told(tmp_path / "out" / "moving-to-fixed")["warnings"])
    assert "alignment found nothing better than leaving the images as they are" in warnings
    assert "hardly agree once they are registered" in warnings
    assert "try `--register.align" not in warnings


def test_a_moving_image_that_its_header_mirrors_comes_out_in_place(workdir, tmp_path, capsys):
    """Both files show the same tissue at the same place; the moving one's columns run the other way."""
    pixels = np.float32(scene(64)[:48])
    for name, shown, step, columns in (("f", pixels, 1, (10, 40)), ("m", pixels[:, ::-1], -1, (53, 23))):
        affine = np.diag([step, 1.0, 2.0, 1.0])
        affine[0, 3] = 63 if step < 0 else 0
        nibabel.save(nibabel.Nifti1Image(shown.T[..., None], affine), tmp_path / f"{name}.nii.gz")
        (tmp_path / f"{name}.csv").write_text("x,y\n{},20\n{},30\n".format(*columns))
    (tmp_path / "pairs.csv").write_text(
        "moving,fixed,moving_landmarks,fixed_landmarks\nm.nii.gz,f.nii.gz,m.csv,f.csv\n"
    )
    options = [f"--register.pairs={tmp_path}", f"--register.points={tmp_path / 'f.csv'}"]
    assert register(workdir, tmp_path / "out", *options, "--register.weights=still", figures=True) == 0
    folder = tmp_path / "out" / "m-to-f"
    summary = told(folder)
    assert summary["similarity"]["ncc"]["before"] > 0.99
    assert summary["folding_percent"] == 0 and summary["displacement_px"]["max"] < 0.1
    assert summary["landmarks"]["distance_before_px"] < 0.01 and summary["landmarks"]["distance_px"] < 0.1
    np.testing.assert_allclose(
        read_landmarks(folder / "points_in_moving.csv"), [[20, 53], [30, 23]], atol=0.1
    )
    assert [line for line in summary["warnings"] if "turned or mirrored" in line]
    assert "warning: m-to-f: " in (told_on_stderr := capsys.readouterr().err)
    assert "its header has it turned or mirrored against the fixed image" in told_on_stderr
    paths = [str(path) for path in (tmp_path / "m.nii.gz", tmp_path / "f.nii.gz", folder / "displacement.h5")]
    theirs = sitk.Resample(*map(sitk.ReadImage, paths[:2]), sitk.ReadTransform(paths[2]))
    np.testing.assert_allclose(sitk.GetArrayFromImage(theirs)[0, 2:-2, 2:-2], pixels[2:-2, 2:-2], atol=0.02)


def test_a_picture_onto_a_file_with_a_place(workdir, tmp_path, capsys):
    pixels = np.uint8(255 * scene(64)[:48])
    Image.fromarray(np.dstack([pixels] * 3)).save(tmp_path / "m.png")
    affine = np.array([[0, 0, 2.0, 5], [0.5, 0, 0, 6], [0, 0.7, 0, 7], [0, 0, 0, 1]])  # sagittal
    nibabel.save(nibabel.Nifti1Image(pixels.T[..., None], affine), tmp_path / "f.nii.gz")
    options = [f"--register.moving={tmp_path / 'm.png'}", f"--register.fixed={tmp_path / 'f.nii.gz'}"]
    assert register(workdir, tmp_path / "out", *options, "--register.weights=still") == 0
    err = capsys.readouterr().err
    assert "m.png: tells no direction; taken to be that of the image that it is paired with." in err
    assert "one image is 2D, the other a slice in space" in err
    folder = tmp_path / "out" / "m-to-f"
    assert open_image(folder / "warped.png").pixels.shape == (48, 64, 3)
    in_place = nibabel.load(folder / "warped.nii.gz")
    np.testing.assert_allclose(in_place.affine[:, :2], affine[:, :2], atol=1e-6)
    np.testing.assert_allclose(in_place.affine[:3, 3], affine[:3, 3], atol=1e-5)


def test_a_slice_of_a_volume_with_a_hash_in_its_name(workdir, tmp_path):
    volume = np.stack([scene(70)] * 3).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / "v#1.nii.gz"))
    options = [f"--register.moving={tmp_path / 'v#1.nii.gz#2'}", pair(tmp_path)[1]]
    assert register(workdir, tmp_path / "out", *options, "--register.formats=[npz]") == 0
    assert [path.name for path in tmp_path.glob("out/*/warped.*")] == ["warped.nii.gz"]


def test_a_pair_that_cannot_be_written_does_not_stop_the_others(workdir, tmp_path, capsys):
    root = table(tmp_path / "in", 2)
    noise = np.random.default_rng(0).random((200, 200))
    save(root / "f0.png", noise)
    (root / "fp.csv").unlink()
    (root / "pairs.csv").write_text("moving,fixed\nm0.png,f0.png\nm1.png,f1.png\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
    try:
        status = register(workdir, tmp_path / "out", f"--register.pairs={root}", "--register.formats=[tfm]")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    error = capsys.readouterr().err
    assert "m0-to-f0: " in error and "is the disk full?" in error and "Traceback" not in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m1-to-f1"]


def test_points_that_lie_nowhere_are_carried_on_as_such(workdir, tmp_path):
    images = [*pair(tmp_path), "--register.formats=[npz]"]
    carried = tmp_path / "carried.csv"
    carried.write_text("x,y,fixed_x,fixed_y\n10,20,11,21\n,,1,2\n99,5,3,4\n")
    for points_in, found in (("fixed", "points_in_moving.csv"), ("moving", "points_in_fixed.csv")):
        options = [*images, f"--register.points={carried}", f"--register.points_in={points_in}"]
        assert register(workdir, tmp_path / points_in, *options, figures=points_in == "fixed") == 0
        folder = tmp_path / points_in / "m-to-f"
        lines = (folder / found).read_text().splitlines()
        assert lines[1].endswith(",10,20") and lines[2:] == [",,,", ",,,"]
        summary = told(folder)
        assert (summary["points"]["count"], summary["points"]["outside"]) == (3, 2)
        assert "2 of 3 points lie on no pixel" in " ".join(summary["warnings"])
