"""Label maps come out of every format with the numbers that were put into it, or are refused."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Pillow

from tfmetareg.errors import UserError
from tfmetareg.imaging.grid import Grid
from tfmetareg.imaging.image import Image
from tfmetareg.imaging.labels import (
    as_labels,
    label_codes,
    labels_of_codes,
    open_labels,
    read_label_volume,
    shared_labels_note,
)
from tfmetareg.imaging.read import open_image

SHAPE = (9, 12)
AFFINE = np.array([[-0.7, 0, 0, 40], [0, 0.9, 0, -30], [0, 0, 2, 5], [0, 0, 0, 1]])


def read(path, image=None, shape=SHAPE):
    """The label map of an image file, by default of one that tells nothing but its size."""
    image = open_image(image) if image else Image(np.zeros(shape), Grid(shape), "image.png")
    return open_labels(path, image).pixels


def map_of(*labels: int, shape=SHAPE) -> np.ndarray:
    """A label map, int64, that holds each of these."""
    return np.resize(np.array(labels, np.int64), shape)


def save_nifti(path, labels, dtype=None, affine=AFFINE):
    image = nibabel.Nifti1Image(labels, affine)
    if dtype is not None:
        image.set_data_dtype(dtype)
    nibabel.save(image, path)


def palette(labels: np.ndarray) -> Pillow.Image:
    """A palette image whose colours have nothing to do with the indices."""
    image = Pillow.fromarray(labels.astype(np.uint8), "P")
    image.putpalette([value for index in range(256) for value in (255 - index, 7 * index % 256, 128)])
    return image


@settings(max_examples=30, deadline=None)
@given(
    labels=arrays.arrays(np.int64, SHAPE, elements=st.integers(-(2**31), 2**31 - 1)),
    ending=st.sampled_from([".npy", ".tif", ".nii", ".nii.gz"]),
)
def test_any_integers_come_back_as_they_were(tmp_path_factory, labels, ending):
    path = tmp_path_factory.mktemp("labels") / f"a{ending}"
    narrow = labels.astype(np.int32)
    if ending == ".npy":
        np.save(path, labels)
    elif ending == ".tif":
        tifffile.imwrite(path, narrow)
    else:
        save_nifti(path, narrow.T, affine=np.diag([-1.0, -1, 1, 1]))
    found = read(path)
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_pngs_hold_their_numbers(tmp_path, dtype):
    labels = map_of(0, 1, 2, np.iinfo(dtype).max).astype(dtype)
    Pillow.fromarray(labels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), labels)


@pytest.mark.parametrize(("bits", "labels"), [(8, (0, 3, 200)), (4, (0, 3, 15)), (2, (0, 1, 3)), (1, (0, 1))])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_palette_image_means_its_indices(tmp_path, bits, labels, ending):
    if ending == ".tif":
        palette(map_of(*labels)).save(tmp_path / "a.tif")
    else:
        palette(map_of(*labels)).save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read(tmp_path / f"a{ending}"), map_of(*labels))


def test_a_palette_with_transparency_means_its_indices(tmp_path):
    palette(map_of(0, 1, 2)).save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), map_of(0, 1, 2))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_palette_image_is_turned_as_its_orientation_says(tmp_path, ending):
    """Tag 6: a quarter turn to the right, in the label map as in the image."""
    labels = map_of(0, 3, 200)
    stored = np.rot90(labels)
    if ending == ".tif":
        palette(stored).save(tmp_path / "a.tif", tiffinfo={274: 6})
    else:
        exif = Pillow.Exif()
        exif[274] = 6
        palette(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / f"a{ending}"), labels)


def test_a_page_of_palette_images_means_its_indices(tmp_path):
    """A grey palette, whose colours could be taken for numbers."""
    pages = []
    for number in (1, 2):
        page = Pillow.fromarray(np.uint8(map_of(0, number)), "P")
        page.putpalette([255 - value // 3 for value in range(768)])
        pages.append(page)
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read(tmp_path / "a.tif#1"), map_of(0, 2))
    with pytest.raises(UserError, match=r"a\.tif: must be one 2D image, got 2 pages; name one"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_pngs_of_few_bits_hold_the_numbers_that_are_stored(tmp_path, bits):
    """Readers stretch them to 255; PNG's own samples are written here by hand."""
    import struct
    import zlib

    labels = map_of(*range(2**bits), shape=(8, 8))
    rows = [
        np.packbits((row[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).ravel()).tobytes()
        for row in labels
    ]

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read(tmp_path / "a.png", shape=(8, 8)), labels)


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_equal_channels_are_one_number_and_alpha_is_none(tmp_path, mode):
    labels = map_of(0, 1, 77).astype(np.uint8)
    channels = [labels] * (1 if mode == "LA" else 3) + [255 - labels] * (mode[-1] == "A")
    Pillow.fromarray(np.stack(channels, -1), mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), labels)


