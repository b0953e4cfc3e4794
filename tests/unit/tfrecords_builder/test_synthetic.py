"""Synthetic tasks: unlike domains, each reproducible by itself, with known motion and usable copies."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import pickle

import numpy as np
import pytest
from scipy import ndimage

from tfmetareg.data.schema import Manifest
from tfmetareg.errors import UserError
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_pair
from tfmetareg.types import ImagePair
from tfrecords_builder import deformation
from tfrecords_builder.build import build
from tfrecords_builder.phantoms import appearance, motion, scenes
from tfrecords_builder.phantoms.domains import Domain, DomainPair, draw_pair, landmarks, random_domain
from tfrecords_builder.phantoms.fields import keyed_rng
from tfrecords_builder.sources.synthetic import synthetic_tasks

SHAPE = (64, 64)
MANY = [random_domain(0, number) for number in range(100)]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def plain(domain: Domain) -> Domain:
    """The domain without what differs between two images apart from the motion."""
    scanner = dataclasses.replace(appearance.noise_free(domain.scanner), view="full")
    return dataclasses.replace(domain, scanner=scanner, shared_mottle=True, drift=0.0, lesions=0.0)


def moved(domain: Domain, **changes: float) -> Domain:
    return dataclasses.replace(domain, motion=dataclasses.replace(domain.motion, **changes))


def first_of(kind: str, *, two_contrasts: bool = False) -> Domain:
    return next(d for d in MANY if d.style.kind == kind and d.two_contrasts == two_contrasts)


def arrays(pair: ImagePair) -> list[np.ndarray]:
    copies = [] if pair.moving_like_fixed is None else [pair.moving_like_fixed]
    return [pair.moving, pair.fixed, pair.moving_landmarks, pair.fixed_landmarks, *copies]


def same(one: ImagePair, other: ImagePair) -> bool:
    return one.key == other.key and all(map(np.array_equal, arrays(one), arrays(other)))


def test_names_splits_and_counts():
    tasks = synthetic_tasks(image_size=(32, 48), tasks=3, pairs=9, test_pairs=2)
    assert [task.name for task in tasks] == ["synthetic_000", "synthetic_001", "synthetic_002"]
    for task in tasks:
        pairs = list(task.pairs)
        assert (task.role, task.modality, len(task.pairs)) == ("source", "synthetic", 11)
        assert [pair.split for pair in pairs] == ["train"] * 9 + ["test"] * 2
        assert len({pair.key for pair in pairs}) == len({pair.subject for pair in pairs}) == 11
        for pair in pairs:
            assert (len(pair.fixed_landmarks) > 0) == (pair.split == "test")
            assert (pair.moving_like_fixed is not None) == task.two_contrasts
            for image in (pair.moving, pair.fixed):
                assert image.shape == (32, 48)
                assert image.dtype == np.float32
                assert np.isfinite(image).all()
                assert 0 <= image.min() < image.max() <= 1


def test_a_pair_depends_on_seed_task_split_and_index_alone():
    few = synthetic_tasks(image_size=(32, 32), tasks=2, pairs=2, test_pairs=1, seed=5)
    many = synthetic_tasks(image_size=(32, 32), tasks=3, pairs=10, test_pairs=1, seed=5)
    for task, larger in reversed(list(zip(few, many))):
        # Workers get the partitions pickled, in any order.
        partitions = pickle.loads(pickle.dumps(larger.pairs.partitions[::-1]))
        by_key = {pair.key: pair for partition in partitions for pair in partition()}
        assert len(by_key) == len(larger.pairs)
        assert all(same(pair, by_key[pair.key]) for pair in task.pairs)
    other = synthetic_tasks(image_size=(32, 32), tasks=2, pairs=2, test_pairs=1, seed=6)
    assert not any(same(one, two) for a, b in zip(few, other) for one, two in zip(a.pairs, b.pairs))


def test_the_number_of_workers_does_not_change_a_byte(tmp_path):
    def digest(name: str, **engine: object) -> str:
        tasks = synthetic_tasks(image_size=(32, 32), tasks=2, pairs=17, test_pairs=1)
        build(tasks, tmp_path / name, preprocessing=Preprocessing((32, 32)), say=len, **engine)
        return Manifest.read(tmp_path / name).digest()

    assert digest("one") == digest("threads", engine=lambda staging: _threads())


@contextlib.contextmanager
def _threads():
    """Two workers at a time, in threads: they start at once, processes do not."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield lambda jobs: pool.map(lambda job: job.run(), jobs)


def test_the_manifest_tells_which_tasks_have_two_contrasts(tmp_path):
    tasks = synthetic_tasks(image_size=(32, 32), tasks=5, pairs=1, test_pairs=0)
    build(tasks, tmp_path, preprocessing=Preprocessing((32, 32)), say=len)
    expected = [random_domain(0, number).two_contrasts for number in range(5)]
    assert [task.two_contrasts for task in Manifest.read(tmp_path).tasks] == expected
    assert {True, False} == set(expected)
    assert (tmp_path / "manifest.json").read_text().count("two_contrasts") == sum(expected)


