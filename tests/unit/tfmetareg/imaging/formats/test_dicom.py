from __future__ import annotations

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from tests.unit.tfrecords_builder.dicom_files import write
from tfmetareg.errors import UserError
from tfmetareg.imaging.formats import dicom
from tfmetareg.imaging.read import is_image, open_image

RNG = np.random.default_rng(2)
STORED = RNG.integers(0, 4096, (20, 24)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (20, 24, 3)).astype(np.uint8)
TWELVE_BITS = {"BitsStored": 12, "HighBit": 11}
EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}
RGB = {
    **EIGHT_BITS,
    **NO_RESCALE,
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
}
FRAMES = RNG.integers(0, 4096, (5, 20, 24)).astype(np.uint16)
CINE = {"image": FRAMES, "Rows": 20, "Columns": 24, "NumberOfFrames": 5, **TWELVE_BITS}


def packed(path, frames: list[bytes], syntax: str, **changes: object):
    """A file of compressed frames."""
    write(path, **changes)
    header = pydicom.dcmread(path)
    header.PixelData = encapsulate(frames)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(str(path))
    return path


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (1, 0), (2, -10), (0.5, 3), (-1, 100)])
@pytest.mark.parametrize(
    "bits", ["12 of 16", "signed 12 of 16", "signed 16", "8", "32", "with rubbish", "at the top"]
)
def test_values_of_ct_are_physical_in_every_depth(tmp_path, photometric, slope, intercept, bits):
    words, true, changes = STORED, STORED.astype(float), TWELVE_BITS
    if bits.startswith("signed"):
        true = true - 2048
        words, changes = true.astype(np.int16), {"PixelRepresentation": 1}
        if bits == "signed 12 of 16":
            words, changes = words.view(np.uint16) & 0xFFF, {**changes, **TWELVE_BITS}
    elif bits == "8":
        words, true, changes = (STORED >> 4).astype(np.uint8), (STORED >> 4).astype(float), EIGHT_BITS
    elif bits == "32":
        words, true = STORED.astype(np.uint32) * 1000, STORED * 1000.0
        changes = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    elif bits == "with rubbish":  # Old files keep overlays in the bits that are not stored.
        words = STORED | 0xF000
    elif bits == "at the top":
        words, changes = STORED << 4, {"BitsStored": 12, "HighBit": 15}
    path = write(tmp_path / "a.dcm", image=words, PhotometricInterpretation=photometric, RescaleSlope=slope,
                 RescaleIntercept=intercept, **changes)  # fmt: skip
    image = dicom.read(path)
    np.testing.assert_allclose(image.pixels, true * slope + intercept)
    assert [note[:11] for note in image.notes] == ["MONOCHROME1"] * (photometric == "MONOCHROME1")