@pytest.mark.parametrize("largest", [2, 90, 3000])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_label_files_that_are_scaled_are_read_within_rounding(tmp_path, dtype, largest):
    """nibabel scales floats to the whole range of the integers: 1 comes back as 1.00002."""
    labels = map_of(0, 1, 2, largest - 1, largest)
    save_nifti(tmp_path / "a.nii.gz", labels.T.astype(float), dtype, np.diag([-1.0, -1, 1, 1]))
    stored = nibabel.load(tmp_path / "a.nii.gz")
    if dtype == np.uint8 and largest == 3000:  # A slope of 12: labels cannot be told apart.
        with pytest.raises(UserError, match=r"scaled by 11\.7\d+ \(scl_slope\), so that labels were lost"):
            read(tmp_path / "a.nii.gz")
        return
    assert dtype == np.float32 or (stored.get_fdata() != labels.T).any()
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz"), labels)


def test_probabilities_are_no_labels(tmp_path):
    """What a network's last layer gives, saved with a slope or as floats, is refused and not rounded to 0."""
    shares = np.random.default_rng(0).random(SHAPE[::-1])
    for dtype in (np.int16, np.uint8, np.float32):
        save_nifti(tmp_path / "a.nii", shares, dtype)
        with pytest.raises(UserError, match=r"a\.nii: labels must be whole numbers, got 0\.\d+ \(1"):
            read(tmp_path / "a.nii")


@pytest.mark.parametrize("labels", [(0, 1, 2), (2**24 + 1, 2**24 + 2, 614454277), (-3, -(2**31))])
@pytest.mark.parametrize("turned", [False, True])
def test_slices_of_label_volumes_keep_large_numbers_and_lie_as_their_image(tmp_path, labels, turned):
    """Numbers beyond 2^24, such as those of the Allen atlas, are not all floats."""
    volume = np.resize(np.array(labels, np.int32), (12, 9, 5))
    affine = np.diag([1.0, 1, 3, 1])
    if turned:
        axes = nibabel.orientations.axcodes2ornt(("P", "S", "L"))
        image = nibabel.Nifti1Image(volume, affine).as_reoriented(axes)
        nibabel.save(image, tmp_path / "seg.nii.gz")
    else:
        save_nifti(tmp_path / "seg.nii.gz", volume, affine=affine)
    save_nifti(tmp_path / "image.nii.gz", np.random.default_rng(0).random((12, 9, 5)), affine=affine)
    found = read(tmp_path / "seg.nii.gz#3", tmp_path / "image.nii.gz#3")
    np.testing.assert_array_equal(found, volume[::-1, ::-1, 3].T)
    assert set(np.unique(found)) == set(labels)


