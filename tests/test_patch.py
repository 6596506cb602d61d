"""Names parsed and bytes checked: each file is used or left out, and never an error."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cancernet.data.patch import (
    PNG_SIGNATURE,
    ExcludedError,
    Layout,
    PatchFacts,
    PatchName,
    check_image,
    parse_source,
    read_facts,
    read_pixels,
)

LIMITS = {"min_side": 25, "max_pixels": 100_000_000}
PIXELS = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encode(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    encoded, data = cv2.imencode(suffix, pixels)
    assert encoded
    return data.tobytes()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data: bytes) -> str:
    with pytest.raises(ExcludedError) as caught:
        check_image(data, **LIMITS)
    return caught.value.reason


# --- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("8863/1/8863_idx5_x1001_y51_class1.png", PatchName("8863", 1, 1001, 51)),
        ("deep/8863/0/8863_idx5_x1_y51_class0 (1).PNG", PatchName("8863", 0, 1, 51)),
        # Not the fifth last character, as the published scripts have it.
        ("anna/0/slide1.jpeg", PatchName("anna", 0, None, None)),
        ("anna/1/tile_0.png", PatchName("anna", 1, None, None)),
        ("IDC_regular_ps50_idx5/0/8863_idx5_x1_y1_class0.png", PatchName("8863", 0, 1, 1)),
        ("0/8863_idx5_x1_y1_class0.png", PatchName("8863", 0, 1, 1)),
        ("8863/0/8863_idx5_x1_y1_class1.png", "label mismatch"),
        ("anna/0/tile_class1.png", "label mismatch"),
        ("8864/0/8863_idx5_x1_y1_class0.png", "patient mismatch"),
        ("8863/2/a.png", "class folder other than 0 or 1"),
        ("8863/benign/a.png", "class folder other than 0 or 1"),
        ("a.png", "class folder other than 0 or 1"),
        ("0/a.png", "no patient"),
        ("8863/0/._a.png", "hidden or macOS file"),
        ("8863/0/.DS_Store", "hidden or macOS file"),
        ("__MACOSX/8863/0/a.png", "hidden or macOS file"),
    ],
)
def test_a_path_gives_patient_label_and_place_or_a_reason(source, expected) -> None:
    if isinstance(expected, PatchName):
        assert parse_source(source) == expected
        return
    with pytest.raises(ExcludedError) as caught:
        parse_source(source)
    assert caught.value.reason == expected


@pytest.mark.parametrize(
    ("layout", "source", "expected"),
    [
        ("patient/slide/class/file", "x/anna/s1/0/a.png", ("anna", "0")),
        ("patient/slide/class/file", "anna/0/a.png", ("anna", "0")),  # A folder may be missing,
        ("patient/slide/class/file", "0/a.png", ("", "0")),  # but not all of them.
        ("site/patient/class/file", "anna/0/a.png", ("anna", "0")),
        ("site/patient/slide/class/file", "A/anna/0/a.png", ("anna", "0")),
        ("patient/patient/class/file", "A/001/1/a.png", ("A_001", "1")),
        ("class/patient/file", "0/anna/a.png", ("anna", "0")),
        ("patient/class/folder/file", "anna/1/s1/a.png", ("anna", "1")),
        ("class/patient_file", "0/anna_b_1.png", ("anna", "0")),
        ("class/patient_file", "0/anna.png", ("", "0")),
        ("site-patient/class/file", "A-7/0/two\nlines.png", ("7", "0")),
        ("patient/file_class.png", "anna/a_b_1.png", ("anna", "1")),
    ],
)
def test_a_layout_says_what_is_the_patient_and_the_class(layout, source, expected) -> None:
    assert Layout(layout).read(source) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("8863/1/8863_idx5_x1001_y51_class1.png", PatchFacts("8863", 1, 1001, 51)),
        ("8863_idx5_x1_y51_class0.png", PatchFacts("8863", 0, 1, 51)),
        ("8863/0/8863_idx5_x1_y51_class1.png", PatchFacts("8863", None, 1, 51)),
        ("anna/1/a.png", PatchFacts("anna", 1, None, None)),
        ("idc/training/1/a.png", PatchFacts("", 1, None, None)),
        ("photos/a.png", PatchFacts("", None, None, None)),
    ],
)
def test_a_path_from_anywhere_tells_what_it_can(path: str, expected: PatchFacts) -> None:
    assert read_facts(Path(path)) == expected


# --- Bytes ---------------------------------------------------------------------------------------

EXIF = Image.Exif()
EXIF[0x0112] = 6  # Rotated by 90 degrees: of no account.


def large(width: int, height: int, *, real: bool = True) -> bytes:
    """A grey PNG of a few kilobytes; where it is not real, its picture data is left out."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height) if real else b"")
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT" + rows, b"IEND")
    )


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 0x10
    return bytes(changed)


