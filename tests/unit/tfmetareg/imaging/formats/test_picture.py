from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from PIL import ImageOps

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats import picture
from tfmetareg.imaging.read import open_image

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (24, 32)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
SMOOTH = np.uint8(np.add.outer(np.arange(48), 3 * np.arange(40)))
ORIENTATIONS = range(1, 9)


def exif(orientation: object) -> PillowImage.Exif:
    tags = PillowImage.Exif()
    tags[274] = orientation
    return tags


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied_as_viewers_do(tmp_path, ending, orientation):
    path = tmp_path / f"a.{ending}"
    PillowImage.fromarray(SMOOTH).save(path, exif=exif(orientation))
    image = picture.read(path)
    np.testing.assert_array_equal(image.pixels, np.asarray(ImageOps.exif_transpose(PillowImage.open(path))))
    assert [f"orientation ({orientation})" in note for note in image.notes] == [True] * (orientation > 1)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("place", ["before", "after"])
def test_exif_of_png_may_stand_behind_the_pixels(tmp_path, depth, channels, place):
    values = RNG.integers(0, 2**depth, (24, 32, channels)).astype(f"uint{depth}").squeeze()
    content = imagecodecs.png_encode(values)
    data = exif(6).tobytes().removeprefix(b"Exif\0\0")
    at = content.index(b"IDAT" if place == "before" else b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:at] + chunk(b"eXIf", data) + content[at:])
    np.testing.assert_array_equal(picture.read(tmp_path / "a.png").pixels, np.rot90(values, -1))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_without_a_meaning_is_ignored(tmp_path, orientation):
    PillowImage.fromarray(SMOOTH).save(tmp_path / "a.png", exif=exif(orientation))
    image = picture.read(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, SMOOTH)
    assert not image.notes


@pytest.mark.parametrize(
    "data", [b"", b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"rubbish"]
)
def test_damaged_exif_is_ignored(tmp_path, data):
    PillowImage.fromarray(SMOOTH).save(tmp_path / "a.jpg", exif=data)
    assert picture.read(tmp_path / "a.jpg").shape == SMOOTH.shape


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_places_are_those_that_itk_reads(tmp_path, ending, orientation):
    """ITK does not turn the picture; what it finds at the place of a pixel is that pixel nonetheless."""
    path = tmp_path / f"a.{ending}"
    PillowImage.fromarray(SMOOTH).save(path, exif=exif(orientation), dpi=(100, 50), quality=95)
    image, of_itk = open_image(path), sitk.ReadImage(str(path))
    for row, column in ((0, 0), (3, 17), (20, 5), (39, 39)):
        place = image.grid.places(np.array([row, column]))
        found = of_itk[of_itk.TransformPhysicalPointToIndex(place.tolist())]
        assert abs(found - int(image.pixels[row, column])) <= 1  # Decoders of JPEG may differ by one.
    assert image.spacing is None


