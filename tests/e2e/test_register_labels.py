"""`--mode register` carries label maps along and measures how well they agree."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
import tifffile
from PIL import Image

import tfmetareg
from tests.conftest import FEATURES, texture
from tfmetareg.cli import main
from tfmetareg.evaluation.overlap import label_scores
from tfmetareg.files import write_json
from tfmetareg.imaging.labels import open_labels
from tfmetareg.imaging.preprocessing import Preprocessing
from tfmetareg.imaging.read import open_image
from tfmetareg.models.registry import build_model
from tfmetareg.models.weights import save_weights

SHAPE = (64, 64)
SHIFT = (3, -5)
AFFINE = np.array([[-0.7, 0, 0, 40], [0, -0.9, 0, 30], [0, 0, 2, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A network that moves everything by SHIFT pixels of 64."""
    path = tmp_path_factory.mktemp("weights") / "model.h5"
    model = build_model("vxm_dense", SHAPE, features=FEATURES)
    values = [np.zeros_like(weight) for weight in model.get_weights()]
    values[-1][:] = SHIFT
    model.set_weights(values)
    save_weights(model, path)
    described = {"image_shape": SHAPE, "preprocessing": Preprocessing(SHAPE).describe()}
    write_json(path.with_name("preprocessing.json"), described)
    return str(path)


def grey(seed: int, shape=SHAPE) -> np.ndarray:
    image = texture(np.random.default_rng(seed), 3.0, 64)[: shape[0], : shape[1]]
    return np.uint8(255 * (image - image.min()) / np.ptp(image))


def label_map(*numbers: int) -> np.ndarray:
    """Two squares well inside the image; the second has the second number."""
    labels = np.zeros(SHAPE, np.int64)
    labels[12:30, 14:34] = numbers[0]
    labels[36:50, 30:48] = numbers[1]
    return labels


def shifted(labels: np.ndarray) -> np.ndarray:
    """By hand: labels at p + SHIFT, 0 beyond the image."""
    rows, columns = np.indices(labels.shape)
    rows, columns = rows + SHIFT[0], columns + SHIFT[1]
    inside = (rows >= 0) & (rows < labels.shape[0]) & (columns >= 0) & (columns < labels.shape[1])
    return np.where(inside, labels[rows % labels.shape[0], columns % labels.shape[1]], 0)


@pytest.fixture
def images(tmp_path) -> list[str]:
    for seed, name in enumerate(("moving", "fixed")):
        Image.fromarray(grey(seed)).save(tmp_path / f"{name}.png")
    return [f"--register.{name}={tmp_path / name}.png" for name in ("moving", "fixed")]


def register(weights: str, output: Path, *options: str, figures: bool = False) -> int:
    return main([
        "--mode=register", f"--workdir={output.parent}", f"--register.weights={weights}",
        f"--register.output={output}", "--register.formats=[npz]",
        f"--register.figures={str(figures).lower()}", *map(str, options),
    ])  # fmt: skip


