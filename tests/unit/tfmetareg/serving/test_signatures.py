"""The exported signatures: what they compute, what they publish and what they refuse."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from tests.unit.tfmetareg.serving.conftest import encoded, scan
from tfmetareg.imaging.preprocessing import prepare_image
from tfmetareg.models.registry import build_model, registered
from tfmetareg.serving.signatures import INPUTS, build_signatures

SHAPES = [(1, 64, 64, 1), (1, 100, 90, 1), (1, 7, 5, 1), (3, 32, 40, 1)]


def images(shape, seed: int = 0) -> np.ndarray:
    """(batch, height, width, 1) float32 in [0, 1]."""
    return np.stack([scan(shape[1:3], seed + index)[..., None] for index in range(shape[0])])


def call(served, signature: str, **inputs) -> dict[str, np.ndarray]:
    dtypes = {name: spec.dtype for name, spec in INPUTS[signature].items()}
    tensors = {name: tf.constant(value, dtypes.get(name)) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in served.signatures[signature](**tensors).items()}


def interpolated(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """An image (height, width), read bilinearly at (..., 2), its border continued."""
    return ndimage.map_coordinates(image, np.moveaxis(points, -1, 0), order=1, mode="nearest")


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_size_are_registered_as_in_python(served, shape):
    moving, fixed = images(shape), images(shape, 10)
    warped, displacement = served.model([moving, fixed])
    assert np.abs(displacement).max() > 0.3
    found = call(served, "serving_default", moving=moving, fixed=fixed)
    assert found["displacement"].shape == (*shape[:3], 2)
    np.testing.assert_allclose(found["warped"], warped, atol=1e-5)
    np.testing.assert_allclose(found["displacement"], displacement, atol=1e-5)


@pytest.mark.parametrize("name", registered())
def test_every_registered_network_has_the_signature(name):
    model = build_model(name, (32, 32))
    inputs = {"moving": images((1, 50, 37, 1)), "fixed": images((1, 50, 37, 1), 10)}
    found = build_signatures(model, None)["serving_default"](**inputs)
    warped, displacement = model(list(inputs.values()))
    np.testing.assert_allclose(found["warped"], warped, atol=1e-5)
    np.testing.assert_allclose(found["displacement"], displacement, atol=1e-5)


def test_points_are_carried_by_the_displacement(served):
    moving, fixed = images((2, 30, 41, 1)), images((2, 30, 41, 1), 10)
    points = np.random.default_rng(0).uniform((-0.5, -0.5), (29.5, 40.5), (2, 50, 2)).astype(np.float32)
    found = call(served, "register_points", moving=moving, fixed=fixed, fixed_points=points)
    plain = call(served, "serving_default", moving=moving, fixed=fixed)
    np.testing.assert_allclose(found["warped"], plain["warped"], atol=1e-5)
    for batch in range(2):
        field = found["displacement"][batch]
        expected = points[batch] + np.stack([interpolated(field[..., i], points[batch]) for i in (0, 1)], -1)
        np.testing.assert_allclose(found["moving_points"][batch], expected, atol=1e-4)
    none = call(served, "register_points", moving=moving, fixed=fixed, fixed_points=np.zeros((2, 0, 2)))
    assert none["moving_points"].shape == (2, 0, 2)


def expected_png(served, moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Raw images (height, width[, channels]) -> the moving one on the fixed grid, in NumPy and float64."""
    frame = served.preprocessing.image_size
    grey = [image if image.ndim == 2 else image[..., 1] for image in (moving, fixed)]
    prepared = [
        prepare_image(image, served.preprocessing)[None, ..., None] / np.float32(255) for image in grey
    ]
    displacement = served.model(prepared)[1].numpy()[0]
    grid = np.moveaxis(np.indices(fixed.shape[:2]), 0, -1)
    in_frame = (grid + 0.5) * np.divide(frame, fixed.shape[:2]) - 0.5
    carried = in_frame + np.stack([interpolated(displacement[..., i], in_frame) for i in (0, 1)], axis=-1)
    in_moving = (carried + 0.5) / np.divide(frame, moving.shape[:2]) - 0.5
    channels = moving[..., None] if moving.ndim == 2 else moving
    warped = [interpolated(channel.astype(float), in_moving) for channel in np.moveaxis(channels, -1, 0)]
    return np.stack(warped, axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_are_registered_with_the_preprocessing_of_the_records(served, dtype, channels):
    moving = np.rint(scan((70, 90, 1)) * 0.8 * np.iinfo(dtype).max).astype(dtype)
    moving = np.concatenate([moving // (1 + channel) for channel in range(channels)], axis=-1)
    fixed = np.uint8(255 * scan((61, 55), 1))
    found = call(
        served,
        "register_png",
        moving=[tf.io.encode_png(moving).numpy()],
        fixed=[encoded(fixed / 255)],
    )["warped_bytes"]
    assert found.shape == (1,)
    warped = tf.io.decode_png(found[0], dtype=dtype).numpy()
    expected = expected_png(served, moving if channels == 3 else moving[..., 0], fixed)
    assert warped.shape == (61, 55, channels)
    assert found[0][24] == 8 * np.dtype(dtype).itemsize
    assert np.abs(warped - expected).max() <= 0.51 + 1e-4 * np.iinfo(dtype).max
    still = tf.image.resize(moving, (61, 55)).numpy()
    assert np.abs(warped - still).mean() > 10 * np.abs(warped - expected).mean()


def test_png_files_of_different_sizes_go_in_one_batch(served):
    files = [encoded(scan((20 + 9 * index, 30), index)) for index in range(3)]
    together = call(served, "register_png", moving=files, fixed=files[::-1])["warped_bytes"]
    for moving, fixed, warped in zip(files, files[::-1], together):
        assert call(served, "register_png", moving=moving, fixed=fixed)["warped_bytes"] == warped
        with Image.open(io.BytesIO(warped)) as image:
            assert image.size == Image.open(io.BytesIO(fixed)).size


def test_the_shapes_are_published(served):
    published = {
        name: {key: spec.shape.as_list() for key, spec in function.structured_input_signature[1].items()}
        for name, function in served.signatures.items()
    }
    image, points, files = [None, None, None, 1], [None, None, 2], [None]
    assert published == {
        "serving_default": {"moving": image, "fixed": image},
        "register_points": {"moving": image, "fixed": image, "fixed_points": points},
        "register_png": {"moving": files, "fixed": files},
    }


class Session:
    """A model as the loader of TensorFlow 1 gives it, which is the one that TF Serving uses."""

    def __init__(self, folder):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        self.definitions = loaded.signature_def

    def __call__(self, signature: str, **inputs) -> dict[str, np.ndarray]:
        definition = self.definitions[signature]
        names = {name: info.name for name, info in definition.outputs.items()}
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        return self._session.run(names, feeds)


@pytest.fixture(scope="module")
def session(served):
    return Session(served.folder)


class TestSession:
    def test_the_shapes_are_published(self, session):
        assert session.definitions.keys() >= INPUTS.keys()
        for signature, inputs in INPUTS.items():
            for name, info in session.definitions[signature].inputs.items():
                assert tf.TensorShape(info.tensor_shape).as_list() == inputs[name].shape.as_list()
                assert info.dtype == inputs[name].dtype.as_datatype_enum

    def test_it_computes_the_same(self, session, served):
        moving, fixed = images((2, 30, 41, 1)), images((2, 30, 41, 1), 10)
        warped, displacement = served.model([moving, fixed])
        found = session("serving_default", moving=moving, fixed=fixed)
        np.testing.assert_allclose(found["warped"], warped, atol=1e-5)
        np.testing.assert_allclose(found["displacement"], displacement, atol=1e-5)
        files = [encoded(scan((30, 40), seed)) for seed in range(2)]
        found = session("register_png", moving=files[:1], fixed=files[1:])["warped_bytes"]
        assert found == call(served, "register_png", moving=files[:1], fixed=files[1:])["warped_bytes"]

    def test_it_refuses_with_the_same_sentence(self, session):
        good = images((1, 16, 16, 1))
        for bad, sentence in BAD_IMAGES.values():
            with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
                session("serving_default", moving=good, fixed=bad)
        assert session("serving_default", moving=good, fixed=good)["warped"].shape == good.shape


def spoiled(value: float) -> np.ndarray:
    image = images((1, 16, 16, 1))
    image[0, 3, 5] = value
    return image


BAD_IMAGES = {
    "rank 0": (np.float32(0.5), r"`fixed` must have the shape \(batch, height, width, 1\).*\[\]"),
    "rank 2": (images((1, 16, 16, 1))[0, ..., 0], r"`fixed` must have the shape .*\[16 16\]"),
    "rank 5": (images((1, 16, 16, 1))[None], r"`fixed` must have the shape .*\[1 1 16 16 1\]"),
    "three channels": (np.tile(images((1, 16, 16, 1)), 3), r"`fixed` must have the shape .*\[1 16 16 3\]"),
    "no image": (np.zeros((0, 16, 16, 1), np.float32), r"`fixed` must hold at least one image"),
    "no pixel": (np.zeros((1, 0, 16, 1), np.float32), r"`fixed` must hold at least one image"),
    "one row": (np.zeros((1, 1, 16, 1), np.float32), r"`fixed` must hold at least one image"),
    "NaN": (spoiled(np.nan), r"`fixed` must be finite"),
    "infinity": (spoiled(-np.inf), r"`fixed` must be finite"),
    "8 bit": (255 * images((1, 16, 16, 1)), r"`fixed` must lie in \[0, 1\]: divide 8-bit images by 255"),
    "negative": (spoiled(-0.01), r"`fixed` must lie in \[0, 1\]"),
    "another size": (images((1, 16, 17, 1)), r"`moving` and `fixed` must have the same shape"),
    "another batch": (images((2, 16, 16, 1)), r"`moving` and `fixed` must have the same shape"),
}

BAD_POINTS = {
    "rank": (np.zeros((3, 2)), r"`fixed_points` must have the shape \(batch, n, 2\)"),
    "three coordinates": (np.zeros((1, 4, 3)), r"`fixed_points` must have the shape \(batch, n, 2\)"),
    "another batch": (np.zeros((2, 4, 2)), "`fixed_points` must hold the points of each image"),
    "beyond": ([[[3, 15.6]]], r"`fixed_points` must lie on the image.*\[16 16\]"),
    "before": ([[[-0.6, 3]]], "`fixed_points` must lie on the image"),
    "NaN": ([[[3, np.nan]]], "`fixed_points` must lie on the image"),
}

GOOD_FILE = encoded(scan((20, 30)))
BAD_FILES = {
    "empty": ([b""], "`fixed` must be a PNG file"),
    "a path": ([b"images/a.png"], "`fixed` must be a PNG file"),
    "JPEG": ([tf.io.encode_jpeg(np.zeros((9, 9, 1), np.uint8)).numpy()], "`fixed` must be a PNG file"),
    "cut in the header": ([GOOD_FILE[:20]], "`fixed` must have 1 to"),
    "cut": ([GOOD_FILE[:100]], "Invalid PNG.*"),
    "flipped": ([GOOD_FILE[:80] + b"\0\1\2" + GOOD_FILE[83:]], "Invalid PNG"),
    "vast": ([GOOD_FILE[:16] + b"\0\1\0\0" * 2 + GOOD_FILE[24:]], r"pixels: .*\[65536 65536\]"),
    "tiny": ([encoded(np.eye(7))], "`fixed` must have at least 8 pixels a side.*7 7"),
    "constant": ([encoded(np.ones((9, 9)))], "`fixed` must not be constant; every pixel is.*255"),
    "none": ([], r"`fixed` must have the shape \(batch,\)"),
    "rank 2": ([[GOOD_FILE]], r"`fixed` must have the shape \(batch,\)"),
    "one too many": ([GOOD_FILE] * 2, "`moving` and `fixed` must hold the same number"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images_are_refused_with_a_sentence(served, case):
    image, sentence = BAD_IMAGES[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        call(served, "serving_default", moving=images((1, 16, 16, 1)), fixed=image)
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        call(
            served,
            "register_points",
            moving=images((1, 16, 16, 1)),
            fixed=image,
            fixed_points=np.zeros((1, 1, 2)),
        )


@pytest.mark.parametrize("case", BAD_POINTS)
def test_points_are_refused_with_a_sentence(served, case):
    points, sentence = BAD_POINTS[case]
    image = images((1, 16, 16, 1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        call(served, "register_points", moving=image, fixed=image, fixed_points=points)


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_are_refused_with_a_sentence(served, case):
    files, sentence = BAD_FILES[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        call(served, "register_png", moving=[GOOD_FILE], fixed=files)


def broken_requests(count: int):
    """Signature and inputs of requests, each with one thing wrong, drawn at random."""
    rng = np.random.default_rng(0)
    ways = itertools.cycle([_broken_images, _broken_points, _broken_files])
    return [way(rng) for way in itertools.islice(ways, count)]


def _pick(rng: np.random.Generator, choices: list):
    return choices[rng.integers(len(choices))]


def _pair(rng: np.random.Generator) -> dict[str, np.ndarray]:
    shape = (rng.integers(1, 3), *rng.integers(2, 40, 2), 1)
    return {name: rng.random(shape, np.float32) for name in ("moving", "fixed")}


def _broken_images(rng: np.random.Generator):
    inputs = _pair(rng)
    name = _pick(rng, ["moving", "fixed"])
    image = inputs[name]
    place = tuple(rng.integers(image.shape))
    spoil = image.copy()
    spoil[place] = _pick(rng, [np.nan, np.inf, -np.inf, -1e-3, 1.5, 255.0, 3e38])
    axis = rng.integers(4)
    inputs[name] = _pick(
        rng,
        [
            spoil,
            image[0],
            image[..., 0],
            image[None],
            image.ravel(),
            np.repeat(image, 3, axis=3),
            np.repeat(image, 2, axis=axis),
            np.take(image, [], axis=axis),
            image[:, :1],
            rng.random(rng.integers(0, 4, rng.integers(0, 7)), np.float32) + 2,
        ],
    )
    return "serving_default", inputs


def _broken_points(rng: np.random.Generator):
    inputs = _pair(rng)
    batch, height, width, _ = inputs["fixed"].shape
    points = rng.uniform(0, (height - 1, width - 1), (batch, rng.integers(1, 9), 2)).astype(np.float32)
    spoil = points.copy()
    spoil[tuple(rng.integers(points.shape))] = _pick(rng, [np.nan, np.inf, -0.6, 100, -1e9])
    choices = [spoil, points[0], points[..., :1], points[None], np.repeat(points, 2, axis=0), points.ravel()]
    return "register_points", {**inputs, "fixed_points": _pick(rng, choices)}


def _broken_files(rng: np.random.Generator):
    dtype = _pick(rng, [np.uint8, np.uint16])
    good = encoded(rng.random(rng.integers(8, 40, 2)), dtype)
    broken = bytearray(good)
    # Anywhere but in the chunk that ends the file: without that, it is whole.
    broken[rng.integers(8, len(good) - 16)] ^= 1 << rng.integers(8)
    noise = rng.bytes(rng.integers(0, 400))
    bad = _pick(
        rng,
        [
            bytes(broken),
            good[: rng.integers(0, len(good) - 16)],
            noise,
            good[:8] + noise,
            good[:33] + noise,
            encoded(np.full(rng.integers(1, 20, 2), rng.random()), dtype),
            encoded(rng.random((rng.integers(1, 8), 20)), dtype),
        ],
    )
    files = [good, bad][:: _pick(rng, [1, -1])]
    return "register_png", {"moving": files[:1], "fixed": files[1:]}


def test_a_hundred_and_twenty_broken_requests_end_cleanly_and_the_model_answers_on(served):
    good = images((1, 20, 24, 1)), images((1, 20, 24, 1), 5)
    before = call(served, "serving_default", moving=good[0], fixed=good[1])
    for number, (signature, inputs) in enumerate(broken_requests(120)):
        with pytest.raises(tf.errors.InvalidArgumentError) as refusal:
            call(served, signature, **inputs)
            pytest.fail(f"request {number} to {signature} was answered")
        assert "assertion failed: [`" in refusal.value.message or "Invalid PNG" in refusal.value.message
    after = call(served, "serving_default", moving=good[0], fixed=good[1])
    np.testing.assert_array_equal(before["warped"], after["warped"])
