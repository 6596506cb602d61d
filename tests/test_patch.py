"""Names parsed and bytes checked: each file is used or left out, and never an error."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cancernet.data.patch import (
    PNG_SIGNATURE,
    ExcludedError,
    PatchFacts,
    check_image,
    parse_source,
    read_facts,
    read_pixels,
)
from cancernet.data.pipeline import read_patch

PIXELS = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encode(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


ORIGINALS: dict[str, tuple[str, int | None, int | None, int | None]] = {
    "8863/1/8863_idx5_x1001_y51_class1.png": ("8863", 1, 1001, 51),
    "deep/8863/0/8863_idx5_x1_y51_class0 (1).PNG": ("8863", 0, 1, 51),
    # Not the fifth last character, as the published scripts have it.
    "anna/0/slide1.jpeg": ("anna", 0, None, None),
    "anna/1/tile_0.png": ("anna", 1, None, None),
    "IDC_regular_ps50_idx5/0/8863_idx5_x1_y1_class0.png": ("8863", 0, 1, 1),
    "0/8863_idx5_x1_y1_class0.png": ("8863", 0, 1, 1),
}
ANYWHERE = ORIGINALS | {
    "8863_idx5_x1_y51_class0.png": ("8863", 0, 1, 51),
    "8863/0/8863_idx5_x1_y51_class1.png": ("8863", None, 1, 51),
    "idc/training/1/a.png": ("", 1, None, None),
    "photos/a.png": ("", None, None, None),
}


def test_a_path_tells_patient_label_and_place() -> None:
    for path, expected in ORIGINALS.items():
        patch = parse_source(path)
        assert (patch.patient, patch.label, patch.x, patch.y) == expected
    for path, expected in ANYWHERE.items():
        assert read_facts(Path(path)) == PatchFacts(*expected)


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
    "16 bits": (encode(".png", PIXELS.astype(np.uint16) * 256), "not 8 bits a channel"),
    "50 x 24": (encode(".png", PIXELS[:, :24]), "side under 25 pixels"),
    "CMYK": (saved(PICTURE.convert("CMYK"), "JPEG"), "CMYK image"),
    # By its header, before it is decoded.
    "bomb": (large(50_000, 50_000, real=False), "more than 100,000,000 pixels"),
    "flipped": (flipped(PNG), "damaged image"),
    # OpenCV takes this and makes something up; TensorFlow stops in the midst of training.
    "marker 76": (with_marker(b"\xff\x76"), "damaged image"),
    **{
        f"{name} cut at {share:.1%}": (data[: int(len(data) * share)], "truncated image")
        for name, data in (("PNG", PNG), ("JPEG", JPEG))
        for share in (0.1, 0.9, 0.999)
    },
}


def test_every_kind_is_used_or_left_out_for_its_reason(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit does not interfere.
    for kind, data in GOOD.items():
        assert check_image(data, min_side=25, max_pixels=10**8) == (50, 50), kind
    for kind, (data, reason) in BAD.items():
        with pytest.raises(ExcludedError) as caught:
            check_image(data, min_side=25, max_pixels=10**8)
        assert caught.value.reason == reason, kind


def test_pixels_are_red_green_blue(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "patch.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "patch.png"), PIXELS)
    (tmp_path / "patch.png").write_bytes(b"text")
    with pytest.raises(ExcludedError, match="vanished or changed"):
        read_pixels(tmp_path / "patch.png")


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Puts up to eight random bytes in the place of up to eight others, one to three times."""
    mutated = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place, old, new = random.integers(0, (len(mutated) + 1, 9, 9))
        mutated[place : place + old] = random.bytes(new)
    return bytes(mutated)


def test_damaged_jpeg_that_passes_the_check_can_be_read_in_training(tmp_path: Path) -> None:
    """A damaged PNG does not pass: it has checksums."""
    random, path, passed = np.random.default_rng(5), tmp_path / "patch", 0
    smooth = Image.fromarray(cv2.GaussianBlur(PIXELS, (0, 0), 2))
    images = [saved(smooth.convert(mode), "JPEG") for mode in ("RGB", "L")]
    images.append(saved(smooth, "JPEG", progressive=True))
    for number in range(5_000):
        data = mutate(images[number % len(images)], random)
        try:
            width, height = check_image(data, min_side=25, max_pixels=10**8)
        except ExcludedError:
            continue
        passed += 1
        decoded = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        assert decoded.shape == (height, width, 3)
        if passed % 50 == 0:  # The decoding above is this one's first line.
            path.write_bytes(data)
            assert read_patch(tf.constant(str(path)), height=48, width=48).shape == (48, 48, 3)
    assert passed > 250  # Else nothing is proved.