def told(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def save_palette(path: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette([(255 - 3 * value) % 256 for value in range(768)])
    image.save(path)


def save_scaled(path: Path, labels: np.ndarray) -> None:
    image = nibabel.Nifti1Image(labels.T.astype(float), AFFINE)
    image.set_data_dtype(np.int16)
    nibabel.save(image, path)
    assert (nibabel.load(path).get_fdata() != labels.T).any()


KINDS = {
    "palette": (".png", (1, 200), save_palette),
    "8 bits": (".png", (1, 255), lambda path, labels: Image.fromarray(np.uint8(labels)).save(path)),
    "16 bits": (".png", (7, 65535), lambda path, labels: Image.fromarray(np.uint16(labels)).save(path)),
    "1 bit": (".png", (1, 1), lambda path, labels: Image.fromarray(labels > 0).save(path)),
    "TIFF": (".tif", (-4, 70000), lambda path, labels: tifffile.imwrite(path, np.int32(labels))),
    "NumPy": (".npy", (-4, 2**40), np.save),
    "floats": (".npy", (1, 2), lambda path, labels: np.save(path, labels * 1.000001)),
    "NIfTI": (
        ".nii.gz",
        (2**24 + 1, 614454277),
        lambda path, labels: nibabel.save(nibabel.Nifti1Image(np.int32(labels.T), AFFINE), path),
    ),
    "NIfTI of 64 bits": (
        ".nii",
        (-7, 2**40 + 1),
        lambda path, labels: nibabel.save(nibabel.Nifti1Image(labels.T, AFFINE, dtype=np.int64), path),
    ),
    "scaled NIfTI": (".nii.gz", (1, 2), save_scaled),
}


@pytest.fixture(scope="module")
def carried(weights, tmp_path_factory) -> Path:
    """One run over a table with a pair of each kind."""
    root = tmp_path_factory.mktemp("kinds")
    rows = ["moving,fixed,moving_labels"]
    for number, (ending, numbers, save) in enumerate(KINDS.values()):
        for seed, name in enumerate("mf"):
            Image.fromarray(grey(seed)).save(root / f"{name}{number}.png")
        save(root / f"seg{number}{ending}", label_map(*numbers))
        rows.append(f"m{number}.png,f{number}.png,seg{number}{ending}")
    (root / "pairs.csv").write_text("\n".join(rows) + "\n")
    assert register(weights, root / "out", f"--register.pairs={root}") == 0
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_carried_with_their_own_numbers(carried, kind):
    number, (ending, numbers, _) = [*KINDS].index(kind), KINDS[kind]
    folder = carried / "out" / f"m{number}-to-f{number}"
    (file,) = folder.glob("labels_warped*")
    assert file.name == f"labels_warped{ending}"
    if ending.startswith(".nii"):
        found = np.asarray(nibabel.load(file).dataobj).T
    elif ending == ".npy":
        found = np.load(file)
    else:
        found = np.asarray(Image.open(file)) if ending == ".png" else tifffile.imread(file)
    assert found.dtype.kind in "ui"
    np.testing.assert_array_equal(found, shifted(label_map(*numbers)))
    np.testing.assert_array_equal(open_labels(file, open_image(carried / f"f{number}.png")).pixels, found)
    assert told(folder)["labels"] is None
    assert told(folder)["inputs"]["moving_labels"]["file"] == str(carried / f"seg{number}{ending}")


def test_labels_of_a_slice_lie_on_the_fixed_images_grid(weights, tmp_path):
    for seed, name in enumerate(("moving", "fixed")):
        volume = np.stack([grey(10 * seed + index).T for index in range(3)], axis=-1)
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), tmp_path / f"{name}.nii.gz")
    labels = np.stack([index + label_map(40000, -2).T for index in range(3)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(np.int32(labels), AFFINE), tmp_path / "seg.nii.gz")
    options = [f"--register.{name}={tmp_path / name}.nii.gz#2" for name in ("moving", "fixed")]
    seg = tmp_path / "seg.nii.gz"
    assert register(weights, tmp_path / "out", *options, f"--register.labels={seg}#2") == 0
    folder = tmp_path / "out" / "moving.nii.gz_2-to-fixed.nii.gz_2"
    carried, warped = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("labels_warped", "warped"))
    for of in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(carried, of)() == pytest.approx(getattr(warped, of)())
    found = np.squeeze(sitk.GetArrayFromImage(carried))
    inside = np.ones(SHAPE, np.int64)
    np.testing.assert_array_equal(found, shifted(2 + label_map(40000, -2)) * shifted(inside))
    assert register(weights, tmp_path / "other", *options, f"--register.labels={seg}#1") == 2


