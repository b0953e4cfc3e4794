from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tfmetareg._compat import tfa
from tfmetareg.data.schema import decode_pair, encode_pair
from tfmetareg.errors import UserError
from tfmetareg.geometry.affine import points_to_moving, resample
from tfmetareg.geometry.align import KINDS
from tfmetareg.geometry.frame import resize_mapping
from tfmetareg.imaging.choices import INTENSITIES
from tfmetareg.imaging.intensity import scale
from tfmetareg.imaging.preprocessing import Preprocessing, prepare_image, prepare_pair
from tfmetareg.imaging.read import read_image
from tfmetareg.types import ImagePair
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.base import Request


def test_each_image_of_a_pair_follows_its_own_resize():
    rng = np.random.default_rng(0)
    pair = ImagePair(
        key="a",
        subject="s",
        moving=rng.normal(size=(20, 40)),
        fixed=rng.integers(0, 4000, (40, 20)).astype(np.int16),
        moving_landmarks=np.array([[19.5, 39.5]], np.float32),
        fixed_landmarks=np.array([[4.5, 9.5]], np.float32),
        moving_spacing=(1.0, 0.5),
        fixed_spacing=(0.5, 1.0),
    )
    prepared = prepare_pair(pair, Preprocessing((40, 40)))
    assert prepared.moving.shape == prepared.fixed.shape == (40, 40)
    assert prepared.moving.dtype == prepared.fixed.dtype == np.uint8
    np.testing.assert_array_equal(prepared.moving_landmarks, [[39.5, 39.5]])
    np.testing.assert_array_equal(prepared.fixed_landmarks, [[4.5, 19.5]])
    assert prepared.moving_spacing == (0.5, 0.5)
    assert prepared.fixed_spacing == (0.5, 0.5)
    assert (prepared.key, prepared.subject) == ("a", "s")


def test_without_background_it_is_tfas_equalisation():
    image = np.random.default_rng(1).beta(2, 5, (64, 64)).astype(np.float32)
    plain = tfa.image.equalize(tf.constant(np.uint8(np.rint(255 * scale(image)))[..., None]))[..., 0]
    difference = prepare_image(image, Preprocessing((64, 64))).astype(int) - plain.numpy()
    # 256 levels against 1024, the lowest 3 % of the range to black.
    assert np.percentile(np.abs(difference), 95) <= 6
    assert np.abs(difference.mean()) < 2


def test_equalised_histogram_is_flat():
    image = np.random.default_rng(1).gamma(2, 300, (100, 100)) - 1024
    counts, _ = np.histogram(prepare_image(image, Preprocessing((100, 100))), 8, (0, 256))
    assert counts.min() > 0.7 * 10000 / 8
    assert counts.max() < 1.3 * 10000 / 8


@pytest.mark.parametrize("size", [(48, 48), (128, 128), (400, 400)])
@pytest.mark.parametrize("noise", [0, 12])
def test_ct_keeps_soft_tissue_and_a_dark_background(size, noise):
    """Air around a body of fat, muscle and liver with bone: HU from -1024 to 3000."""
    rng = np.random.default_rng(0)
    image = np.full((256, 256), -1000.0)
    parts = {"fat": (-100, 60, 196), "muscle": (55, 80, 176), "liver": (110, 100, 156)}
    for value, low, high in parts.values():
        image[low:high, low:high] = value
    image[62:66, 62:194] = 1500
    image[62, 62] = 3000
    body = image > -500
    image += np.where(body, 8, noise) * rng.standard_normal(image.shape)
    result = resize_mapping(size, (256, 256)).resample(prepare_image(image, Preprocessing(size)))
    assert np.median(result[:40]) == 0
    assert (result[:40] > 20).mean() < 0.02
    fat, muscle, liver = (np.median(result[y, 100:156]) for y in (72, 90, 128))
    assert 15 < fat < muscle - 40 < liver - 80


def test_a_small_body_is_not_bleached():
    """Nine tenths of background must not leave the rest the brightest greys, nor cut its upper half off."""
    rng = np.random.default_rng(0)
    image = np.zeros((128, 128))
    image[40:80, 40:80] = 100 + 40 * rng.random((40, 40))
    body = prepare_image(image, Preprocessing((128, 128)))[41:79, 41:79]
    assert np.percentile(body, 10) < 70
    assert 120 < np.median(body) < 170
    assert (body == 255).mean() < 0.03