def with_marker(marker: bytes) -> bytes:
    data = saved(PICTURE, "JPEG")
    middle = len(data) * 3 // 4
    return data[:middle] + marker + data[middle:]


PNG, JPEG = encode(".png"), encode(".jpg")
ANIMATED = saved(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)])
GOOD = {
    **{mode: saved(PICTURE.convert(mode), "PNG") for mode in ("L", "P", "RGBA", "LA", "1")},
    "PNG": PNG,
    "JPEG": JPEG,
    "progressive": saved(PICTURE, "JPEG", progressive=True),
    "gray JPEG": saved(PICTURE.convert("L"), "JPEG", quality=30),
    "rotated": saved(PICTURE, "JPEG", exif=EXIF),
    "with bytes behind": saved(PICTURE, "JPEG") + b"\xff\x76 after the end",
}
BAD = {
    "nothing": (b"", "empty file"),
    "text": (b"class,patient\n", "not a PNG or JPEG image"),
    "TIFF": (encode(".tif"), "not a PNG or JPEG image"),
    "BMP": (encode(".bmp"), "not a PNG or JPEG image"),
    "16 bits": (encode(".png", PIXELS.astype(np.uint16) * 256), "not 8 bits a channel"),
    "50 x 24": (encode(".png", PIXELS[:, :24]), "side under 25 pixels"),
    "1 x 50": (encode(".jpg", PIXELS[:1]), "side under 25 pixels"),
    "CMYK": (saved(PICTURE.convert("CMYK"), "JPEG"), "CMYK image"),
    "animated": (ANIMATED, "animated image"),
    # By its header, before it is decoded.
    "bomb": (large(50_000, 50_000, real=False), "more than 100,000,000 pixels"),
    "flipped": (flipped(PNG), "damaged image"),
    # OpenCV takes these and makes something up; TensorFlow stops in the midst of training.
    "marker 76": (with_marker(b"\xff\x76"), "damaged image"),
    "marker 02": (with_marker(b"\xff\x02"), "damaged image"),
    "marker dc": (with_marker(b"\xff\xdc"), "damaged image"),
    **{
        f"{name} cut at {share:.1%}": (data[: int(len(data) * share)], "truncated image")
        for name, data in (("PNG", PNG), ("JPEG", JPEG))
        for share in (0.1, 0.5, 0.9, 0.999)
    },
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_eight_bit_png_and_jpeg_is_used(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit does not interfere.
    assert check_image(GOOD[kind], **LIMITS) == (50, 50)


@pytest.mark.parametrize("kind", BAD)
def test_what_training_cannot_use_is_left_out_for_a_reason(kind: str) -> None:
    data, reason = BAD[kind]
    assert reason_of(data) == reason


@given(st.binary(max_size=200), st.sampled_from([b"", PNG_SIGNATURE, b"\xff\xd8\xff"]))
def test_any_bytes_are_excluded_and_never_an_error(data: bytes, signature: bytes) -> None:
    reason_of(signature + data)


def test_pixels_are_red_green_blue(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "patch.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "patch.png"), PIXELS)
    (tmp_path / "patch.png").write_bytes(b"text")
    with pytest.raises(ExcludedError, match="vanished or changed"):
        read_pixels(tmp_path / "patch.png")
