"""The front door: `tfmetareg.register` and `tfmetareg.adapt` on arrays, files and other libraries' images."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from PIL import Image
from scipy import ndimage

import tfmetareg
from tests.conftest import texture
from tests.unit.tfmetareg.registration.test_similarity import FIRST, SECOND, shown, tissue
from tfmetareg.cli import main
from tfmetareg.command_line import parse_command
from tfmetareg.config import Config
from tfmetareg.registration.weights import SHIPPED

SHIFT = np.array([1.5, -2.0])


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (96, 80), moving and fixed: the fixed point p lies at p + SHIFT in the moving image."""
    big = texture(np.random.default_rng(0), 3.0, 128)
    big = (255 * (big - big.min()) / np.ptp(big)).astype(np.float32)
    fixed = big[10:106, 20:100]
    moving = ndimage.shift(big, SHIFT, order=3)[10:106, 20:100]
    return np.uint8(np.clip(moving, 0, 255)), np.uint8(fixed)


@pytest.fixture(scope="module")
def registration(pair):
    return tfmetareg.register(*pair)


def middle(array: np.ndarray) -> np.ndarray:
    return array[16:-16, 16:-16]


def test_a_known_shift_is_found(registration):
    assert np.abs(np.median(middle(registration.displacement), axis=(0, 1)) - SHIFT).max() < 0.25
    assert registration.displacement.dtype == np.float32
    assert registration.displacement.shape == (96, 80, 2)


def test_the_warped_image_is_the_fixed_one_in_the_moving_ones_type(pair, registration):
    moving, fixed = (image.astype(float) for image in pair)
    assert registration.warped.dtype == np.uint8
    before, after = (np.abs(middle(image) - middle(fixed)).mean() for image in (moving, registration.warped))
    assert after < 0.4 * before


def test_points_go_there_and_back(registration):
    points = np.array([[40.0, 30.0], [50.0, 44.0]])
    there = registration.to_moving(points)
    assert np.abs(there - points - SHIFT).max() < 1
    assert np.abs(registration.to_fixed(there) - points).max() < 0.01


def test_points_that_are_given_are_carried_and_saved(pair, tmp_path):
    points = np.array([[40.0, 30.0]])
    registration = tfmetareg.register(*pair, points=points, points_in="moving")
    np.testing.assert_array_equal(registration.points.moving, points)
    assert np.abs(registration.points.fixed - points + SHIFT).max() < 1
    registration.save(tmp_path / "pair", figures=False)
    assert (tmp_path / "pair" / "points_in_fixed.csv").is_file()


def test_labels_are_warped_by_nearest_neighbour(pair, registration):
    labels = np.where(pair[0] > 128, 1000, 7).astype(np.int32)
    warped = registration.warp(labels, interpolation="nearest")
    assert warped.dtype == np.int32 and set(np.unique(warped)) == {7, 1000}
    blurred = registration.warp(labels.astype(np.float32))
    assert len(np.unique(blurred)) > 2
    with pytest.raises(tfmetareg.UserError, match=r"must have the moving image's size, \(96, 80\)"):
        registration.warp(labels[1:])


def test_the_determinant_is_of_the_displacement(registration):
    determinant = registration.jacobian_determinant()
    rows, columns = (np.diff(registration.displacement, axis=axis) for axis in (0, 1))
    expected = (1 + rows[:, :-1, 0]) * (1 + columns[:-1, :, 1]) - rows[:, :-1, 1] * columns[:-1, :, 0]
    np.testing.assert_allclose(determinant, expected, atol=1e-5)


def as_png(image: np.ndarray, folder: Path, name: str) -> str:
    Image.fromarray(image).save(folder / f"{name}.png")
    return str(folder / f"{name}.png")


def as_itk(image: np.ndarray, folder: Path, name: str) -> sitk.Image:
    converted = sitk.GetImageFromArray(image)
    converted.SetSpacing([0.5, 0.25])
    converted.SetOrigin([10, -20])
    return converted


