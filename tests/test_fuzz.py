"""Random damage: what passes the check of images can be read in training."""

import io
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from cancernet.data.patch import ExcludedError, check_image
from cancernet.data.pipeline import read_patch

MUTATIONS = 5_000
NOISE = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
PICTURE = Image.fromarray(cv2.GaussianBlur(NOISE, (0, 0), 2))


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Puts up to eight random bytes in the place of up to eight others, one to three times."""
    mutated = bytearray(data)
    for _ in range(random.integers(1, 4)):
        place, old, new = random.integers(0, (len(mutated) + 1, 9, 9))
        mutated[place : place + old] = random.bytes(new)
    return bytes(mutated)


def test_damaged_jpeg_that_passes_the_check_can_be_read_in_training(tmp_path: Path) -> None:
    """A damaged PNG does not pass: it has checksums."""
    random = np.random.default_rng(5)
    images = []
    for mode, progressive in (("RGB", False), ("L", False), ("RGB", True)):
        buffer = io.BytesIO()
        PICTURE.convert(mode).save(buffer, "JPEG", progressive=progressive)
        images.append(buffer.getvalue())
    path, passed = tmp_path / "patch", 0
    for number in range(MUTATIONS):
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
    assert passed > MUTATIONS / 20  # Else nothing is proved.