def test_labels_of_a_mirrored_moving_image_come_out_upright(weights, tmp_path):
    """The header of the moving image and of its labels has them mirrored against the fixed image."""
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = 63
    for name, pixels, affine in (
        ("upright", grey(0), AFFINE),
        ("mirrored", grey(0)[:, ::-1], AFFINE @ turn),
        ("upright_seg", label_map(-4, 70000), AFFINE),
        ("mirrored_seg", label_map(-4, 70000)[:, ::-1], AFFINE @ turn),
        ("fixed", grey(1), AFFINE),
    ):
        dtype = np.int32 if name.endswith("seg") else np.float32
        nibabel.save(nibabel.Nifti1Image(pixels.T.astype(dtype), affine), tmp_path / f"{name}.nii.gz")
    rows = [f"{name}.nii.gz,fixed.nii.gz,{name}_seg.nii.gz" for name in ("upright", "mirrored")]
    (tmp_path / "pairs.csv").write_text("\n".join(["moving,fixed,moving_labels", *rows]) + "\n")
    assert register(weights, tmp_path / "out", f"--register.pairs={tmp_path}") == 0
    for name in ("upright", "mirrored"):
        image = sitk.ReadImage(str(tmp_path / f"out/{name}-to-fixed/labels_warped.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), shifted(label_map(-4, 70000)))
        assert image.GetOrigin() == pytest.approx((-40, -30))


@pytest.mark.parametrize("spacing", ["", "0.5x0.25"])
def test_agreement_is_told_before_and_after(weights, tmp_path, spacing, capsys):
    for seed, name in enumerate(("moving", "fixed")):
        Image.fromarray(grey(seed)).save(tmp_path / f"{name}.png")
    moving = label_map(9, -70000)
    np.save(tmp_path / "m.npy", moving)
    np.save(tmp_path / "f.npy", shifted(moving))
    (tmp_path / "pairs.csv").write_text(
        "moving,fixed,moving_labels,fixed_labels,moving_spacing,fixed_spacing\n"
        f"moving.png,fixed.png,m.npy,f.npy,{spacing},{spacing}\n"
    )
    assert register(weights, tmp_path / "out", f"--register.pairs={tmp_path}", figures=not spacing) == 0
    folder = tmp_path / "out" / "moving-to-fixed"
    labels = told(folder)["labels"]
    assert (labels["dice"], labels["hd95_px"], labels["assd_px"]) == (1, 0, 0)
    overlap = [2 * (18 - 3) * (20 - 5) / (2 * 18 * 20), 2 * (14 - 3) * (18 - 5) / (2 * 14 * 18)]
    assert labels["dice_before"] == pytest.approx(np.mean(overlap))
    assert labels["per_label"]["9"]["dice_before"] == pytest.approx(overlap[0])
    assert set(labels["per_label"]) == {"9", "-70000"}
    regions = [(moving == label, shifted(moving) == label) for label in (9, -70000)]
    expected = [label_scores(*both, (0.5, 0.25)) for both in regions]
    assert labels["hd95_before_px"] == pytest.approx(np.mean([one.hd95_px for one in expected]))
    if spacing:
        assert labels["hd95_mm"] == 0
        assert labels["hd95_before_mm"] == pytest.approx(np.mean([one.hd95_mm for one in expected]))
        assert labels["assd_before_mm"] == pytest.approx(np.mean([one.assd_mm for one in expected]))
    else:
        assert labels["hd95_mm"] is labels["hd95_before_mm"] is None
    assert (labels["lost"], labels["without_partner"]) == ([], [])
    assert (folder / "labels.png").is_file() == (not spacing)
    if not spacing:
        page = (folder / "registration.html").read_text()
        assert f"{np.mean(overlap):.3f} before, 1.000 after" in page.replace("<wbr>", "")
        assert "HD95 (px)" in page and "Outlines on the fixed image" in page
    assert f"Dice {np.mean(overlap):.3f} -> 1.000, " in capsys.readouterr().err


def test_labels_of_folders_are_those_of_the_same_name(weights, tmp_path):
    for name in ("moving", "fixed", "m_seg", "f_seg"):
        (tmp_path / name).mkdir()
    for pair in ("a", "b"):
        for seed, name in enumerate(("moving", "fixed")):
            Image.fromarray(grey(seed + len(pair))).save(tmp_path / name / f"{pair}.png")
    for pair, number in (("a", 3), ("b", 4)):
        np.save(tmp_path / "m_seg" / f"{pair}.npy", label_map(number, 9))
        save_palette(tmp_path / "f_seg" / f"{pair}.png", shifted(label_map(number, 9)))
    options = [f"--register.{name}={tmp_path / name}" for name in ("moving", "fixed")]
    options += [f"--register.labels={tmp_path / 'm_seg'}", f"--register.fixed_labels={tmp_path / 'f_seg'}"]
    assert register(weights, tmp_path / "out", *options) == 0
    for pair, number in (("a", "3"), ("b", "4")):
        labels = told(tmp_path / "out" / pair)["labels"]
        assert labels["dice"] == 1 and set(labels["per_label"]) == {number, "9"}
    np.save(tmp_path / "m_seg" / "b.npy", label_map(1, 2))
    assert register(weights, tmp_path / "out", *options) == 2  # Never overwritten.
    assert set(told(tmp_path / "out" / "b")["labels"]["per_label"]) == {"4", "9"}


def test_a_folder_of_label_volumes_goes_with_slices(weights, tmp_path):
    (tmp_path / "seg").mkdir()
    for seed, name in enumerate(("moving", "fixed")):
        volume = np.stack([grey(10 * seed + index).T for index in range(3)], axis=-1)
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), tmp_path / f"{name}.nii.gz")
    labels = np.stack([label_map(index, 9).T for index in range(3)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(np.uint8(labels), AFFINE), tmp_path / "seg" / "moving.nii.gz")
    (tmp_path / "pairs.csv").write_text(
        "moving,fixed\n" + "".join(f"moving.nii.gz#{i},fixed.nii.gz#{i}\n" for i in (1, 2))
    )
    options = [f"--register.pairs={tmp_path}", f"--register.labels={tmp_path / 'seg'}"]
    assert register(weights, tmp_path / "out", *options) == 0
    for index in (1, 2):
        file = tmp_path / f"out/moving.nii.gz_{index}-to-fixed.nii.gz_{index}/labels_warped.nii.gz"
        assert set(np.unique(np.asarray(nibabel.load(file).dataobj))) == {0, index, 9}


def test_the_short_form_takes_labels(tmp_path, images):
    np.save(tmp_path / "seg.npy", label_map(1, 2))
    names = [str(tmp_path / f"{name}.png") for name in ("moving", "fixed")]
    options = [f"--register.labels={tmp_path / 'seg.npy'}", "--register.figures=false"]
    assert main(["register", *names, *options]) == 0
    assert (tmp_path / "moving-to-fixed" / "labels_warped.npy").is_file()


def test_labels_of_images_of_two_sizes(weights, tmp_path):
    """The label map has the moving image's size and comes out with the fixed one's."""
    Image.fromarray(grey(0)).save(tmp_path / "moving.png")
    Image.fromarray(np.kron(grey(1), np.ones((2, 2), np.uint8))[:, :96]).save(tmp_path / "fixed.png")
    np.save(tmp_path / "seg.npy", label_map(1, 2))
    options = [f"--register.{name}={tmp_path / name}.png" for name in ("moving", "fixed")]
    assert register(weights, tmp_path / "out", *options, f"--register.labels={tmp_path / 'seg.npy'}") == 0
    found = np.load(tmp_path / "out/moving-to-fixed/labels_warped.npy")
    u = np.load(tmp_path / "out/moving-to-fixed/displacement.npz")["displacement"]
    rows, columns = np.rint(np.moveaxis(u, -1, 0) + np.indices(found.shape)).astype(int)
    inside = (rows >= 0) & (rows < 64) & (columns >= 0) & (columns < 64)
    expected = np.where(inside, label_map(1, 2)[rows.clip(0, 63), columns.clip(0, 63)], 0)
    assert found.shape == (128, 96)
    assert (found != expected).mean() < 0.001  # Halves may be rounded either way.


def test_labels_that_the_two_images_do_not_share_are_warned_of(weights, tmp_path, images, capsys):
    np.save(tmp_path / "m.npy", label_map(1, 1))
    np.save(tmp_path / "f.npy", label_map(255, 255))
    options = [f"--register.labels={tmp_path / 'm.npy'}", f"--register.fixed_labels={tmp_path / 'f.npy'}"]
    assert register(weights, tmp_path / "out", *images, *options) == 0
    summary = told(tmp_path / "out" / "moving-to-fixed")
    assert summary["labels"]["dice"] == 0 and summary["labels"]["hd95_px"] is None
    assert summary["labels"]["without_partner"] == [1, 255]
    assert any("no label in common" in line for line in summary["warnings"])
    assert "no label in common (moving: 1; fixed: 255)" in capsys.readouterr().err


def test_a_lost_label_is_warned_of(weights, tmp_path, images):
    labels = label_map(1, 2)
    labels[0, 60] = 8  # Its partner would lie beyond the fixed image.
    np.save(tmp_path / "m.npy", labels)
    options = [f"--register.labels={tmp_path / 'm.npy'}", f"--register.fixed_labels={tmp_path / 'm.npy'}"]
    assert register(weights, tmp_path / "out", *images, *options) == 0
    summary = told(tmp_path / "out" / "moving-to-fixed")
    assert summary["labels"]["lost"] == [8]
    assert any(line.startswith("labels of both images that the warped one") for line in summary["warnings"])
    # The labels lay on each other before the network moved everything.
    assert summary["labels"]["dice_before"] == 1
    (worse,) = [
        line for line in summary["warnings"] if line.startswith("the labels overlap less than before")
    ]
    assert f"(Dice 1.000 -> {summary['labels']['dice']:.3f})" in worse


def broken_options(root: Path) -> dict[str, tuple[list[str], str]]:
    np.save(root / "small.npy", np.zeros((64, 60), int))
    np.save(root / "seg.npy", label_map(1, 2))
    np.save(root / "half.npy", label_map(1, 2) / 2)
    Image.fromarray(grey(0)).save(root / "seg.jpg")
    (root / "segs").mkdir()
    np.save(root / "segs" / "other.npy", label_map(1, 2))
    return {
        "another size": (
            [f"--register.labels={root / 'small.npy'}"],
            r"small.npy: label map of 64 x 60 pixels for an image of 64 x 64",
        ),
        "no numbers": ([f"--register.labels={root / 'half.npy'}"], "half.npy: labels must be whole numbers"),
        "JPEG": ([f"--register.labels={root / 'seg.jpg'}"], "seg.jpg: JPEG changes label numbers"),
        "missing": ([f"--register.labels={root / 'none.npy'}"], "none.npy: cannot be read (No such file"),
        "not in the folder": (
            [f"--register.labels={root / 'segs'}"],
            "segs: no label map named moving; `register.labels` must have one for each image",
        ),
        "fixed alone": (
            [f"--register.fixed_labels={root / 'seg.npy'}"],
            "`register.fixed_labels` is for comparing with the moving image's",
        ),
    }


@pytest.mark.parametrize(
    "kind", ["another size", "no numbers", "JPEG", "missing", "not in the folder", "fixed alone"]
)
def test_labels_that_cannot_be_used_are_one_line_and_leave_nothing(weights, tmp_path, images, kind, capsys):
    options, said = broken_options(tmp_path)[kind]
    assert register(weights, tmp_path / "out", *images, *options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "out" / "moving-to-fixed").exists()


def test_labels_named_twice_are_refused(weights, tmp_path, images, capsys):
    np.save(tmp_path / "m.npy", label_map(1, 2))
    (tmp_path / "pairs.csv").write_text("moving,fixed,moving_labels\nmoving.png,fixed.png,m.npy\n")
    options = [f"--register.pairs={tmp_path}", f"--register.labels={tmp_path / 'm.npy'}"]
    assert register(weights, tmp_path / "out", *options) == 2
    assert "and the table both name labels; leave one out" in capsys.readouterr().err
    assert register(weights, tmp_path / "out", options[0]) == 0
    assert (tmp_path / "out/moving-to-fixed/labels_warped.npy").is_file()


def test_the_front_door_carries_labels(weights, tmp_path):
    moving, labels = grey(0), label_map(-4, 2**40)
    found = tfmetareg.register(
        moving, grey(1), weights=weights, align="none", moving_labels=labels, fixed_labels=shifted(labels)
    )
    assert found.warped_labels.dtype == np.int64
    np.testing.assert_array_equal(found.warped_labels, shifted(labels))
    told_labels = found.summary["labels"]
    assert told_labels["dice"] == 1 and told_labels["dice_before"] < 0.8
    found.save(tmp_path / "pair")
    np.testing.assert_array_equal(np.load(tmp_path / "pair" / "labels_warped.npy"), found.warped_labels)
    assert (tmp_path / "pair" / "labels.png").is_file()
    bare = tfmetareg.register(moving, grey(1), weights=weights, align="none")
    assert bare.warped_labels is None and bare.summary["labels"] is None
    image = sitk.GetImageFromArray(np.int32(label_map(1, 2)))
    of_itk = tfmetareg.register(moving, grey(1), weights=weights, align="none", moving_labels=image)
    np.testing.assert_array_equal(of_itk.warped_labels, shifted(label_map(1, 2)))
    with pytest.raises(tfmetareg.UserError, match="moving_labels: label map of 64 x 63 pixels for an image"):
        tfmetareg.register(moving, grey(1), weights=weights, moving_labels=labels[:, 1:])
    with pytest.raises(tfmetareg.UserError, match="fixed_labels: labels must be whole numbers"):
        tfmetareg.register(moving, grey(1), weights=weights, moving_labels=labels, fixed_labels=moving / 255)
