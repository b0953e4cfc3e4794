"""The preprocessing in the graph, against the builder's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from tfmetareg.errors import UserError
from tfmetareg.imaging.choices import FITS
from tfmetareg.imaging.preprocessing import Preprocessing, image_geometry, prepare_image
from tfmetareg.imaging.read import read_image
from tfmetareg.serving.preprocessing_graph import decode, encode, to_frame, unservable


def scan(shape, seed: int = 0) -> np.ndarray:
    """A bright body with texture on a dark, faintly noisy background; float in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape) / np.reshape(shape, (2, 1, 1)) - 0.5
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    body = (rows**2 + columns**2 < 0.14) * (0.5 + 2 * texture)
    return np.clip(body + 0.01 * rng.random(shape), 0, 1)


def png(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png", **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    """PNG files of every kind that the builder reads."""
    grey = np.uint8(255 * scan((70, 90)))
    colours = np.stack([np.uint8(255 * scan((70, 90), seed)) for seed in range(4)], axis=-1)
    wide = np.stack([np.uint16(65535 * scan((70, 90), seed)) for seed in range(3)], axis=-1)
    return {
        "8 bit": png(grey),
        "16 bit": png(np.uint16(65535 * scan((70, 90)))),
        "16 bit of small contrast": png(np.uint16(40000 + 300 * scan((33, 41)))),
        "larger than the frame": png(np.uint8(255 * scan((123, 201)))),
        "1 bit": png(grey > 100),
        "grey and alpha": png(colours[..., :2]),
        "colour": png(colours[..., :3]),
        "colour and alpha": png(colours),
        "16 bit colour": tf.io.encode_png(wide).numpy(),
        "palette": palette(colours[..., :3]),
    }


def palette(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).quantize(60).save(stream, "png")
    return stream.getvalue()


FILES = files()


def greys_apart(file: bytes, path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """How many grey levels the graph's image lies from the builder's, pixel by pixel."""
    path.write_bytes(file)
    expected = prepare_image(read_image(path, preprocessing.colour), preprocessing)
    placed = to_frame(decode(tf.constant(file), "moving"), preprocessing, "moving")
    assert placed.image.shape == (1, *preprocessing.image_size, 1)
    found = np.rint(255 * placed.image.numpy()[0, ..., 0])
    return np.abs(found - expected)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["equalize", "percentile", "none"])
def test_each_kind_of_file_becomes_what_the_builder_makes_of_it(name, kind, tmp_path):
    preprocessing = Preprocessing((64, 48), intensity=kind)
    assert greys_apart(FILES[name], tmp_path / "a.png", preprocessing).max() <= 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("frame", [(64, 48), (129, 203)])
def test_each_fit_becomes_what_the_builder_makes_of_it(fit, frame, tmp_path):
    if fit == "pad" and frame == (64, 48):
        pytest.skip("the builder refuses the file too: see test_a_file_too_large_for_padding")
    preprocessing = Preprocessing(frame, fit=fit)
    file = FILES["larger than the frame"]
    assert greys_apart(file, tmp_path / "a.png", preprocessing).max() <= 1
    placed = to_frame(decode(tf.constant(file), "moving"), preprocessing, "moving")
    geometry = image_geometry((123, 201), preprocessing)
    np.testing.assert_allclose(placed.scale, geometry.scale, rtol=1e-6)
    np.testing.assert_array_equal(placed.shift, geometry.shift)


def test_luminance_becomes_what_the_builder_makes_of_it(tmp_path):
    preprocessing = Preprocessing((64, 48), colour="luminance")
    for name in ("colour", "8 bit", "grey and alpha"):
        assert greys_apart(FILES[name], tmp_path / "a.png", preprocessing).max() <= 1


def test_luminance_whose_values_are_to_be_kept_is_refused_as_by_the_builder(tmp_path):
    preprocessing = Preprocessing((64, 48), intensity="none", colour="luminance")
    for name in ("8 bit", "grey and alpha"):
        assert greys_apart(FILES[name], tmp_path / "a.png", preprocessing).max() <= 1
    (tmp_path / "a.png").write_bytes(FILES["colour"])
    with pytest.raises(UserError, match="intensity none"):
        prepare_image(read_image(tmp_path / "a.png", "luminance"), preprocessing)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`moving` must be grey"):
        to_frame(decode(tf.constant(FILES["colour"]), "moving"), preprocessing, "moving")


def test_rare_intensities_become_what_the_builder_makes_of_them(tmp_path):
    spots = np.zeros((60, 60), np.uint8)
    spots[[3, 50], [7, 9]] = 255, 100
    two = np.uint8(255 * (np.indices((60, 60))[0] > 30))
    for array in (spots, two, 255 - spots):
        for kind in ("equalize", "percentile"):
            preprocessing = Preprocessing((60, 60), intensity=kind)
            assert greys_apart(png(array), tmp_path / "a.png", preprocessing).max() <= 1


@pytest.mark.parametrize("folder", ["octa_scp/images", "oasis2d"])
def test_real_images_become_what_the_builder_makes_of_them(folder, real_data, tmp_path):
    paths = sorted((real_data / folder).rglob("*.png"))[:4]
    assert paths
    for path in paths:
        for kind in ("equalize", "percentile"):
            preprocessing = Preprocessing((128, 128), intensity=kind)
            assert greys_apart(path.read_bytes(), tmp_path / "a.png", preprocessing).max() <= 1


def test_a_picture_comes_back_as_it_was_encoded():
    for name in ("8 bit", "16 bit", "colour and alpha", "16 bit colour"):
        again = encode(decode(tf.constant(FILES[name]), "moving"))
        for dtype in (tf.uint8, tf.uint16):
            pixels = [tf.io.decode_png(file, dtype=dtype).numpy() for file in (FILES[name], again)]
            np.testing.assert_array_equal(*pixels)


def test_a_file_too_large_for_padding():
    file = tf.constant(FILES["larger than the frame"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have at most 64 x 48 pixels"):
        to_frame(decode(file, "fixed"), Preprocessing((64, 48), fit="pad"), "fixed")


def test_what_no_graph_can_do_is_known():
    assert unservable(Preprocessing()) == ""
    assert "clahe" in unservable(Preprocessing(intensity="clahe"))
    assert "pixel size" in unservable(Preprocessing(fit="crop", spacing=0.5))


@pytest.mark.parametrize("side", [7, 8])
def test_the_smallest_side_is_the_one_that_the_reader_takes(side, tmp_path):
    file = png(np.uint8(255 * scan((side, 30))))
    (tmp_path / "a.png").write_bytes(file)
    if side == 8:
        assert read_image(tmp_path / "a.png").shape == decode(tf.constant(file), "moving").pixels.shape[:2]
        return
    with pytest.raises(UserError, match="at least 8 pixels"):
        read_image(tmp_path / "a.png")
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 8 pixels a side"):
        decode(tf.constant(file), "moving")