@pytest.mark.parametrize("unit", [0, 1, 2])
@pytest.mark.parametrize("density", [(300, 150), (0, 150)])
def test_density_of_jpeg_is_in_the_grid_as_in_itk(tmp_path, unit, density):
    content = bytearray(written(SMOOTH, "JPEG"))
    at = content.index(b"JFIF\0") + 7
    content[at : at + 5] = struct.pack(">BHH", unit, *density)
    (tmp_path / "a.jpg").write_bytes(content)
    expected = sitk.ReadImage(str(tmp_path / "a.jpg")).GetSpacing()
    assert picture.read(tmp_path / "a.jpg").grid.spacing == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 2), (24, 32, 3), (24, 32, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_keeps_every_value(tmp_path, shape, depth):
    values = RNG.integers(0, 2**depth, shape).astype(f"uint{depth}")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    np.testing.assert_array_equal(picture.read(tmp_path / "a.png").pixels, values)


@pytest.mark.parametrize(("bits", "scale"), [(1, 255), (2, 85), (4, 17), (8, 1)])
def test_png_of_few_grey_values(tmp_path, bits, scale):
    values = RNG.integers(0, 2**bits, (24, 32))
    packed = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(packed.reshape(24, -1).astype(np.uint8), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 32, 24, bits, 0, 0, 0, 0)
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    chunks = chunk(b"IHDR", header) + gamma + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    np.testing.assert_array_equal(picture.read(tmp_path / "a.png").pixels, values * scale)


def interlaced(values: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB in the seven passes of Adam7."""
    height, width, _ = values.shape
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    parts = (values[row::down, column::across] for row, column, down, across in passes)
    data = b"".join(b"\0" + line.astype(">u2").tobytes() for part in parts for line in part)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_interlaced_png(tmp_path):
    values = COLOUR.astype(np.uint16) * 257 + 3
    (tmp_path / "a.png").write_bytes(interlaced(values))
    np.testing.assert_array_equal(picture.read(tmp_path / "a.png").pixels, values)


@pytest.mark.parametrize("colours", [2, 4, 16, 200])
@pytest.mark.parametrize("transparency", [None, 1])
def test_palettes_are_colours_or_indices(tmp_path, colours, transparency):
    table = RNG.integers(0, 256, (colours, 3)).astype(np.uint8)
    values = RNG.integers(0, colours, (24, 32)).astype(np.uint8)
    image = PillowImage.fromarray(values, "P")
    image.putpalette(table.tobytes())
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    np.testing.assert_array_equal(picture.read(tmp_path / "a.png").pixels, table[values])
    np.testing.assert_array_equal(picture.read(tmp_path / "a.png", indices=True).pixels, values)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"optimize": True}], ids=str
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_kinds_of_jpeg(tmp_path, mode, options):
    smooth = PillowImage.fromarray(np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], -1)).convert(mode)
    smooth.save(tmp_path / "a.jpg", quality=97, **options)
    shown = np.asarray(smooth if mode == "L" else smooth.convert("RGB")).astype(int)
    assert np.abs(picture.read(tmp_path / "a.jpg").pixels - shown).mean() < 8


def test_ycck_jpeg(tmp_path):
    """Photoshop's CMYK: inks as YCCK, inverted, with Adobe's mark."""
    inks = np.dstack([np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], -1), SMOOTH // 4])
    content = imagecodecs.jpeg8_encode(255 - inks, level=97, colorspace="CMYK", outcolorspace="YCCK")
    (tmp_path / "a.jpg").write_bytes(content)
    shown = np.asarray(PillowImage.fromarray(inks, "CMYK").convert("RGB")).astype(int)
    assert np.abs(picture.read(tmp_path / "a.jpg").pixels - shown).mean() < 8


def test_a_phone_s_picture_with_a_second_one_inside(tmp_path):
    first, second = (PillowImage.fromarray(values) for values in (SMOOTH, SMOOTH[::-1]))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(picture.read(tmp_path / "a.jpg").pixels.astype(int) - SMOOTH).max() < 8


@pytest.mark.parametrize("kind", ["12 bits", "lossless"])
def test_other_kinds_of_jpeg_are_named(tmp_path, kind):
    deep = SMOOTH.astype(np.uint16) * 16
    encode = imagecodecs.jpeg_encode if kind == "12 bits" else imagecodecs.ljpeg_encode
    (tmp_path / "a.jpg").write_bytes(encode(deep, bitspersample=12))
    with pytest.raises(
        UserError, match="JPEG of 12 bits or without loss is not read; save it as PNG or TIFF"
    ):
        open_image(tmp_path / "a.jpg")


def test_an_animation_is_no_image(tmp_path):
    first, second = (PillowImage.fromarray(values) for values in (SMOOTH, SMOOTH[::-1]))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(UserError, match="an animation of 2"):
        open_image(tmp_path / "a.png")


def test_a_large_picture_is_read_and_a_large_claim_refused(tmp_path):
    PillowImage.new("L", (14000, 13000)).save(tmp_path / "large.png", compress_level=1)
    assert picture.read(tmp_path / "large.png").shape == (13000, 14000)
    content = bytearray(imagecodecs.png_encode(GREY))
    content[12:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 0, 0, 0, 0))[4:]
    (tmp_path / "claim.png").write_bytes(content)
    with pytest.raises(UserError, match="claims 10,000,000,000 bytes"):
        open_image(tmp_path / "claim.png")
    assert PillowImage.MAX_IMAGE_PIXELS


def written(values: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


WHOLE = {
    "a.jpg": [written(SMOOTH, "JPEG", exif=exif(6)), written(COLOUR, "JPEG", progressive=True)],
    "a.png": [
        written(COLOUR, "PNG", exif=exif(3)),
        imagecodecs.png_encode(COLOUR.astype(np.uint16) * 257),
        interlaced(COLOUR),
    ],
}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_give_one_line_or_an_image(tmp_path_factory, data):
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    content = bytearray(data.draw(st.sampled_from(WHOLE[name])))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert open_image(path).pixels.ndim in (2, 3)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
@pytest.mark.parametrize("name", sorted(WHOLE))
def test_cut_files_are_unreadable(tmp_path, name, kept):
    for content in WHOLE[name]:
        (tmp_path / name).write_bytes(content[: int(kept * len(content))])
        with pytest.raises(UserError, match="unreadable image"):
            open_image(tmp_path / name)