REFUSED = {
    "missing": (lambda p: p / "none.png", r"none\.png: no such file"),
    "JPEG": (
        lambda p: Pillow.fromarray(np.uint8(map_of(0, 1))).save(p / "a.jpg") or p / "a.jpg",
        r"a\.jpg: JPEG changes label numbers",
    ),
    "JPEG by another name": (
        lambda p: Pillow.fromarray(np.uint8(map_of(0, 1))).save(p / "a.png", "JPEG") or p / "a.png",
        r"a\.png: JPEG changes label numbers",
    ),
    "inverted": (
        lambda p: (
            tifffile.imwrite(p / "a.tif", np.uint8(map_of(0, 1)), photometric="miniswhite") or p / "a.tif"
        ),
        r"a\.tif: inverted grey values \(MINISWHITE\)",
    ),
    "colours": (
        lambda p: (
            Pillow.fromarray(np.stack([np.uint8(map_of(0, i)) for i in (1, 2, 3)], -1)).save(p / "a.png")
            or p / "a.png"
        ),
        r"a\.png: a colour image; a label map holds one number",
    ),
    "fractions": (
        lambda p: np.save(p / "a.npy", map_of(0, 1) * 0.5) or p / "a.npy",
        r"a\.npy: labels must be whole numbers, got 0\.5 \(54 of 108",
    ),
    "NaN": (
        lambda p: np.save(p / "a.npy", np.where(map_of(0, 1) == 1, np.nan, 1)) or p / "a.npy",
        r"a\.npy: labels hold NaN or infinity \(54 pixels\)",
    ),
    "complex": (
        lambda p: np.save(p / "a.npy", map_of(0) * 1j) or p / "a.npy",
        r"a\.npy: labels must be whole",
    ),
    "too large": (
        lambda p: np.save(p / "a.npy", np.full(SHAPE, 2**63, np.uint64)) or p / "a.npy",
        r"a\.npy: labels must be below 2\^63",
    ),
    "floats too large": (
        lambda p: np.save(p / "a.npy", np.full(SHAPE, 1e18)) or p / "a.npy",
        r"a\.npy: labels up to 1e\+18 in floating point",
    ),
    "another size": (
        lambda p: np.save(p / "a.npy", map_of(0, 1, shape=(12, 9))) or p / "a.npy",
        r"a\.npy: label map of 12 x 9 pixels for an image of 9 x 12 \(image\.png\)",
    ),
    "a volume": (
        lambda p: save_nifti(p / "a.nii", np.zeros((12, 9, 4), np.uint8)) or p / "a.nii",
        r"a\.nii: must be one 2D image, got .*#12",
    ),
    "no slice of it": (
        lambda p: save_nifti(p / "a.nii", np.zeros((12, 9, 4), np.uint8)) or p / "a.nii#4",
        r"a\.nii: has no slice 4",
    ),
    "damaged PNG": (lambda p: (p / "a.png").write_bytes(b"no") and p / "a.png", r"a\.png: unreadable"),
    "damaged TIFF": (lambda p: (p / "a.tif").write_bytes(b"no") and p / "a.tif", r"a\.tif: unreadable"),
    "DICOM": (
        lambda p: (p / "a.dcm").write_bytes(bytes(128) + b"DICM") and p / "a.dcm",
        r"a\.dcm: DICOM holds images; save label maps as PNG",
    ),
    "another format": (
        lambda p: (p / "a.txt").write_text("0") and p / "a.txt",
        r"a\.txt: unknown image format",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_label_map_of_the_image_is_refused_in_one_line(tmp_path, kind):
    make, said = REFUSED[kind]
    with pytest.raises(UserError, match=said) as error:
        read(make(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("compression", ["JPEG"])
def test_a_tiff_that_is_a_jpeg_inside_is_refused(tmp_path, compression):
    Pillow.fromarray(np.uint8(map_of(0, 1))).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(UserError, match="JPEG changes label numbers"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("what", ["place", "spacing", "mirrored"])
@pytest.mark.parametrize("place", ["", "#2"])
def test_labels_that_lie_elsewhere_than_their_image_are_refused(tmp_path, what, place):
    shape = (12, 9, 5) if place else (12, 9)
    labels, other = np.zeros(shape, np.uint8), AFFINE.copy()
    if what == "place":
        other[0, 3] += 1.5
    elif what == "spacing":
        other[1, 1] *= 1.3
    else:
        other[0] *= -1
        other[0, 3] = 60
    save_nifti(tmp_path / "image.nii", np.random.default_rng(0).random(shape))
    near = AFFINE.copy()
    near[0, 3] += 0.3
    save_nifti(tmp_path / "same.nii", labels, affine=near)
    save_nifti(tmp_path / "other.nii", labels, affine=other)
    image = tmp_path / f"image.nii{place}"
    assert not read(tmp_path / f"same.nii{place}", image).any()
    with pytest.raises(
        UserError, match=r"other\.nii.*: its pixel size, orientation, origin or slice differs"
    ):
        read(tmp_path / f"other.nii{place}", image)


def test_labels_of_another_slice_are_refused(tmp_path):
    save_nifti(tmp_path / "image.nii", np.random.default_rng(0).random((12, 9, 5)))
    save_nifti(tmp_path / "seg.nii", np.zeros((12, 9, 5), np.uint8))
    with pytest.raises(UserError, match=r"seg\.nii#1: its pixel size, orientation, origin or slice differs"):
        read(tmp_path / "seg.nii#1", tmp_path / "image.nii#2")


def test_labels_from_memory_are_checked_like_those_of_files():
    image = open_image(np.random.default_rng(0).random(SHAPE), "moving")
    assert open_labels(map_of(0, 1) == 1, image).pixels.max() == 1
    with pytest.raises(UserError, match="moving_labels: labels must be whole numbers, got 0.5"):
        open_labels(map_of(0, 1) / 2, image, "moving_labels")
    with pytest.raises(UserError, match=r"label map of 12 x 9 pixels for an image of 9 x 12 \(moving\)"):
        open_labels(map_of(0, 1).T, image, "moving_labels")


@pytest.mark.parametrize("kind", ["SimpleITK", "nibabel"])
def test_labels_from_memory_that_lie_elsewhere_are_refused(kind):
    def make(values, place):
        if kind == "nibabel":
            affine = AFFINE.copy()
            affine[0, 3] += place
            return nibabel.Nifti1Image(values.T.copy(), affine)
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((0.5, 0.7))
        image.SetOrigin((place, 3.0))
        return image

    image = open_image(make(np.random.default_rng(0).random(SHAPE), 10), "moving")
    labels = map_of(0, 1, 2).astype(np.int16)
    found = open_labels(make(labels, 10.2), image, "moving_labels")
    np.testing.assert_array_equal(np.unique(found.pixels), [0, 1, 2])
    assert found.grid == image.grid
    with pytest.raises(
        UserError, match="moving_labels: its pixel size, orientation, origin or slice differs"
    ):
        open_labels(make(labels, 14), image, "moving_labels")


def test_label_volumes_keep_their_numbers(tmp_path):
    volume = np.resize(np.array([0, -7, 70000], np.int32), (12, 9, 5))
    save_nifti(tmp_path / "image.nii", np.random.default_rng(0).random((12, 9, 5)))
    save_nifti(tmp_path / "seg.nii", volume)
    found = read_label_volume(tmp_path / "seg.nii", tmp_path / "image.nii")
    np.testing.assert_array_equal(found.voxels, volume[::-1])  # The file's x runs to the left.
    assert found.spacing == pytest.approx((0.7, 0.9, 2))


@settings(max_examples=50, deadline=None)
@given(
    moving=arrays.arrays(np.int64, (4, 5), elements=st.sampled_from([0, 1, 255, 256, -1, 2**40, -(2**62)])),
    fixed=arrays.arrays(np.int64, (4, 5), elements=st.sampled_from([0, 1, 2, 255, 70000, -9])),
)
def test_codes_stand_for_the_labels(moving, fixed):
    one, other, labels = label_codes(moving, fixed, "pair")
    assert one.dtype == other.dtype == np.uint8
    np.testing.assert_array_equal(labels_of_codes(one, labels), moving)
    np.testing.assert_array_equal(labels_of_codes(other, labels), fixed)
    small = min(moving.min(), fixed.min()) >= 0 and max(moving.max(), fixed.max()) <= 255
    assert (labels is None) == small
    if small:
        np.testing.assert_array_equal(one, moving)


def test_255_labels_of_any_size_fit_a_record_and_no_more():
    many = 1000 + np.arange(256)
    one, _, labels = label_codes(many[:255], np.zeros(255, int), "pair")
    np.testing.assert_array_equal(labels_of_codes(one, labels), many[:255])
    with pytest.raises(UserError, match="pair a: 256 different labels, of which a record holds 255"):
        label_codes(many[:200], many[200:], "pair a")
    label_codes(np.arange(256), np.arange(256), "pair")  # 0 is background.


def test_labels_without_any_in_common_are_told():
    masks = map_of(0, 1), map_of(0, 255)
    assert "no label in common (moving: 1; fixed: 255)" in shared_labels_note(*masks)
    for fixed in (map_of(0, 1, 255), map_of(0)):
        assert shared_labels_note(map_of(0, 1), fixed) == shared_labels_note(fixed, map_of(0, 1)) == ""
    assert "(moving: 1, 2, 3, 4, 5, ...; fixed: -1)" in shared_labels_note(map_of(*range(1, 9)), map_of(-1))


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i2", "int32", "uint64", "float16", "float64"])
def test_numbers_of_any_kind_become_integers(dtype):
    found = as_labels(map_of(0, 1).astype(dtype), "labels")
    assert found.dtype.kind in "ui" and found.dtype.isnative
    np.testing.assert_array_equal(found, map_of(0, 1))