@pytest.mark.parametrize("compression", ["RLE", "JPEG-LS", "JPEG 2000", "lossless JPEG"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("intercept", [-1024, 0.5])
def test_compressed_values_of_ct_are_physical(tmp_path, compression, photometric, intercept):
    path = tmp_path / "a.dcm"
    changes = {"image": STORED, "PhotometricInterpretation": photometric, "RescaleIntercept": intercept,
               **TWELVE_BITS}  # fmt: skip
    if compression == "RLE":
        header = pydicom.dcmread(write(path, **changes))
        header.compress(uid.RLELossless)
        header.save_as(str(path))
    elif compression == "JPEG-LS":
        packed(path, [imagecodecs.jpegls_encode(STORED)], uid.JPEGLSLossless, **changes)
    elif compression == "JPEG 2000":
        codestream = imagecodecs.jpeg2k_encode(STORED, codecformat="J2K", reversible=True, bitspersample=12)
        packed(path, [codestream], uid.JPEG2000Lossless, **changes)
    else:
        packed(path, [imagecodecs.ljpeg_encode(STORED, bitspersample=12)], uid.JPEGLosslessSV1, **changes)
    np.testing.assert_array_equal(dicom.read(path).pixels, STORED + intercept)


@pytest.mark.parametrize("modality", ["DX", "MR"])
@pytest.mark.parametrize(
    "rescale", [NO_RESCALE, {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}]
)
@pytest.mark.parametrize("sign", [0, 1])
def test_without_a_unit_monochrome1_is_what_viewers_show(tmp_path, modality, rescale, sign):
    words = STORED if not sign else (STORED.astype(np.int16) - 2048)
    path = write(tmp_path / "a.dcm", image=words, Modality=modality, PhotometricInterpretation="MONOCHROME1",
                 PixelRepresentation=sign, **({} if sign else TWELVE_BITS), **rescale)  # fmt: skip
    image = dicom.read(path)
    np.testing.assert_array_equal(image.pixels, -1 - words if sign else 4095 - words)
    assert "inverted" in image.notes[0]


@pytest.mark.parametrize("planes", [0, 1])
def test_colours(tmp_path, planes):
    data = np.moveaxis(COLOUR, -1, 0) if planes else COLOUR
    path = write(
        tmp_path / "a.dcm",
        image=COLOUR,
        **{**RGB, "PlanarConfiguration": planes, "PixelData": data.tobytes()},
    )
    np.testing.assert_array_equal(dicom.read(path).pixels, COLOUR)


@pytest.mark.parametrize(("planes", "compression"), [(0, "none"), (1, "none"), (0, "RLE")])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_of_several_frames(tmp_path, planes, compression, photometric):
    frames = np.stack([COLOUR, COLOUR[::-1], COLOUR[:, ::-1]])
    stored = frames
    if photometric == "YBR_FULL":
        stored = np.stack([np.asarray(PillowImage.fromarray(frame).convert("YCbCr")) for frame in frames])
    changes = {
        **RGB,
        "PhotometricInterpretation": photometric,
        "Rows": 20,
        "Columns": 24,
        "NumberOfFrames": 3,
    }
    data = np.moveaxis(stored, -1, 1) if planes else stored
    path = write(tmp_path / "a.dcm", image=stored,
                 **{**changes, "PlanarConfiguration": planes, "PixelData": data.tobytes()})  # fmt: skip
    if compression == "RLE":
        header = pydicom.dcmread(path)
        header.compress(uid.RLELossless)
        header.save_as(str(path))
    for frame in range(3):
        difference = dicom.read(path, frame).pixels.astype(int) - frames[frame]
        assert np.abs(difference).max() <= (3 if photometric == "YBR_FULL" else 0)


def test_ybr_and_palettes_are_colours(tmp_path):
    ybr = np.repeat(np.asarray(PillowImage.fromarray(COLOUR[:, ::2]).convert("YCbCr")), 2, axis=1)
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    path = write(
        tmp_path / "ybr.dcm",
        image=ybr,
        **{**RGB, "PhotometricInterpretation": "YBR_FULL_422", "PixelData": pairs.tobytes()},
    )
    assert np.abs(dicom.read(path).pixels.astype(int) - COLOUR[:, ::2].repeat(2, axis=1)).max() <= 3
    smooth = np.uint8(np.add.outer(4 * np.arange(20), 3 * np.arange(24)))
    path = packed(tmp_path / "jpeg.dcm", [imagecodecs.jpeg8_encode(np.stack([smooth] * 3, -1), level=95)],
                  uid.JPEGBaseline8Bit, image=COLOUR,
                  **{**RGB, "PhotometricInterpretation": "YBR_FULL_422"})  # fmt: skip
    assert np.abs(dicom.read(path).pixels.astype(int) - smooth[..., None]).max() < 12
    indices, table = COLOUR[..., 0], RNG.integers(0, 65536, (3, 256)).astype(np.uint16)
    tables = {}
    for name, entries in zip(("Red", "Green", "Blue"), table):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    path = write(tmp_path / "palette.dcm", image=indices, PhotometricInterpretation="PALETTE COLOR", **tables,
                 **EIGHT_BITS, **NO_RESCALE)  # fmt: skip
    np.testing.assert_array_equal(dicom.read(path).pixels, table.T[indices] >> 8)


def test_frames(tmp_path):
    path = write(tmp_path / "a.dcm", **CINE)
    with pytest.raises(UserError, match="holds 5 frames; name one, as in `a.dcm#0`"):
        open_image(path)
    for frame in (0, 3):
        image = open_image(f"{path}#{frame}")
        np.testing.assert_array_equal(image.pixels, FRAMES[frame].astype(int) - 1000)
        assert image.name == f"{path}#{frame}"
    with pytest.raises(UserError, match="has no frame 5; frames are 0 to 4"):
        open_image(f"{path}#5")


def test_frames_of_an_enhanced_file_have_a_place_and_a_rescale_each(tmp_path):
    groups = []
    for frame in range(5):
        plane, values, group = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [1.0, 2.0, 10.0 + 4 * frame]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, frame, "US"
        group.PlanePositionSequence = Sequence([plane])
        group.PixelValueTransformationSequence = Sequence([values])
        groups.append(group)
    measures, direction, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, direction.ImageOrientationPatient = [0.5, 0.25], [0, 1, 0, 0, 0, -1]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Sequence([measures]),
        Sequence([direction]),
    )
    path = write(tmp_path / "a.dcm", PerFrameFunctionalGroupsSequence=Sequence(groups), Modality="MR",
                 SharedFunctionalGroupsSequence=Sequence([shared]), SOPClassUID=uid.EnhancedMRImageStorage,
                 **CINE, **NO_RESCALE, **NO_PLACE)  # fmt: skip
    image = open_image(f"{path}#3")
    np.testing.assert_array_equal(image.pixels, FRAMES[3].astype(int) * 2 + 3)
    assert image.spacing == (0.5, 0.25)
    np.testing.assert_allclose(image.grid.places(np.array([[0, 0], [2, 4]])), [[1, 2, 22], [1, 3, 21]])


rotations = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


@settings(max_examples=25, deadline=None)
@given(
    quaternion=rotations,
    sizes=st.lists(st.floats(0.05, 5), min_size=2, max_size=2),
    place=st.lists(st.floats(-300, 300), min_size=3, max_size=3),
    thickness=st.floats(0.5, 9),
)
def test_pixels_lie_where_itk_has_them(tmp_path_factory, quaternion, sizes, place, thickness):
    turn = sitk.VersorTransform((np.array(quaternion) / np.linalg.norm(quaternion)).tolist())
    directions = np.reshape(turn.GetMatrix(), (3, 3))
    path = write(
        tmp_path_factory.mktemp("grid") / "a.dcm",
        PixelSpacing=[f"{size:.6f}" for size in sizes],
        ImagePositionPatient=[f"{value:.5f}" for value in place],
        ImageOrientationPatient=[f"{value:.9f}" for value in directions[:, :2].T.ravel()],
        SpacingBetweenSlices=thickness,
    )
    image, of_itk = open_image(path), sitk.ReadImage(str(path))
    for row, column in ((0, 0), (19, 23), (4, 17)):
        np.testing.assert_allclose(
            image.grid.places(np.array([row, column])),
            of_itk.TransformIndexToPhysicalPoint((column, row, 0)),
            atol=1e-3,
        )
    np.testing.assert_allclose(image.grid.spacing, of_itk.GetSpacing(), rtol=1e-4)
    np.testing.assert_allclose(image.grid.direction, of_itk.GetDirection(), atol=1e-4)
    np.testing.assert_allclose(image.spacing, sizes, rtol=1e-4)
    assert image.grid.is_known
    np.testing.assert_array_equal(image.pixels, sitk.GetArrayFromImage(of_itk)[0])


@pytest.mark.parametrize(
    ("storage", "modality"),
    [(uid.ComputedRadiographyImageStorage, "CR"), (uid.DigitalXRayImageStorageForPresentation, "DX")],
)
def test_pixel_size_at_the_detector_is_told(tmp_path, storage, modality):
    path = write(
        tmp_path / "a.dcm", ImagerPixelSpacing=[0.2, 0.1], Modality=modality, SOPClassUID=storage, **NO_PLACE
    )
    image = dicom.read(path)
    assert image.spacing == (0.2, 0.1)
    assert "ImagerPixelSpacing" in image.notes[0]
    assert not image.grid.is_known
    np.testing.assert_allclose(image.grid.spacing[:2], sitk.ReadImage(str(path)).GetSpacing()[:2])


def region(x: float, y: float, kind: int = 1, unit: int = 3) -> Dataset:
    made = Dataset()
    made.RegionSpatialFormat, made.PhysicalDeltaX, made.PhysicalDeltaY = kind, x, y
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = unit
    return made


@pytest.mark.parametrize(
    ("regions", "spacing", "note"),
    [
        ([region(0.02, 0.03)], (0.3, 0.2), "that of its ultrasound region"),
        (
            [region(0.02, -0.03), region(0.02, 0.03), region(1, 1, kind=2), region(1, 1, unit=4)],
            (0.3, 0.2),
            "that",
        ),
        ([region(0.02, 0.03), region(0.04, 0.03)], None, "differ in pixel size"),
        ([region(0.02, 0.03, kind=3)], None, ""),
    ],
)
def test_pixel_size_of_ultrasound(tmp_path, regions, spacing, note):
    path = write(tmp_path / "a.dcm", **NO_PLACE, SequenceOfUltrasoundRegions=Sequence(regions), Modality="US",
                 SOPClassUID=uid.UltrasoundImageStorage)  # fmt: skip
    image = dicom.read(path)
    assert image.spacing == (spacing and pytest.approx(spacing))
    assert note in "".join(image.notes)


def test_a_file_is_dicom_by_its_mark(tmp_path):
    path = write(tmp_path / "IM000001", image=STORED)
    assert is_image(path)
    np.testing.assert_array_equal(open_image(path).pixels, STORED.astype(int) - 1000)
    (tmp_path / "notes").write_text("x" * 300)
    assert not is_image(tmp_path / "notes")
    with pytest.raises(UserError, match="unknown image format"):
        open_image(tmp_path / "notes")


def test_a_file_without_preamble(tmp_path):
    path = write(tmp_path / "a.dcm", image=STORED)
    header = pydicom.dcmread(path)
    path.write_bytes(path.read_bytes()[132 + 12 + header.file_meta.FileMetaInformationGroupLength :])
    np.testing.assert_array_equal(open_image(path).pixels, STORED.astype(int) - 1000)


def test_a_deflated_file(tmp_path):
    path = write(tmp_path / "a.dcm", image=STORED)
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    header.save_as(str(path))
    np.testing.assert_array_equal(open_image(path).pixels, STORED.astype(int) - 1000)


def test_other_compressions_are_named(tmp_path):
    path = packed(tmp_path / "a.dcm", [b"\0" * 100], uid.MPEG2MPML, image=STORED)
    with pytest.raises(UserError, match="compressed as MPEG2 .*, which is not read; save it uncompressed"):
        open_image(path)


@pytest.mark.parametrize("side", ["Rows", "NumberOfFrames"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path, side, is_packed):
    path = tmp_path / "a.dcm"
    changes = {"image": STORED, "Rows": 60000, "Columns": 60000, side: 50000}
    if is_packed:
        packed(path, [imagecodecs.jpegls_encode(STORED)], uid.JPEGLSLossless, **changes)
    else:
        write(path, **changes)
    with pytest.raises(UserError, match=r"claims [\d,]+ bytes of pixels"):
        open_image(path)


@pytest.mark.parametrize("kind", ["jpegls", "jpeg2k", "ljpeg"])
def test_compressed_frames_that_claim_another_size_are_not_decoded(tmp_path, kind):
    """GDCM would take memory for what they claim."""
    frame = bytearray(
        getattr(imagecodecs, f"{kind}_encode")(STORED, **({"codecformat": "J2K"} if kind == "jpeg2k" else {}))
    )
    side = (20).to_bytes(2, "big")
    at = frame.index(
        side,
        frame.index(b"\xff\x51")
        if kind == "jpeg2k"
        else frame.index(b"\xff\xf7" if kind == "jpegls" else b"\xff\xc3"),
    )
    frame[at : at + 2] = (60000).to_bytes(2, "big")
    syntax = {"jpegls": uid.JPEGLSLossless, "jpeg2k": uid.JPEG2000Lossless, "ljpeg": uid.JPEGLosslessSV1}[
        kind
    ]
    path = packed(tmp_path / "a.dcm", [bytes(frame)], syntax, image=STORED)
    with pytest.raises(UserError, match=r"cannot be decoded \(.* pixels by its header, .* inside\)"):
        open_image(path)


def test_an_unreadable_file_is_told_with_its_cause(tmp_path):
    path = write(tmp_path / "a.dcm", image=STORED)
    whole = path.read_bytes()
    for content, rule in (
        (b"", "not a DICOM file"),
        (whole[:-40], "cut short or damaged"),
        (whole[:400], "without pixel data"),
        (b"hello" * 100, "not a DICOM file"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rule):
            open_image(path)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return [
        path.read_bytes()
        for path in (
            write(folder / "a", image=STORED, **TWELVE_BITS),
            write(folder / "b", **CINE),
            write(folder / "c", image=COLOUR, **RGB),
            packed(folder / "d", [imagecodecs.jpegls_encode(STORED)], uid.JPEGLSLossless, image=STORED),
        )
    ]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_files_give_one_line_or_an_image(tmp_path_factory, whole_files, data):
    content = bytearray(data.draw(st.sampled_from(whole_files)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, min(len(content), 1200) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "a.dcm"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert open_image(path).pixels.ndim in (2, 3)
    except UserError as error:
        assert "\n" not in str(error)
