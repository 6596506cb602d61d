"""Random damage: what passes the check of images can be read in training."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cancernet.data.patch import PNG_SIGNATURE, ExcludedError, check_image
from cancernet.data.pipeline import read_patch

MUTATIONS = 5_000

PICTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8), (0, 0), 2
)


def encode(mode: str, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Flips a bit, sets a byte, takes bytes away or puts some in, one to three times."""
    mutated = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, len(mutated) + 1))
        some = random.bytes(int(random.integers(1, 9)))
        match random.integers(0, 4):
            case 0:
                mutated[place : place + 1] = some[:1]
            case 1:
                for byte in mutated[place : place + 1]:
                    mutated[place] = byte ^ 1 << int(random.integers(0, 8))
            case 2:
                del mutated[place : place + len(some)]
            case 3:
                mutated[place:place] = some
    return bytes(mutated)


def mutate_chunk(data: bytes, random: np.random.Generator) -> bytes:
    """Mutates, drops, doubles or renames a chunk of a PNG, and mends all checksums."""
    chunks, position = [], len(PNG_SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunks.append((data[position + 4 : position + 8], data[position + 8 :][:length]))
        position += 12 + length
    place = int(random.integers(0, len(chunks)))
    kind, body = chunks[place]
    changes = [[], [(kind, body)] * 2, [(random.bytes(4), body)], [(kind, mutate(body, random))]]
    chunks[place : place + 1] = changes[random.integers(0, len(changes))]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("kind", "mutation", "sources"),
    [
        ("PNG", mutate, [("RGB", {}), ("P", {}), ("RGBA", {})]),
        ("PNG", mutate_chunk, [("RGB", {}), ("L", {}), ("P", {}), ("RGBA", {}), ("1", {})]),
        ("JPEG", mutate, [("RGB", {}), ("L", {}), ("RGB", {"progressive": True})]),
    ],
)
def test_what_passes_the_check_of_images_can_be_read_in_training(
    tmp_path: Path,
    kind: str,
    mutation: Callable[[bytes, np.random.Generator], bytes],
    sources: list[tuple[str, dict[str, object]]],
) -> None:
    random = np.random.default_rng(5)
    images = [encode(mode, kind, **options) for mode, options in sources]
    path, passed = tmp_path / "patch", 0
    for number in range(MUTATIONS):
        data = mutation(images[number % len(images)], random)
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
    if mutation is mutate and kind == "PNG":
        assert passed < MUTATIONS / 100  # Its checksums leave next to nothing but bytes at the end.
    else:
        assert passed > MUTATIONS / 20  # Else nothing is proved.