@pytest.mark.parametrize("size", [(24, 24), (40, 100)])
def test_sizes_that_no_scene_fits_are_refused(size):
    with pytest.raises(UserError, match="--image-size"):
        synthetic_tasks(image_size=size)


def test_tasks_without_pairs_are_refused():
    with pytest.raises(UserError, match="--test-pairs"):
        synthetic_tasks(pairs=0, test_pairs=0)


def test_domains_differ_in_everything():
    kinds = collections.Counter(domain.style.kind for domain in MANY)
    assert set(kinds) == set(scenes.KINDS)
    assert max(kinds.values()) < 45
    backgrounds = np.array([domain.fixed.greys[0] for domain in MANY])
    assert all(15 < count < 75 for count in (np.sum(backgrounds == 0), np.sum(backgrounds == 1)))
    assert {domain.scanner.view for domain in MANY} == set(dict(appearance.VIEWS))
    assert 5 < sum(domain.lesions > 0 for domain in MANY) < 30
    assert 10 < sum(domain.style.body is not None for domain in MANY) < 60


def test_about_a_quarter_of_the_domains_has_two_contrasts():
    assert 15 <= sum(domain.two_contrasts for domain in MANY) <= 36


def test_motions_reach_from_hardly_any_to_fifteen_percent_of_the_width():
    reaches = np.array([domain.motion.reach for domain in MANY])
    assert reaches.min() < 0.012
    assert 0.10 < reaches.max() <= 0.15
    assert 0.40 < np.mean((reaches > 0.01) & (reaches < 0.06)) < 0.85
    smoothness = np.array([domain.motion.smoothness for domain in MANY])
    assert smoothness.min() < 0.08 < 0.2 < smoothness.max() <= 0.3


def test_the_smooth_motion_has_the_reach_of_its_task_and_no_folds():
    still = dict(rotation_deg=0.0, scaling=0.0, shift=0.0, identity=0.0)
    for reach in (0.02, 0.15):
        own = motion.Motion(reach=reach, smoothness=max(0.06, reach), fine=0.1, **still)
        fields = [motion.draw_displacement(own, keyed_rng(1, index), (48, 64)) for index in range(12)]
        lengths = [np.hypot(field[..., 0], field[..., 1]).max() / 64 for field in fields]
        assert 0.3 * reach < min(lengths) < 0.7 * reach < max(lengths) <= reach + 1e-6
        assert min(deformation.jacobian_determinant(field).min() for field in fields) > 0


def test_the_affine_motion_is_a_rotation_a_scaling_and_a_shift():
    own = motion.Motion(1e-9, 0.2, 0.0, rotation_deg=4.0, scaling=0.04, shift=0.02, identity=0.0)
    for index in range(5):
        field = motion.draw_displacement(own, keyed_rng(2, index), (50, 50)).astype(float)
        jacobian = np.eye(2) + np.stack([np.diff(field, axis=axis)[0, 0] for axis in (0, 1)], axis=-1)
        turn, stretch, _ = np.linalg.svd(jacobian)
        assert 0.96 - 1e-4 < stretch.min() <= stretch.max() < 1.04 + 1e-4
        assert np.degrees(np.abs(np.arctan2(jacobian[1, 0], jacobian[0, 0]))) < 4.1
        assert np.hypot(*field[24:26, 24:26].mean((0, 1))) < 0.02 * 50 * np.sqrt(2) + 1e-4


def test_some_pairs_do_not_move_and_then_differ_by_noise_alone():
    still = moved(plain(first_of("regions")), identity=1.0)
    pair = draw_pair(still, keyed_rng(0, "still"), SHAPE)
    assert not pair.displacement.any()
    np.testing.assert_allclose(pair.moving, pair.fixed, atol=1e-5)
    noisy = dataclasses.replace(still, scanner=dataclasses.replace(still.scanner, noise=0.05))
    pair = draw_pair(noisy, keyed_rng(0, "still"), SHAPE)
    assert 0.02 < np.std(pair.moving - pair.fixed) < 0.1
    share = np.mean(
        [
            not motion.draw_displacement(MANY[0].motion, keyed_rng(3, index), (16, 16)).any()
            for index in range(400)
        ]
    )
    assert 0.015 < share < 0.08


@pytest.mark.parametrize("kind", list(scenes.KINDS))
def test_the_motion_is_the_true_one_and_landmarks_follow_it(kind):
    domain = moved(plain(first_of(kind)), reach=0.05, smoothness=0.2, identity=0.0)
    pair = draw_pair(domain, keyed_rng(0, "truth"), (96, 96))
    inner = (slice(12, -12), slice(12, -12))
    back = deformation.warp(pair.fixed, pair.displacement, order=1)
    assert correlation(back[inner], pair.moving[inner]) > 0.98
    assert correlation(pair.fixed[inner], pair.moving[inner]) < correlation(back[inner], pair.moving[inner])
    moving, fixed = landmarks(pair)
    assert len(fixed) >= 8
    assert 0.5 < np.hypot(*(moving - fixed).T).mean() < 12
    there, here, unmoved = (
        ndimage.map_coordinates(image, points.T, order=1)
        for image, points in ((pair.moving, moving), (pair.fixed, fixed), (pair.moving, fixed))
    )
    assert np.abs(there - here).mean() < 0.03
    assert np.abs(there - here).mean() < 0.6 * np.abs(unmoved - here).mean() + 1e-3