@pytest.mark.parametrize("intensity", ["equalize", "percentile"])
def test_two_values_stay_two(intensity):
    image = np.zeros((32, 32), np.uint16)
    image[8:20, 8:20] = 65535
    result = prepare_image(image, Preprocessing((32, 32), intensity=intensity))
    assert set(np.unique(result)) == {0, 255}


@pytest.mark.parametrize("intensity", ["equalize", "percentile"])
@pytest.mark.parametrize("scale_by, offset", [(1e-12, 0), (1, 1e9), (1e300, 0), (1, -1e6)])
def test_units_do_not_matter(intensity, scale_by, offset):
    image = np.random.default_rng(0).random((32, 32))
    plain = prepare_image(image, Preprocessing((32, 32), intensity=intensity)).astype(int)
    other = prepare_image(image * scale_by + offset, Preprocessing((32, 32), intensity=intensity)).astype(int)
    assert np.abs(plain - other).max() <= 1


def test_one_bright_pixel_is_no_failure():
    image = np.zeros((64, 64))
    image[5, 5] = 1
    assert prepare_image(image, Preprocessing((64, 64))).max() == 255


def test_scaling_without_equalisation_clips_outliers():
    image = np.linspace(0, 1, 100 * 100).reshape(100, 100)
    image[0, 0] = 1000
    result = prepare_image(image, Preprocessing((100, 100), intensity="percentile"))
    assert result[50, 50] == pytest.approx(128, abs=2)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"moving": np.zeros((20, 20))}, "moving image: constant"),
        ({"fixed": np.zeros((20, 20, 3))}, "fixed image: must be one 2D"),
        ({"moving_landmarks": np.zeros((1, 2), np.float32)}, "1 moving and 0 fixed landmarks"),
        (
            {"moving_landmarks": np.float32([[3, 19.6]]), "fixed_landmarks": np.float32([[0, 0]])},
            r"point 1 \(x 19.6, y 3\) lies outside the image of width 20 and height 20",
        ),
    ],
)
def test_broken_pairs(changes, rule):
    image = np.random.default_rng(0).random((20, 20))
    pair = ImagePair(**{"key": "k", "subject": "s", "moving": image, "fixed": image, **changes})
    with pytest.raises(UserError, match=rule) as error:
        prepare_pair(pair, Preprocessing((20, 20)))
    assert "pair k" in str(error.value)


def test_real_scans_stay_as_the_paper_shows_them(real_data):
    octa = prepare_image(read_image(real_data / "octa_6mm" / "images" / "eye000.png"), Preprocessing())
    assert 0.45 < octa.mean() / 255 < 0.55
    brain = prepare_image(read_image(real_data / "oasis2d" / "oasis2d_0003.png"), Preprocessing())
    assert 0.4 < (brain == 0).mean() < 0.55
    assert brain[brain > 0].std() > 55


def options():
    """Every option at every kind of value, one away from the default at a time, and all together."""
    changes = [
        {"image_size": (48, 64)},
        {"fit": "pad"},
        {"fit": "crop", "spacing": 0.25},
        *({"intensity": name} for name in INTENSITIES),
        {"percentiles": (1.0, 99.0)},
        {"intensity": "none", "fit": "pad"},
        *({"align": name} for name in KINDS),
        {"colour": "luminance"},
    ]
    together = {"percentiles": (2.0, 97.5), "align": "affine", "colour": "luminance", "image_size": (32, 64)}
    return [Preprocessing(**change) for change in [{}, *changes, {**together, "fit": "crop", "spacing": 0.1}]]


@pytest.mark.parametrize("preprocessing", options(), ids=repr)
def test_the_manifest_says_it_all(preprocessing):
    described = json.loads(json.dumps(preprocessing.describe()))
    assert Preprocessing.from_description(preprocessing.image_size, described) == preprocessing


def test_records_without_colour_images_leave_new_ones_the_default():
    described = Preprocessing(colour=None).describe()
    assert described["colour"] is None
    assert Preprocessing.from_description((400, 400), described) == Preprocessing(colour="green")


