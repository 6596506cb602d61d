import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cancernet.data.patches import (
    PNG_SIGNATURE,
    ExcludedError,
    PatchName,
    check_image,
    parse_source,
)

LIMITS = {"min_side": 25, "max_pixels": 100_000_000}
PIXELS = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)


def encode(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    encoded, data = cv2.imencode(suffix, pixels)
    assert encoded
    return data.tobytes()


def pillow_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data: bytes) -> str:
    with pytest.raises(ExcludedError) as caught:
        check_image(data, **LIMITS)
    return caught.value.reason


# --- Names -----------------------------------------------------------------------------------


def test_idc_name_gives_patient_label_and_position() -> None:
    assert parse_source("8863/1/8863_idx5_x1001_y51_class1.png") == PatchName("8863", 1, 1001, 51)


def test_label_is_the_folder_and_not_the_fifth_last_character() -> None:
    assert parse_source("anna/0/slide1.jpeg") == PatchName("anna", 0, None, None)
    assert parse_source("anna/1/tile_0.png").label == 1


def test_patient_of_an_idc_name_is_the_one_in_the_name() -> None:
    source = "IDC_regular_ps50_idx5/0/8863_idx5_x1_y1_class0.png"
    assert parse_source(source).patient == "8863"
    assert parse_source("0/8863_idx5_x1_y1_class0.png").patient == "8863"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("8863/0/8863_idx5_x1_y1_class1.png", "label mismatch"),
        ("anna/0/tile_class1.png", "label mismatch"),
        ("8863/0/8863_idx5_x1_y1_class2.png", "label mismatch"),
        ("8863/1/8863_idx5_x1_y1_class0 (1).png", "label mismatch"),
        ("8863/0/8864_idx5_x1_y1_class0 (1).png", "patient mismatch"),
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
def test_contradicting_or_foreign_paths_are_excluded(source: str, reason: str) -> None:
    with pytest.raises(ExcludedError) as caught:
        parse_source(source)
    assert caught.value.reason == reason


@given(st.text())
def test_any_path_is_parsed_or_excluded(source: str) -> None:
    try:
        name = parse_source(source)
    except ExcludedError:
        return
    assert name.label in (0, 1)
    assert name.patient


@given(
    patient=st.integers(1000, 99999),
    label=st.integers(0, 1),
    x=st.integers(0, 10**6),
    y=st.integers(0, 10**6),
)
def test_every_idc_name_reads_back(patient: int, label: int, x: int, y: int) -> None:
    source = f"deep/{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.PNG"
    assert parse_source(source) == PatchName(str(patient), label, x, y)


# --- Bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_png_and_jpeg_are_used_whatever_their_name(suffix: str) -> None:
    assert check_image(encode(suffix, PIXELS[:30]), **LIMITS) == (50, 30)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_eight_bit_png_mode_is_used(mode: str) -> None:
    data = pillow_bytes(Image.fromarray(PIXELS).convert(mode), "PNG")
    assert check_image(data, **LIMITS) == (50, 50)


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 30}])
def test_jpeg_variants_are_used(options: dict[str, object]) -> None:
    assert check_image(pillow_bytes(Image.fromarray(PIXELS), "JPEG", **options), **LIMITS)
    assert check_image(pillow_bytes(Image.fromarray(PIXELS).convert("L"), "JPEG"), **LIMITS)


def test_exif_rotation_does_not_make_a_jpeg_unreadable() -> None:
    image = Image.fromarray(PIXELS[:30])
    exif = image.getexif()
    exif[0x0112] = 6  # Rotated by 90 degrees.
    assert check_image(pillow_bytes(image, "JPEG", exif=exif), **LIMITS) == (50, 30)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_excluded(suffix: str, share: float) -> None:
    data = encode(suffix)
    assert reason_of(data[: int(len(data) * share)]) in {
        "truncated image",
        "not a PNG or JPEG image",
    }


def test_flipped_bits_in_a_png_are_seen() -> None:
    data = bytearray(encode(".png"))
    data[len(data) // 2] ^= 0x10
    assert reason_of(bytes(data)) == "damaged image"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"class,patient\n", "not a PNG or JPEG image"),
        (encode(".tif"), "not a PNG or JPEG image"),
        (encode(".bmp"), "not a PNG or JPEG image"),
        (encode(".png", PIXELS.astype(np.uint16) * 256), "not 8 bits a channel"),
        (encode(".png", PIXELS[:, :24]), "side under 25 pixels"),
        (encode(".png", PIXELS[:1]), "side under 25 pixels"),
    ],
)
def test_what_training_cannot_use_is_excluded(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_cmyk_and_animated_images_are_excluded() -> None:
    image = Image.fromarray(PIXELS)
    assert reason_of(pillow_bytes(image.convert("CMYK"), "JPEG")) == "CMYK image"
    animated = pillow_bytes(image, "PNG", save_all=True, append_images=[image.rotate(90)])
    assert reason_of(animated) == "animated image"


def test_a_marker_that_has_no_place_in_a_scan_is_damage() -> None:
    # OpenCV takes these and makes something up; TensorFlow stops at them in the midst of training.
    data = pillow_bytes(Image.fromarray(PIXELS), "JPEG")
    middle = len(data) * 3 // 4
    for marker in (b"\xff\x76", b"\xff\x02", b"\xff\xf7", data[data.find(b"\xff\xda") :][:14]):
        assert reason_of(data[:middle] + marker + data[middle:]) == "damaged image"
    for harmless in (b"\xff\x00", b"\xff\xff\x00"):
        assert check_image(data[:middle] + harmless + data[middle:], **LIMITS) == (50, 50)
    assert check_image(data + b"\xff\x76 after the end", **LIMITS) == (50, 50)


def test_a_bomb_is_refused_by_its_header_before_it_is_decoded() -> None:
    header = struct.pack(">4sIIBBBBB", b"IHDR", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    data = PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    assert reason_of(data) == "more than 100,000,000 pixels"


@given(st.data())
def test_a_mutated_png_is_whole_or_excluded(data: st.DataObject) -> None:
    changed = bytearray(encode(".png"))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ExcludedError):
        check_image(bytes(changed), **LIMITS)


@given(st.binary(max_size=200), st.sampled_from([b"", PNG_SIGNATURE, b"\xff\xd8\xff"]))
def test_any_bytes_are_excluded_and_never_an_error(data: bytes, signature: bytes) -> None:
    with pytest.raises(ExcludedError):
        check_image(signature + data, **LIMITS)