def as_nibabel(image: np.ndarray, folder: Path, name: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(image.T, np.diag([-0.5, -0.25, 1, 1]))


@pytest.mark.parametrize("convert", [as_png, as_itk, as_nibabel])
def test_every_kind_of_image_gives_the_same(pair, registration, tmp_path, convert):
    images = [convert(image, tmp_path, name) for name, image in zip(("moving", "fixed"), pair)]
    found = tfmetareg.register(*images)
    np.testing.assert_allclose(found.displacement, registration.displacement, atol=1e-4)
    if convert is not as_png:
        assert found.fixed.grid.spacing == pytest.approx((0.5, 0.25))


def test_what_is_saved_resamples_the_image_in_simpleitk(pair, tmp_path):
    moving, fixed = (as_itk(image, tmp_path, "image") for image in pair)
    registration = tfmetareg.register(moving, fixed)
    folder = registration.save(tmp_path / "pair", formats=["h5", "npz"], figures=False)
    transform = sitk.ReadTransform(str(folder / "displacement.h5"))
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear))
    difference = np.abs(middle(resampled.astype(float)) - middle(registration.warped.astype(float)))
    assert difference.max() <= 1  # of 255: both round
    field = tfmetareg.read_field(folder / "displacement.npz")
    np.testing.assert_array_equal(field.displacement, registration.displacement)
    with pytest.raises(tfmetareg.UserError, match="is there already"):
        registration.save(folder)