def test_landmarks_lie_on_the_body_in_view_and_inside_both_images():
    for number, domain in enumerate(MANY[:30]):
        pair = draw_pair(domain, keyed_rng(0, "points", number), SHAPE)
        moving, fixed = landmarks(pair)
        assert len(moving) == len(fixed) >= 3
        for points in (moving, fixed):
            assert np.all((points >= 0.05 * 64) & (points <= 63 - 0.05 * 64))
        assert all(pair.content[tuple(np.rint(point).astype(int))] for point in fixed)


def contrast_pairs() -> list[DomainPair]:
    chosen = [moved(d, reach=0.01) for d in MANY if d.two_contrasts and d.scanner.noise < 0.04]
    return [draw_pair(d, keyed_rng(0, "contrast", number), SHAPE) for number, d in enumerate(chosen)]


def test_copies_resemble_the_fixed_image_where_the_moving_image_does_not():
    pairs = contrast_pairs()
    assert len(pairs) > 8
    shown = [abs(correlation(pair.moving[pair.content], pair.fixed[pair.content])) for pair in pairs]
    copied = [correlation(pair.moving_like_fixed[pair.content], pair.fixed[pair.content]) for pair in pairs]
    assert np.median(copied) > 0.8 > 0.5 > np.median(shown)
    assert np.mean(np.array(copied) > np.array(shown)) > 0.9


def test_copies_show_the_moving_scene_not_the_fixed_one():
    domain = moved(plain(first_of("regions", two_contrasts=True)), reach=0.08, smoothness=0.2, identity=0.0)
    pair = draw_pair(domain, keyed_rng(0, "copy"), (96, 96))
    inner = (slice(12, -12), slice(12, -12))
    back = deformation.warp(pair.fixed, pair.displacement, order=1)[inner]
    copy = pair.moving_like_fixed[inner]
    assert correlation(back, copy) > 0.98 > correlation(pair.fixed[inner], copy)


def test_a_lesion_is_in_one_image_only():
    calm = moved(plain(first_of("regions")), identity=1.0)
    ill = dataclasses.replace(calm, lesions=1.0)
    changed = []
    for index in range(6):
        pair = draw_pair(ill, keyed_rng(0, "lesion", index), SHAPE)
        changed.append(np.mean(np.abs(pair.moving - pair.fixed) > 0.05))
    assert 0.002 < np.mean(changed) < 0.2


def test_no_domain_is_empty_or_all_noise():
    for number, domain in enumerate(MANY[:40]):
        pair = draw_pair(domain, keyed_rng(0, "sound", number), SHAPE)
        assert pair.content.mean() > 0.1
        assert pair.fixed[pair.content].std() > 0.01, number
        # A second image of the still scene shows the same.
        still = moved(dataclasses.replace(domain, moving=domain.fixed, lesions=0.0), identity=1.0)
        twice = draw_pair(still, keyed_rng(0, "sound", number), SHAPE)
        smooth = [ndimage.gaussian_filter(image, 1.0) for image in (twice.moving, twice.fixed)]
        assert correlation(*smooth) > 0.5, number


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_background_is_even_up_to_the_body(quiet):
    domain = moved(plain(first_of("brain")), reach=0.05, smoothness=0.2, identity=0.0)
    scanner = dataclasses.replace(domain.scanner, noise=0.05, quiet=quiet, blur=0.003)
    pair = draw_pair(dataclasses.replace(domain, scanner=scanner), keyed_rng(0, "quiet"), SHAPE)
    far = ndimage.binary_erosion(ndimage.gaussian_filter(1.0 - pair.content, 1) > 0.99, iterations=4)
    assert far.sum() > 200
    values = pair.fixed[far]
    assert (np.ptp(values) < 1e-6) == quiet
    if quiet:
        assert np.mean(np.abs(pair.moving - values[0]) < 1e-6) > 0.3


def test_four_labels_or_more_get_another_contrast():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        palette = appearance.random_palette(rng, 4 + seed % 5)
        other = appearance.other_palette(palette, rng)
        assert abs(correlation(palette.greys[1:], other.greys[1:])) <= 0.5
    labels = [domain.style.labels for domain in MANY if domain.two_contrasts]
    assert min(labels) >= 4


def test_the_copy_is_prepared_like_the_moving_image():
    domain = next(d for d in MANY if d.two_contrasts)
    pair = draw_pair(domain, keyed_rng(0, "prepare"), SHAPE)
    raw = ImagePair("a", "a", pair.moving, pair.fixed, moving_like_fixed=pair.moving_like_fixed)
    prepared = prepare_pair(raw, Preprocessing((48, 48)))
    alone = prepare_pair(ImagePair("a", "a", pair.moving_like_fixed, pair.fixed), Preprocessing((48, 48)))
    np.testing.assert_array_equal(prepared.moving_like_fixed, alone.moving)
