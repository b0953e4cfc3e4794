from __future__ import annotations

import dataclasses

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.unit.tfrecords_builder.dicom_files import write
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_pair
from tfrecords_builder.deformation import warp
from tfrecords_builder.sources.base import Request
from tfrecords_builder.sources.unpaired import make_pair, matching_points, stretch_contrast, unpaired_tasks


def spots(shape=(160, 200), count=60):
    rng = np.random.default_rng(3)
    rows, columns = np.indices(shape)
    image = np.zeros(shape)
    for row, column in rng.uniform(8, np.array(shape) - 8, (count, 2)):
        image += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
    return np.uint8(255 * np.clip(image, 0, 1))


def request(root, **options):
    return Request(root, None, "source", (64, 64), 0, options)


def brightness(image, points):
    """Bilinear, at (row, column)."""
    grid = np.zeros((*image.shape, 2))
    rows, columns = np.rint(points).astype(int).T
    grid[rows, columns] = points - np.rint(points)
    return warp(image, grid, order=1)[rows, columns]


def test_landmarks_show_the_same_tissue_in_both_images():
    pair = make_pair(spots(), "a", noise=0, illumination=0)
    assert len(pair.moving_landmarks) == len(pair.fixed_landmarks) >= 15
    moving = brightness(pair.moving, pair.moving_landmarks)
    fixed = brightness(pair.fixed, pair.fixed_landmarks)
    np.testing.assert_allclose(moving, fixed, atol=0.06)
    assert moving.min() > 3 * pair.moving.mean()
    swapped = brightness(pair.moving, pair.fixed_landmarks)
    assert np.abs(swapped - fixed).mean() > 3 * np.abs(moving - fixed).mean()


def test_matching_points_follow_the_displacement():
    """moving(y) = fixed(y + v(y)): with v = (2, -3) everywhere, 2 lower and 3 further left."""
    displacement = np.broadcast_to(np.float32([2, -3]), (160, 200, 2))
    moving, fixed = matching_points(stretch_contrast(spots()), displacement, 10)
    assert len(moving) == 10
    np.testing.assert_allclose(fixed - moving, np.tile([2, -3], (10, 1)), atol=1e-4)


@pytest.mark.parametrize("displacement", [0.01, 0.025])
def test_mean_displacement_is_a_share_of_the_width(displacement):
    lengths = []
    for number in range(6):
        pair = make_pair(spots(), str(number), displacement=displacement, rotation=0)
        lengths.append(np.linalg.norm(pair.moving_landmarks - pair.fixed_landmarks, axis=1).mean())
    assert np.mean(lengths) == pytest.approx(displacement * 200, rel=0.25)


def test_points_lie_inside_both_images_and_apart():
    pair = make_pair(spots(), "a", displacement=0.04)
    for points in (pair.moving_landmarks, pair.fixed_landmarks):
        assert (points >= 2).all()
        assert (points <= np.array([157, 197])).all()
    gaps = np.linalg.norm(pair.moving_landmarks[:, None] - pair.moving_landmarks, axis=-1)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() >= 6


def test_noise_is_independent_and_spares_an_empty_background():
    image = np.zeros((100, 100))
    image[30:70, 30:70] = 0.5
    image[50, 50] = 1
    pair = make_pair(image, "a", displacement=0, rotation=0, noise=0.05, illumination=0)
    moving, fixed = (x[32:68, 32:68].ravel() for x in (pair.moving, pair.fixed))
    assert np.abs(np.corrcoef(moving, fixed)[0, 1]) < 0.3
    assert fixed.std() > 0.03
    assert (pair.fixed[:25] == 0).all()
    assert (pair.moving[:25] == 0).all()


def test_deterministic_by_seed_and_name():
    def digest(name="a", seed=0):
        pair = make_pair(spots(), name, seed=seed)
        return pair.moving.tobytes() + pair.fixed.tobytes() + pair.moving_landmarks.tobytes()

    assert digest() == digest()
    assert digest() != digest(name="b")
    assert digest() != digest(seed=1)