def test_the_command_line_is_a_caller_of_the_same(pair, registration, tmp_path):
    files = [as_png(image, tmp_path, name) for name, image in zip(("moving", "fixed"), pair)]
    options = [f"--register.moving={files[0]}", f"--register.fixed={files[1]}", "--register.weights=start"]
    options += ["--register.align=affine", "--register.figures=false", "--model.precision=float32"]
    assert main(["--mode=register", f"--workdir={tmp_path}", *options]) == 0
    (folder,) = (tmp_path / "register").iterdir()
    field = tfmetareg.read_field(folder / "displacement.npz")
    np.testing.assert_allclose(field.displacement, registration.displacement, atol=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["weights"]["file"] == str(SHIPPED["start"])
    assert summary["folding_percent"] == pytest.approx(registration.summary["folding_percent"], abs=1e-3)


def test_the_short_form_registers_two_files_beside_them(pair, registration, tmp_path, capsys):
    files = [as_png(image, tmp_path, name) for name, image in zip(("moving", "fixed"), pair)]
    assert main(["register", *files, "--register.figures=false", "--model.precision=float32"]) == 0
    field = tfmetareg.read_field(tmp_path / "moving-to-fixed" / "displacement.npz")
    np.testing.assert_allclose(field.displacement, registration.displacement, atol=1e-4)
    (tmp_path / "all.yaml").write_text(Config().to_yaml())
    options = ["--config", str(tmp_path / "all.yaml"), "--register.figures=false", "--register.align=none"]
    command = parse_command(["register", *files, *options])
    assert (command.config.register.moving, command.config.register.weights) == (files[0], "start")
    assert (command.config.register.align, command.config.register.output) == ("none", str(tmp_path))
    assert main(["register", files[0], "--register.figures=false"]) == 2
    assert "tfmetareg register MOVING FIXED" in capsys.readouterr().err


def test_a_notebook_shows_the_overlay_and_the_warnings(pair, registration):
    shown = registration._repr_html_()
    assert "data:image/png;base64," in shown
    unlike = tfmetareg.register(pair[0], np.rot90(pair[1], 2).copy())
    assert unlike.warnings
    assert unlike.warnings[0].split("%")[0].split("(")[0] in unlike._repr_html_()


def test_a_registration_is_measured_once(pair, tmp_path, monkeypatch):
    calls = []
    measure = tfmetareg.api.measure
    monkeypatch.setattr(
        tfmetareg.api, "measure", lambda registration: calls.append(1) or measure(registration)
    )
    registration = tfmetareg.register(*pair)
    registration.summary["similarity"].clear()  # The caller's own copy.
    folder = registration.save(tmp_path / "pair", formats=["npz"], figures=False)
    assert registration.summary["similarity"]["ncc"]["after"] > 0.5
    assert registration.warnings == [] and registration._repr_html_()
    assert len(calls) == 1
    saved = json.loads((folder / "summary.json").read_text())
    assert saved["similarity"] == registration.summary["similarity"]


def test_steps_on_the_pair_bring_it_closer_and_leave_the_weights(pair):
    plain = tfmetareg.register(*pair)
    adapted = tfmetareg.register(*pair, adapt_steps=15)
    assert adapted.adaptation.last < adapted.adaptation.first
    assert adapted.summary["adaptation_loss"]["similarity"] == "ncc"
    assert adapted.summary["adaptation_loss"]["start"] == "network"
    assert np.abs(adapted.displacement - plain.displacement).max() > 0.01
    np.testing.assert_array_equal(tfmetareg.register(*pair).displacement, plain.displacement)


def test_a_pair_of_two_contrasts_is_adapted_to_by_mind_and_says_so():
    first, second = (shown(tissue(1), levels) for levels in (FIRST, SECOND))
    moving = np.roll(second, 1, axis=0)
    plain = tfmetareg.register(moving, first, align="none")
    assert any("differ in contrast" in line for line in plain.warnings)
    adapted = tfmetareg.register(moving, first, align="none", adapt_steps=20)
    told = adapted.summary["adaptation_loss"]
    assert told["similarity"] == "mind" and told["last"] < told["first"]
    assert adapted.summary["similarity"]["mind"]["after"] > adapted.summary["similarity"]["mind"]["before"]
    assert not any("contrast" in line or "NCC" in line for line in adapted.warnings)
    missed, found = (np.linalg.norm(each.displacement - [1, 0], axis=-1).mean() for each in (plain, adapted))
    assert found < min(0.9, missed)


def test_adapting_to_ones_own_pairs_improves_them_and_can_be_saved(pair, tmp_path):
    pairs = [pair, tuple(image[::-1].copy() for image in pair)]
    mine = tfmetareg.adapt(pairs, epochs=8)
    start, after = (
        tfmetareg.register(*pair, weights=weights).summary["similarity"]["local_ncc"]["after"]
        for weights in ("start", mine)
    )
    assert after > start
    mine.save(tmp_path / "mine" / "mine.h5")
    again = tfmetareg.register(*pair, weights=tmp_path / "mine" / "mine.h5")
    np.testing.assert_array_equal(again.displacement, tfmetareg.register(*pair, weights=mine).displacement)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: tfmetareg.register("nowhere.png", b), "nowhere.png: no such file"),
        (lambda a, b: tfmetareg.register(a, b, weights="nowhere.h5"), "nowhere.h5: no such weights file"),
        (lambda a, b: tfmetareg.register(np.zeros((20, 20)), b), "moving: constant image"),
        (lambda a, b: tfmetareg.register(a, np.zeros((3, 4, 5, 6))), "fixed: must be one 2D image"),
        (lambda a, b: tfmetareg.register(a, b, points=np.zeros((1, 3))), r"must have the shape \(n, 2\)"),
        (lambda a, b: tfmetareg.register(a, b, points=[[500.0, 1.0]]), r"must lie on fixed, \(96, 80\)"),
        (lambda a, b: tfmetareg.register(a, b, align="afine"), "`align` must be one of none, rigid, affine"),
        (lambda a, b: tfmetareg.register(a, b, fit="nativ"), "`fit` must be one of records, native"),
        (lambda a, b: tfmetareg.register(a, b, points_in="Fixed"), "`points_in` must be one of"),
        (lambda a, b: tfmetareg.register(a, b, similarity="mse"), "`similarity` must be one of auto, ncc"),
        (lambda a, b: tfmetareg.register(a, b, adapt_steps=-1), "`adapt_steps` must be a whole number"),
        (lambda a, b: tfmetareg.register(a, b, weights=None), "`weights` must be 'start'"),
        (lambda a, b: tfmetareg.register(np.ma.masked_less(a, 9), b), "moving: must be a plain array"),
        (lambda a, b: tfmetareg.register(a, b).save("x", formats=["nrrd"]), "`formats` must be one of npz"),
        (lambda a, b: tfmetareg.register(a, b).to_moving(np.zeros((2, 5))), r"must have the shape \(n, 2\)"),
        (lambda a, b: tfmetareg.register(a, b).warp(a, "cubic"), "`interpolation` must be one of linear"),
        (lambda a, b: tfmetareg.register(a, b).warp(a + 1j), "must hold real numbers"),
        (lambda a, b: tfmetareg.adapt([]), "must hold at least one"),
        (lambda a, b: tfmetareg.adapt((a, b)), r"must hold \(moving, fixed\) pairs"),
        (lambda a, b: tfmetareg.adapt([(a, np.ones_like(b))]), "fixed: constant image"),
    ],
)
def test_a_mistake_is_one_clear_line(pair, call, message):
    with pytest.raises(tfmetareg.UserError, match=message) as error:
        call(*pair)
    assert "\n" not in str(error.value)