def test_options_covers_every_field():
    default = Preprocessing()
    for field in dataclasses.fields(Preprocessing):
        assert any(getattr(each, field.name) != getattr(default, field.name) for each in options())


def test_a_manifest_of_another_version_is_refused():
    with pytest.raises(UserError, match="version None, this program has"):
        Preprocessing.from_description((8, 8), {"intensity": "equalize"})


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"fit": "squash"}, "`fit` must be one of resize, pad, crop, got `squash`"),
        ({"intensity": "x"}, "`intensity` must be one of"),
        ({"align": "x"}, "`align` must be one of"),
        ({"percentiles": (5, 5)}, "LOW below HIGH"),
        ({"percentiles": (-1, 5)}, "LOW below HIGH"),
        ({"spacing": 1.0}, "`--spacing` keeps a pixel size"),
    ],
)
def test_options_that_cannot_be(wrong, rule):
    with pytest.raises(UserError, match=rule):
        Preprocessing(**wrong)


def image_pair(shape=(40, 60), **changes):
    rng = np.random.default_rng(0)
    return ImagePair(
        **{"key": "k", "subject": "s", "moving": rng.random(shape), "fixed": rng.random(shape), **changes}
    )


def test_crop_drops_landmarks_in_both_images_and_says_so(capsys):
    """Columns 10 to 49 of 60 stay: row 2 is cut off in the fixed image, row 3 in the moving one."""
    pair = image_pair(
        moving_landmarks=np.float32([[5, 20], [6, 30], [7, 9]]),
        fixed_landmarks=np.float32([[5, 10], [6, 50], [7, 40]]),
        moving_spacing=(0.5, 0.5),
        fixed_spacing=(0.5, 0.5),
    )
    prepared = prepare_pair(pair, Preprocessing((40, 40), fit="crop"))
    np.testing.assert_array_equal(prepared.moving_landmarks, [[5, 10]])
    np.testing.assert_array_equal(prepared.fixed_landmarks, [[5, 0]])
    assert prepared.moving_spacing == (0.5, 0.5)
    assert "note: pair k: 2 of 3 landmarks left out" in capsys.readouterr().err


def test_padding_is_black_and_does_not_count_as_intensity():
    image = np.random.default_rng(0).random((40, 60)) + 5
    for intensity in ("equalize", "clahe", "percentile"):
        small = prepare_image(image, Preprocessing((40, 60), intensity=intensity))
        framed = prepare_image(image, Preprocessing((48, 80), fit="pad", intensity=intensity))
        np.testing.assert_array_equal(framed[4:44, 10:70], small)
        assert framed.sum() == small.sum()


def test_labels_follow_their_image():
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 25:35] = 3
    prepared = prepare_pair(
        image_pair(moving_labels=labels, fixed_labels=labels), Preprocessing((20, 20), fit="crop")
    )
    np.testing.assert_array_equal(prepared.fixed_labels, labels[10:30, 20:40])
    assert prepared.label_values is None


def test_labels_of_any_number_become_codes():
    labels = np.zeros((40, 60), np.int64)
    labels[10:20, 25:35] = -5
    labels[0, 0] = 10**12  # Cut off with the border: it needs no code.
    prepared = prepare_pair(
        image_pair(moving_labels=labels, fixed_labels=np.where(labels < 0, 70000, 0)),
        Preprocessing((20, 20), fit="crop"),
    )
    np.testing.assert_array_equal(prepared.label_values, [-5, 70000])
    assert prepared.moving_labels.dtype == prepared.fixed_labels.dtype == np.uint8
    np.testing.assert_array_equal(prepared.moving_labels, labels[10:30, 20:40] < 0)
    np.testing.assert_array_equal(prepared.fixed_labels, 2 * prepared.moving_labels)