def test_labels_are_warped_along():
    """Labels of bright spots lie on bright spots in both images, with their numbers."""
    image = spots()
    labels = np.where(image > 128, -70000, 0)
    pair = make_pair(image, "a", noise=0, illumination=0, labels=labels)
    np.testing.assert_array_equal(pair.fixed_labels, labels)
    assert set(np.unique(pair.moving_labels)) == {-70000, 0}
    bright = pair.moving > 0.5
    assert (
        2 * (bright & (pair.moving_labels < 0)).sum() / (bright.sum() + (pair.moving_labels < 0).sum()) > 0.9
    )
    assert (pair.moving_labels != labels).mean() > 0.02
    bare = make_pair(image, "a", noise=0, illumination=0)
    assert bare.moving_labels is bare.fixed_labels is None
    np.testing.assert_array_equal(bare.moving, pair.moving)


def test_a_folder_of_labels_goes_with_the_images(tmp_path):
    for name in ("a.tif", "b.png"):
        Image.fromarray(spots((60, 70))).save(tmp_path / name)
    (tmp_path / "seg").mkdir()
    np.save(tmp_path / "seg" / "a.npy", np.ones((60, 70), np.int16))
    with pytest.raises(UserError, match=r"seg: no label map named like b\.png; put one there"):
        unpaired_tasks(request(tmp_path, labels="seg"))
    for name in ("none", "../x", str(tmp_path / "seg")):
        with pytest.raises(UserError, match="`--labels` must be a folder within"):
            unpaired_tasks(request(tmp_path, labels=name))
    Image.fromarray(np.uint8(spots((60, 71)) > 99)).save(tmp_path / "seg" / "b.png")
    asked = request(tmp_path, labels="seg")
    (task,) = unpaired_tasks(asked)
    (pair,) = task.pairs
    assert (pair.moving_labels == 1).all() and (pair.fixed_labels == 1).all()
    (line,) = asked.problems.lines
    assert "b.png: label map of 60 x 71 pixels for an image of 60 x 70" in line


def test_folder_becomes_a_task(tmp_path):
    root = tmp_path / "scans"
    (root / "sub").mkdir(parents=True)
    for name in ("b.png", "a.tif", "sub/c.png"):
        Image.fromarray(spots((60, 70))).save(root / name)
    (root / "notes.txt").write_text("x")
    (root / "broken.png").write_text("x")
    asked = request(root, landmarks=4)
    (task,) = unpaired_tasks(asked)
    pairs = list(task.pairs)
    assert (task.name, task.role) == ("scans", "source")
    assert [pair.key for pair in pairs] == ["a.tif", "b.png"]
    assert [pair.subject for pair in pairs] == ["a", "b"]
    assert all(len(pair.fixed_landmarks) <= 4 for pair in pairs)
    assert len(asked.problems.lines) == 1
    assert "broken.png: unreadable" in asked.problems.lines[0]


def test_no_images(tmp_path):
    with pytest.raises(UserError, match="no images in this folder"):
        unpaired_tasks(request(tmp_path))


def test_large_small_and_16_bit_images():
    for image in (
        spots((16, 20), 5),
        spots((300, 60)).astype(np.uint16) * 200,
        spots().astype(np.float64) - 1000,
    ):
        pair = make_pair(image, "a")
        assert pair.moving.shape == pair.fixed.shape == image.shape
        assert pair.moving.dtype == pair.fixed.dtype == np.float32
        prepare_pair(dataclasses.replace(pair), Preprocessing((32, 32)))


def test_pixel_sizes_and_notes_of_the_images_are_kept(tmp_path):
    voxels = spots().T.astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([0.5, 1.25, 1, 1])), tmp_path / "a.nii.gz")
    without_place = nibabel.Nifti1Image(voxels, None)
    nibabel.save(without_place, tmp_path / "b.nii.gz")
    Image.fromarray(spots()).save(tmp_path / "c.png")
    (task,) = unpaired_tasks(request(tmp_path))
    sizes = [(pair.moving_spacing, pair.fixed_spacing, len(pair.notes)) for pair in task.pairs]
    assert sizes == [((1.25, 0.5), (1.25, 0.5), 0), ((1, 1), (1, 1), 1), (None, None, 0)]


def test_dicom_files_with_and_without_an_ending(tmp_path):
    write(tmp_path / "a.dcm", 0)
    write(tmp_path / "IM0001", 1)
    (tmp_path / "notes").write_text("x" * 200)
    (task,) = unpaired_tasks(request(tmp_path))
    assert [pair.subject for pair in task.pairs] == ["IM0001", "a"]