def test_a_pair_that_cannot_be_adapted_to_is_refused(pair):
    start = tfmetareg.load_network("start")
    small = dataclasses.replace(start.preprocessing, image_size=(32, 32), fit="pad")
    with pytest.raises(tfmetareg.UserError, match="are more than the records' 32 x 32"):
        tfmetareg.adapt([pair], weights=tfmetareg.TrainedNetwork(start.model, small))


def test_weights_that_the_user_sets_stay_set(pair):
    network = tfmetareg.load_network("start")
    tfmetareg.register(*pair, weights=network)
    network.model.set_weights([np.zeros_like(weight) for weight in network.model.get_weights()])
    tfmetareg.register(*pair, weights=network, adapt_steps=1)
    assert not any(weight.any() for weight in network.model.get_weights())


def test_weights_of_two_preprocessings_do_not_share_a_folder(tmp_path):
    start = tfmetareg.load_network("start")
    start.save(tmp_path / "a.h5")
    start.save(tmp_path / "b.h5")  # The same preprocessing serves both.
    other = dataclasses.replace(start.preprocessing, intensity="percentile")
    with pytest.raises(tfmetareg.UserError, match="a.h5, b.h5 in that folder .* name a folder of its own"):
        tfmetareg.TrainedNetwork(start.model, other).save(tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()
    assert tfmetareg.load_network(tmp_path / "a.h5").preprocessing == start.preprocessing


def test_a_weights_file_that_changes_is_read_again(pair, tmp_path):
    start = tfmetareg.load_network("start")
    start.save(tmp_path / "mine.h5")
    before = tfmetareg.register(*pair, weights=tmp_path / "mine.h5", align="none")
    start.model.set_weights([np.zeros_like(weight) for weight in start.model.get_weights()])
    start.save(tmp_path / "mine.h5")
    after = tfmetareg.register(*pair, weights=tmp_path / "mine.h5", align="none")
    assert np.abs(before.displacement).max() > 0.1 and not after.displacement.any()


def test_a_registration_is_a_value_of_its_own(pair):
    moving = pair[0].copy()
    registration = tfmetareg.register(moving, pair[1])
    shown = registration._repr_html_()
    moving[:] = 0
    assert registration._repr_html_() == shown
    assert registration != tfmetareg.register(*pair) and registration in [registration]


def test_labels_of_any_size_and_sign_are_kept(pair, registration):
    labels = np.where(pair[0] > 128, 2**62 + 1, -5)
    assert set(np.unique(registration.warp(labels, "nearest"))) == {2**62 + 1, -5}


def test_importing_the_package_is_quick_and_loads_no_tensorflow():
    program = (
        "import time; began = time.perf_counter(); import tfmetareg; "
        "print(time.perf_counter() - began); import sys; assert 'tensorflow' not in sys.modules; "
        "assert 'numpy' not in sys.modules; assert tfmetareg.__version__"
    )
    seconds = min(
        float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    )
    assert seconds < 0.3


def test_everything_that_is_exported_is_there_and_has_an_example():
    for name in tfmetareg.__all__:
        assert getattr(tfmetareg, name) is not None
    assert set(tfmetareg.__all__) == {"__version__", *tfmetareg._EXPORTS}
    assert set(tfmetareg.__all__) <= set(dir(tfmetareg))
    for name in ("register", "adapt", "build_model", "load_model", "read_field", "Records", "register_model"):
        assert ">>>" in getattr(tfmetareg, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'registr'"):
        tfmetareg.registr  # noqa: B018