def test_too_many_labels_are_a_line():
    labels = 1000 + np.arange(40 * 60).reshape(40, 60)
    with pytest.raises(UserError, match="400 different labels, of which a record holds 255; join some"):
        prepare_pair(
            image_pair(moving_labels=labels, fixed_labels=labels), Preprocessing((20, 20), fit="crop")
        )


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.uint8, [7, 200], [7, 200]),
        (np.uint16, [0, 257 * 9], [0, 9]),
        (np.float32, [0.0, 0.6], [0, 153]),
        (bool, [0, 1], [0, 255]),
    ],
)
def test_none_keeps_the_values(dtype, values, expected):
    image = np.array(values * 32).reshape(8, 8).astype(dtype)
    result = prepare_image(image, Preprocessing((8, 8), intensity="none"))
    np.testing.assert_array_equal(np.unique(result), expected)


def test_clahe_brings_out_a_faint_texture():
    """A faint texture in a dark corner of a bright image."""
    rng = np.random.default_rng(0)
    image = np.full((128, 128), 0.8) + 0.1 * rng.random((128, 128))
    image[:32, :32] = 0.1 + 0.02 * rng.random((32, 32))
    faint = {
        name: prepare_image(image, Preprocessing((128, 128), intensity=name))[4:28, 4:28].std()
        for name in ("percentile", "clahe")
    }
    assert faint["clahe"] > 1.5 * faint["percentile"]


def test_percentiles_become_black_and_white():
    image = np.arange(10000.0).reshape(100, 100)
    result = prepare_image(image, Preprocessing((100, 100), intensity="percentile", percentiles=(10, 60)))
    assert (result == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert (result == 255).mean() == pytest.approx(0.4, abs=0.01)


@pytest.fixture(scope="module")
def shifted_pair():
    """Blobs that lie 9 rows lower and 12 columns further left in the moving image."""
    rows, columns = np.indices((128, 128))
    points = np.random.default_rng(3).uniform(30, 98, (40, 2))
    shift = np.array([9, -12])

    def blobs(places):
        return sum(np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 8) for r, c in places)

    labels = np.zeros((128, 128), np.uint8)
    labels[60:80, 50:70] = 2
    return image_pair(
        moving=blobs(points + shift),
        fixed=blobs(points),
        moving_landmarks=(points + shift).astype(np.float32),
        fixed_landmarks=points.astype(np.float32),
        moving_labels=np.roll(labels, shift, (0, 1)),
        fixed_labels=labels,
        moving_spacing=(1.0, 2.0),
        fixed_spacing=(1.0, 1.0),
    )


@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_an_alignment_is_stored_beside_the_pair_as_it_was(shifted_pair, kind):
    plain = prepare_pair(shifted_pair, Preprocessing((128, 128)))
    aligned = prepare_pair(shifted_pair, Preprocessing((128, 128), align=kind))
    assert np.linalg.norm(plain.moving_landmarks - plain.fixed_landmarks, axis=1).mean() > 14
    carried = points_to_moving(aligned.fixed_landmarks, aligned.alignment)
    assert np.linalg.norm(carried - aligned.moving_landmarks, axis=1).mean() < 0.3
    resampled = resample(aligned.moving, aligned.alignment)[20:100, 20:100]
    assert np.corrcoef(resampled.ravel(), aligned.fixed[20:100, 20:100].ravel())[0, 1] > 0.97
    for name, value in vars(plain).items():
        if name != "alignment":
            assert np.array_equal(getattr(aligned, name), value), name
    again = decode_pair(encode_pair(aligned))
    np.testing.assert_array_equal(again.alignment, aligned.alignment)
    np.testing.assert_array_equal(decode_pair(encode_pair(plain)).alignment, np.eye(2, 3))


def test_real_scans_of_an_eye_come_within_the_networks_reach(real_data):
    """A near, a middling and the farthest pair; the best affine leaves 1.25 px of 320 on average."""
    request = Request(real_data / "octa_scp", None, "target", (160, 160), 0)
    (task,) = SOURCES["pairs"].tasks(request)
    before, after = [], []
    for part in (task.pairs.partitions[number] for number in (0, 20, 29)):
        (pair,) = part()
        for align, distances in (("none", before), ("affine", after)):
            prepared = prepare_pair(pair, Preprocessing((160, 160), align=align))
            carried = points_to_moving(prepared.fixed_landmarks, prepared.alignment)
            distances.append(np.linalg.norm(carried - prepared.moving_landmarks, axis=1).mean())
    assert max(before) > 0.1 * 160
    assert max(after) < 1.1
