from __future__ import annotations

import io
import struct
from typing import Optional

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tfmetareg.errors import UserError
from tfmetareg.imaging.formats import tiff
from tfmetareg.imaging.formats.orientation import turned
from tfmetareg.imaging.read import open_image, read_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 32)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (24, 32)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
SMOOTH = np.uint8(np.add.outer(np.arange(48), 3 * np.arange(40)))
KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


def of_kind(dtype: str) -> np.ndarray:
    return ((GREY16 - 2.0**15) / 300).astype(dtype) if dtype[0] != "u" else GREY16.astype(dtype)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Unsigned integers of so many bits, each row beginning with a new byte."""
    rows = [(row[:, None] >> np.arange(bits - 1, -1, -1)) & 1 for row in values.astype(np.int64)]
    return b"".join(np.packbits(row.astype(np.uint8).ravel()).tobytes() for row in rows)


def write_packed(path, values: np.ndarray, bits: int, photometric: Optional[int] = 1) -> None:
    data = packed(values, bits)
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
            (278, height), (279, len(data))]  # fmt: skip
    tags = [(tag, value) for tag, value in tags if value is not None]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"MM\0*" + struct.pack(">I", 8 + len(data))
    path.write_bytes(header + data + struct.pack(">H", len(tags)) + entries + b"\0" * 4)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"tile": (16, 16)}, {"rowsperstrip": 5}, {"bigtiff": True}, {"byteorder": ">"},
        *({"compression": name} for name in ("lzw", "deflate", "packbits", "zstd", "lzma")),
        *({"compression": name, "predictor": True} for name in ("lzw", "deflate")),
        {"compression": "lzw", "tile": (16, 16), "bigtiff": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", KINDS)
def test_every_lossless_layout_and_depth_is_exact(tmp_path, dtype, options):
    values = of_kind(dtype)
    if options.get("predictor") and dtype == "float16":
        options = {**options, "predictor": 3}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
    read = tiff.read(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("depth", [1, 257])
def test_colours_in_pixels_or_in_planes(tmp_path, planes, compression, tile, depth):
    colours = COLOUR * np.array(depth, np.uint8 if depth == 1 else np.uint16)
    stored = np.moveaxis(colours, -1, 0) if planes == "separate" else colours
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes, compression=compression, tile=tile
    )
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif").pixels, colours)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colours[..., 1])


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize(("photometric", "channels"), [("minisblack", 1), ("rgb", 3)])
def test_alpha_comes_last(tmp_path, planes, photometric, channels):
    colours = np.dstack([COLOUR[..., :channels], np.full((24, 32), 7, np.uint8)])
    stored = np.moveaxis(colours, -1, 0) if planes == "separate" else colours
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric=photometric, planarconfig=planes, extrasamples=["unassalpha"]
    )
    image = tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, colours)
    assert not image.notes


def test_samples_beyond_alpha_are_left_out(tmp_path):
    five = np.dstack([COLOUR, GREY, GREY[::-1]])
    tifffile.imwrite(tmp_path / "a.tif", five, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    image = tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, COLOUR)
    assert "2 of its samples are neither grey nor a colour" in image.notes[0]


def test_samples_that_are_no_colours_are_left_out_or_refused(tmp_path):
    four = np.dstack([COLOUR, GREY])
    tifffile.imwrite(tmp_path / "two.tif", four[..., :2], photometric="minisblack", planarconfig="contig",
                     extrasamples=["unspecified"])  # fmt: skip
    image = tiff.read(tmp_path / "two.tif")
    np.testing.assert_array_equal(image.pixels, four[..., 0])
    assert "left out" in image.notes[0]
    tifffile.imwrite(tmp_path / "four.tif", four, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UserError, match="4 samples in a pixel of kind MINISBLACK"):
        tiff.read(tmp_path / "four.tif")


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(1, 16), photometric=st.sampled_from([0, 1]), width=st.integers(8, 21))
def test_packed_integers_of_any_depth(tmp_path_factory, bits, photometric, width):
    values = np.random.default_rng(width).integers(0, 2**bits, (9, width))
    path = tmp_path_factory.mktemp("packed") / "a.tif"
    write_packed(path, values if photometric else 2**bits - 1 - values, bits, photometric)
    np.testing.assert_array_equal(tiff.read(path).pixels, values)


def test_a_file_that_does_not_tell_what_its_values_mean(tmp_path):
    write_packed(tmp_path / "a.tif", GREY, 8, photometric=None)
    image = tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "does not tell" in image.notes[0]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_white_is_zero_in_every_depth(tmp_path, dtype, compression):
    values = of_kind(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", compression=compression)
    image = tiff.read(tmp_path / "a.tif")
    assert np.corrcoef(image.pixels.ravel().astype(float), values.ravel().astype(float))[0, 1] < -0.999999
    assert image.pixels.dtype == values.dtype
    assert "MINISWHITE" in image.notes[0]
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif", indices=True).pixels, values)


def test_white_is_zero_with_alpha(tmp_path):
    stored = np.dstack([GREY, np.full_like(GREY, 9)])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", planarconfig="contig",
                     extrasamples=["unassalpha"])  # fmt: skip
    pixels = tiff.read(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(pixels, np.dstack([255 - GREY, np.full_like(GREY, 9)]))


@pytest.mark.parametrize("compression", ["raw", "group3", "group4", "tiff_lzw", "packbits"])
def test_bilevel_fax(tmp_path, compression):
    PillowImage.fromarray(GREY > 100).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif").pixels > 0, GREY > 100)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
def test_jpeg_inside(tmp_path, photometric):
    values = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], -1) if photometric == "rgb" else SMOOTH
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, compression="jpeg")
    read = tiff.read(tmp_path / "a.tif").pixels.astype(int)
    shown = 255 - values if photometric == "miniswhite" else values
    assert np.abs(read - shown).mean() < 6


@pytest.mark.parametrize("fill", [0, 255])
def test_subsampled_ycbcr_without_jpeg(tmp_path, fill):
    """Blocks of 2 x 2 brightnesses with one pair of colours."""
    luma, (blue, red) = SMOOTH.copy(), (100, 180)
    luma[:4, :4] = fill
    blocks = luma.reshape(24, 2, 20, 2).transpose(0, 2, 1, 3).reshape(24, 20, 4)
    stored = np.dstack([blocks, np.full((24, 20), blue, np.uint8), np.full((24, 20), red, np.uint8)])
    empty = np.zeros((48, 40, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", empty, photometric="ycbcr", rowsperstrip=48)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        page = file.pages[0]
        file.filehandle.seek(page.dataoffsets[0])
        file.filehandle.write(stored.tobytes())
        page.tags[279].overwrite(stored.size)
        page.tags[530].overwrite((2, 2))
    ycbcr = np.dstack([luma, np.full_like(luma, blue), np.full_like(luma, red)])
    expected = np.asarray(PillowImage.fromarray(ycbcr, "YCbCr").convert("RGB")).astype(int)
    assert np.abs(tiff.read(tmp_path / "a.tif").pixels - expected).max() <= 2


@pytest.mark.parametrize(
    ("compression", "off"), [("raw", 1), ("tiff_lzw", 1), ("tiff_deflate", 1), ("jpeg", 12)]
)
def test_ycbcr(tmp_path, compression, off):
    smooth = PillowImage.fromarray(np.stack([SMOOTH, SMOOTH[::-1] // 2, SMOOTH[:, ::-1] // 3], -1))
    smooth.convert("YCbCr").save(tmp_path / "a.tif", compression=compression)
    read = tiff.read(tmp_path / "a.tif").pixels.astype(int)
    assert np.abs(read - np.asarray(smooth.convert("YCbCr").convert("RGB"))).mean() < off


@pytest.mark.parametrize("depth", [1, 257])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_cmyk_is_what_pillow_makes_of_it(tmp_path, depth, planes):
    inks = np.asarray(PillowImage.fromarray(np.dstack([COLOUR, GREY]), "CMYK"))
    deep = inks * np.array(depth, np.uint8 if depth == 1 else np.uint16)
    stored = np.moveaxis(deep, -1, 0) if planes == "separate" else deep
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="separated", planarconfig=planes)
    shown = np.asarray(PillowImage.fromarray(inks, "CMYK").convert("RGB"))
    np.testing.assert_allclose(
        tiff.read(tmp_path / "a.tif").pixels / depth, shown, atol=0 if depth == 1 else 1
    )


@pytest.mark.parametrize("scale", [1, 256, 257], ids=["8 bits", "shifted", "16 bits"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_palettes_are_colours_or_indices(tmp_path, scale, compression):
    table = RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        GREY,
        photometric="palette",
        colormap=table * np.uint16(scale),
        compression=compression,
    )
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif").pixels, table.T[GREY].astype(np.uint8))
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif", indices=True).pixels, GREY)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("image", [GREY, GREY16, COLOUR], ids=["8", "16", "colour"])
def test_orientation_is_that_of_pillow(tmp_path, orientation, image):
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(274, "H", 1, orientation, True)],
                     photometric="rgb" if image.ndim == 3 else "minisblack")  # fmt: skip
    read = tiff.read(tmp_path / "a.tif")
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
             7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
    shown = PillowImage.fromarray(image[..., 1] if image.ndim == 3 else image)
    if orientation in turns:
        shown = shown.transpose(getattr(PillowImage.Transpose, turns[orientation]))
    np.testing.assert_array_equal(read.grey(), np.asarray(shown))
    assert bool(read.notes) == (orientation in turns)
    assert read.grid.shape == read.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_are_those_that_itk_reads(tmp_path, orientation):
    """What ITK finds at the place of a pixel is that pixel."""
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(274, "H", 1, orientation, True)],
                     photometric="minisblack", resolution=(100, 50), resolutionunit="INCH")  # fmt: skip
    image, of_itk = open_image(tmp_path / "a.tif"), sitk.ReadImage(str(tmp_path / "a.tif"))
    for row, column in ((0, 0), (3, 17), (20, 5)):
        place = image.grid.places(np.array([row, column]))
        found = of_itk[of_itk.TransformPhysicalPointToIndex(place.tolist())]
        assert (found[0] if isinstance(found, tuple) else found) == image.pixels[row, column]


@pytest.mark.parametrize("unit", ["INCH", "CENTIMETER", "NONE"])
@pytest.mark.parametrize("resolution", [(300, 150), (0.5, 7), (0, 150)])
def test_resolution_is_in_the_grid_as_in_itk(tmp_path, unit, resolution):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=resolution, resolutionunit=unit)
    image = tiff.read(tmp_path / "a.tif")
    assert image.grid.spacing == pytest.approx(sitk.ReadImage(str(tmp_path / "a.tif")).GetSpacing())
    assert image.spacing is None


@pytest.mark.parametrize(
    ("unit", "size"),
    [("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("nm", 1e-6), ("inch", 25.4)],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_pixel_size_of_imagej(tmp_path, unit, size, orientation):
    tifffile.imwrite(tmp_path / "a.tif", GREY, imagej=True, resolution=(4, 2), metadata={"unit": unit},
                     extratags=[(274, "H", 1, orientation, True)])  # fmt: skip
    expected = (0.5 * size, 0.25 * size)
    assert tiff.read(tmp_path / "a.tif").spacing == pytest.approx(expected[:: 1 if orientation == 1 else -1])


@pytest.mark.parametrize("unit", ["pixel", None])
def test_imagej_without_a_unit_tells_no_size(tmp_path, unit):
    tifffile.imwrite(tmp_path / "a.tif", GREY, imagej=True, resolution=(4, 2), metadata={"unit": unit})
    assert tiff.read(tmp_path / "a.tif").spacing is None


@pytest.mark.parametrize(("unit", "size"), [("µm", 1e-3), ("nm", 1e-6), ("mm", 1.0), ("pixel", None)])
def test_pixel_size_of_ome(tmp_path, unit, size):
    metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 0.5,
                "PhysicalSizeYUnit": unit}  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY, ome=True, metadata=metadata)
    expected = size and (0.5 * size, 0.25 * size)
    assert tiff.read(tmp_path / "a.ome.tif").spacing == (expected and pytest.approx(expected))


def test_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for values in (GREY, GREY[::-1], GREY[:, ::-1]):
            writer.write(values, photometric="minisblack")
    with pytest.raises(UserError, match="3 pages; name one, as in `a.tif#0`"):
        tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif", 2).pixels, GREY[:, ::-1])
    with pytest.raises(UserError, match="has no page 3; pages are 0 to 2"):
        tiff.read(tmp_path / "a.tif", 3)


def test_reduced_copies_and_masks_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY[::2, ::2], photometric="minisblack", subfiletype=1)
        writer.write(GREY, photometric="minisblack")
        writer.write(GREY > 0, photometric="minisblack", subfiletype=4)
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif").pixels, GREY)


@pytest.mark.parametrize("options", [{"imagej": True}, {"metadata": {}}], ids=["imagej", "tifffile"])
def test_stacks_behind_one_page_are_no_image(tmp_path, options):
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([GREY] * 4), photometric="minisblack", truncate=True, **options
    )
    with pytest.raises(UserError, match="a stack of 4"):
        tiff.read(tmp_path / "a.tif")


def test_volumes_are_no_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY] * 4), photometric="minisblack", volumetric=True,
                     tile=(4, 16, 16))  # fmt: skip
    with pytest.raises(UserError, match="a volume of 4 slices"):
        tiff.read(tmp_path / "a.tif")


@pytest.mark.parametrize("photometric", ["cielab", "cfa"])
def test_other_kinds_of_pixels_are_named(tmp_path, photometric):
    values = COLOUR if photometric == "cielab" else GREY
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric)
    with pytest.raises(
        UserError, match=f"of kind {photometric.upper()} are not read; save it in grey or as RGB"
    ):
        tiff.read(tmp_path / "a.tif")


@pytest.mark.parametrize(("number", "name"), [(34661, "JBIG"), (34676, "SGILOG"), (60001, "number 60001")])
def test_other_compressions_are_named_with_the_remedy(tmp_path, number, name):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags[259].overwrite(number)
    with pytest.raises(
        UserError, match=f"compression {name} is not read; save it again uncompressed"
    ) as error:
        open_image(tmp_path / "a.tif")
    assert "\n" not in str(error.value)


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack", compression="lzw")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for tag in (256, 257, 278):
            file.pages[0].tags[tag].overwrite(60000)
    with pytest.raises(UserError, match="claims 3,600,000,000 bytes"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("compression", "marker"), [("jpeg", b"\xff\xc0"), ("jpeg2000", b"\xff\x51"), ("png", b"IHDR")]
)
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_picture_inside_that_claims_too_much_takes_no_memory(tmp_path, compression, marker, tile):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack", compression=compression, tile=tile)
    np.testing.assert_allclose(
        open_image(tmp_path / "a.tif").pixels, GREY, atol=255 if compression == "jpeg" else 0
    )
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(marker) + {"jpeg": 5, "jpeg2000": 6, "png": 4}[compression]
    content[at : at + 4] = b"\x00\x00\xff\x00" if compression != "jpeg" else b"\xff\x00\xff\x00"
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match="pixels where .* belong"):
        open_image(tmp_path / "a.tif")


def test_missing_strips_are_not_made_up(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack", compression="lzw", rowsperstrip=8)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags[257].overwrite(48)
    with pytest.raises(UserError, match="unreadable image"):
        open_image(tmp_path / "a.tif")


def written(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", **options)
    return stream.getvalue()


WHOLE = [
    written(GREY, **options)
    for options in (
        {},
        {"compression": "lzw"},
        {"compression": "jpeg"},
        {"compression": "deflate", "tile": (16, 16)},
    )
]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_give_one_line_or_an_image(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "a.tif"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert open_image(path).pixels.ndim in (2, 3)
    except UserError as error:
        assert "\n" not in str(error)


def test_turned_is_undone_by_its_inverse():
    for orientation, inverse in {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.items():
        np.testing.assert_array_equal(turned(turned(COLOUR, orientation), inverse), COLOUR)
