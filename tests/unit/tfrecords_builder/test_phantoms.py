"""The embedded tasks: reproducible, anatomically ordered, with exact landmarks at the paper's distances."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from tfmetareg.types import ImagePair
from tfrecords_builder import deformation
from tfrecords_builder.phantoms import abdomen, brain, retina
from tfrecords_builder.phantoms.fields import SolidNoise, frame_coordinates, keyed_rng
from tfrecords_builder.sources import embedded
from tfrecords_builder.sources.base import SourceTask

NAMES = ["brain_t1w", "brain_t1gd", "brain_t2w", "abdomen_ct", "octa_choroid", "octa_scp"]
SMALL = dict(source_pairs=3, source_test_pairs=2, target_finetune=3, target_test=2)
SHAPE = (128, 128)


def _tasks(**options: object) -> dict[str, SourceTask]:
    return {task.name: task for task in embedded.embedded_tasks(**{**SMALL, **options})}


def _digest(pairs: list[ImagePair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.key} {pair.subject} {pair.split}".encode())
        for array in (pair.moving, pair.fixed, pair.moving_landmarks, pair.fixed_landmarks):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _distances(pairs: list[ImagePair]) -> np.ndarray:
    return np.array([np.hypot(*(p.fixed_landmarks - p.moving_landmarks).T).mean() for p in pairs])


def _pure(fractions: np.ndarray, tissue: str) -> np.ndarray:
    return fractions[brain.TISSUES.index(tissue)] > 0.95


def test_names_roles_and_counts() -> None:
    tasks = embedded.embedded_tasks(**SMALL)
    assert [task.name for task in tasks] == NAMES
    assert [task.role for task in tasks] == ["source"] * 5 + ["target"]
    for task in tasks:
        splits = [pair.split for pair in task.pairs]
        assert splits == ["finetune" if task.role == "target" else "train"] * 3 + ["test"] * 2


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes_other_seed_other_images(name: str) -> None:
    task = _tasks(seed=3)[name]
    first = list(task.pairs)
    assert _digest(first) == _digest(list(task.pairs)) == _digest(list(_tasks(seed=3)[name].pairs))
    other = list(_tasks(seed=4)[name].pairs)
    assert not any(np.array_equal(a.moving, b.moving) for a, b in zip(first, other))
    # Noise alone must not be what tells two seeds, or two subjects, apart.
    for a, b in ((first[0], other[0]), (first[0], first[-1])):
        assert np.abs(a.fixed - b.fixed).mean() > 0.05 * first[0].fixed.std()
        assert np.corrcoef(a.fixed.ravel(), b.fixed.ravel())[0, 1] < 0.97


@pytest.mark.parametrize("name", ["brain_t1w", "octa_choroid"])
def test_more_pairs_leave_the_test_split_as_it_was(name: str) -> None:
    few, many = (list(_tasks(source_pairs=count)[name].pairs) for count in (1, 4))
    assert _digest(few[1:]) == _digest(many[4:])


@pytest.mark.parametrize("size", [(96, 96), (96, 128), (160, 112)])
def test_any_size_works(size: tuple[int, int]) -> None:
    for name, task in _tasks(image_size=size, source_pairs=1, target_finetune=1).items():
        for pair in task.pairs:
            assert pair.moving.shape == pair.fixed.shape == size
            assert pair.moving.dtype == pair.fixed.dtype == np.float32
            assert np.isfinite(pair.moving).all() and pair.moving.std() > 0.05
            if name == "octa_scp":
                assert 20 <= len(pair.moving_landmarks) <= 30


def test_anatomy_scales_with_the_image() -> None:
    head = brain.random_head(0, "s")
    areas = [brain.tissue_fractions(head, 4, (n, n)).sum() / n**2 for n in (96, 256)]
    assert areas[0] == pytest.approx(areas[1], rel=0.03)


def test_splits_share_no_subject_and_keys_are_unique() -> None:
    counts = dict(source_pairs=12, source_test_pairs=11, target_finetune=3, target_test=3)
    for task in embedded.embedded_tasks(image_size=(48, 48), **counts):
        pairs = list(task.pairs)
        keys = [pair.key for pair in pairs]
        assert len(set(keys)) == len(keys)
        test = {pair.subject for pair in pairs if pair.split == "test"}
        rest = {pair.subject for pair in pairs if pair.split != "test"}
        assert len(test) > 1 and len(rest) > 1 and not test & rest


def test_slices_of_a_subject_are_adjacent() -> None:
    pairs = list(_tasks()["abdomen_ct"].pairs)
    np.testing.assert_array_equal(pairs[0].fixed, pairs[1].moving)
    near = np.corrcoef(pairs[0].moving.ravel(), pairs[0].fixed.ravel())[0, 1]
    far = np.corrcoef(pairs[0].moving.ravel(), pairs[2].fixed.ravel())[0, 1]
    assert far < near < 0.999


def test_tissue_fractions_partition_the_head() -> None:
    for subject in "abc":
        fractions = brain.tissue_fractions(brain.random_head(0, subject), 3, SHAPE)
        total = fractions.sum(axis=0)
        assert fractions.min() >= 0 and total.max() <= 1 + 1e-5
        assert total[64, 64] == pytest.approx(1, abs=1e-5) and total[:4].max() == 0
        for tissue in ("csf", "grey", "white", "nuclei"):
            assert _pure(fractions, tissue).sum() > 30, tissue


def test_brain_contrasts_order_the_tissues_as_the_sequences_do() -> None:
    seed, subject = 1, "s"
    head = brain.random_head(seed, subject)
    fractions = brain.tissue_fractions(head, 4, SHAPE)
    means = {}
    for contrast in brain.CONTRASTS:
        image = brain.brain_slice(seed, subject, head, 4, contrast, SHAPE)
        assert image[fractions.sum(axis=0) == 0].max() == 0
        means[contrast] = {t: image[_pure(fractions, t)].mean() for t in ("csf", "grey", "white")}
    for contrast in ("t1w", "t1gd"):
        assert means[contrast]["csf"] < means[contrast]["grey"] - 0.1 < means[contrast]["white"] - 0.2
    assert means["t2w"]["white"] < means["t2w"]["grey"] - 0.1 < means["t2w"]["csf"] - 0.2


def test_contrast_agent_lights_up_rim_and_vessels() -> None:
    subject = next(str(n) for n in itertools.count() if brain.random_head(0, str(n)).tumour is not None)
    head = brain.random_head(0, subject)
    index = round((head.tumour[0] - head.lowest) / brain.SPACING)
    fractions = brain.tissue_fractions(head, index, SHAPE)
    enhancing = (fractions[brain.TISSUES.index("rim")] + fractions[brain.TISSUES.index("vessel")]) > 0.9
    plain, enhanced = (brain.brain_slice(0, subject, head, index, c, SHAPE) for c in ("t1w", "t1gd"))
    assert enhanced[enhancing].mean() > 2 * plain[enhancing].mean() > 0
    white = _pure(fractions, "white")
    assert plain[enhancing].mean() < plain[white].mean()
    assert enhanced[enhancing].mean() > enhanced[white].mean()


def test_abdomen_is_in_hounsfield_units() -> None:
    image = abdomen.abdomen_slice(0, "s", abdomen.random_trunk(0, "s"), 5, SHAPE)
    assert image.min() == -1000 and 400 < image.max() < 1500
    liver = image[50:66, 32:44]
    assert 85 < np.median(liver) < 140
    share = {
        name: np.mean((image > low) & (image < high))
        for name, low, high in (
            ("air", -1001, -900),
            ("fat", -150, -60),
            ("soft", 20, 220),
            ("bone", 300, 1500),
        )
    }
    assert share["air"] > 0.4 and share["soft"] > 0.1 and share["fat"] > 0.03 and 0.005 < share["bone"] < 0.06


def test_landmark_distances_are_the_papers_share_of_the_width() -> None:
    pairs = list(_tasks(image_size=(96, 96), target_finetune=0, target_test=74)["octa_scp"].pairs)
    distances = _distances(pairs) / 96
    assert distances.mean() == pytest.approx(10.07 / 400, rel=0.05)
    assert distances.std() == pytest.approx(3.99 / 400, rel=0.05)
    for pair in pairs:
        assert 20 <= len(pair.moving_landmarks) <= 30
        assert pair.moving_landmarks.dtype == pair.fixed_landmarks.dtype == np.float32
        both = np.concatenate([pair.moving_landmarks, pair.fixed_landmarks])
        assert both.min() > 2 and both.max() < 93


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_distances_hold_in_small_sets(count: int) -> None:
    distances = embedded.scan_distances(count, np.random.default_rng(0))
    assert len(distances) == count and np.all(distances > 0)
    if count:
        assert distances.mean() == pytest.approx(embedded.DISTANCE_MEAN)
    if count > 1:
        assert distances.std() == pytest.approx(embedded.DISTANCE_DEVIATION)


@pytest.mark.parametrize("distance", [1.0, 3.2, 8.0])
def test_scan_pair_follows_its_displacement(distance: float) -> None:
    pair, v = embedded.plexus_pair(SHAPE, 0, "test", 1, "scp-test-000", distance)
    assert deformation.jacobian_determinant(v).min() > 0
    assert _distances([pair])[0] == pytest.approx(distance, rel=0.01)
    carried = deformation.carry_points(pair.moving_landmarks, v)
    np.testing.assert_allclose(carried, pair.fixed_landmarks, atol=1e-3)
    inner = (slice(12, -12), slice(12, -12))
    ncc = [
        np.corrcoef(image[inner].ravel(), pair.moving[inner].ravel())[0, 1]
        for image in (pair.fixed, deformation.warp(pair.fixed, v))
    ]
    assert ncc[1] > 0.75 and ncc[1] > ncc[0] + 0.1
    wrong_way = deformation.warp(pair.fixed, -v)
    assert np.corrcoef(wrong_way[inner].ravel(), pair.moving[inner].ravel())[0, 1] < ncc[1] - 0.2


def test_landmarks_lie_on_vessels_in_both_images() -> None:
    for pair in _tasks()["octa_scp"].pairs:
        for image, points in ((pair.moving, pair.moving_landmarks), (pair.fixed, pair.fixed_landmarks)):
            rows, columns = np.rint(points).astype(int).T
            brighter = np.mean(image[rows, columns][:, None] > image.ravel(), axis=1)
            assert np.median(brighter) > 0.9


def test_junctions_are_where_centre_lines_meet() -> None:
    tree = retina.grow_vessels(np.random.default_rng(0), (0.6, 0.6))
    assert len(tree.junctions) > 40
    for junction in tree.junctions:
        through = [np.hypot(*(path - junction).T).min() < 1e-9 for path in tree.paths]
        assert sum(through) >= 2


def test_fovea_is_avascular() -> None:
    tree = retina.grow_vessels(np.random.default_rng(1), (0.6, 0.6))
    vessels = retina.draw_vessels(tree, (150, 150), 125.0, (75.0, 75.0))
    rows, columns = np.indices((150, 150))
    assert vessels[np.hypot(rows - 75, columns - 75) < 0.9 * 125 * tree.faz].max() == 0
    assert 0.05 < np.mean(vessels > 0.4) < 0.4


def test_solid_noise_on_pixels_is_the_noise_at_their_coordinates() -> None:
    noise = SolidNoise(np.random.default_rng(0), 0.1)
    down, right = frame_coordinates((20, 30))
    expected = noise(0.13, 1.5 * down, 1.5 * right)
    np.testing.assert_allclose(noise.on_pixels(0.13, (20, 30), zoom=1.5), expected, atol=1e-4)
    sample = noise.on_pixels(0.0, (256, 256), zoom=1.6)
    assert sample.std() == pytest.approx(1.0, abs=0.25)


def test_keys_separate_generators() -> None:
    draws = [keyed_rng(*key).integers(2**62) for key in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))]
    assert len(set(draws)) == 4 and draws[0] == keyed_rng(0, "a", 1).integers(2**62)
