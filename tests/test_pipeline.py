"""Pixels against Pillow and Keras' load_img; order, completeness and a real fit."""

import math
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import REAL_PATCHES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cancernet.cli import InputError
from cancernet.data.pipeline import (
    _nearest_neighbours,
    read_patch,
    scoring_batches,
    steps_per_epoch,
    tile_batches,
    training_batches,
)
from cancernet.recipes import Augmentation

AUGMENTATION = Augmentation(
    rotation=20,
    zoom=0.05,
    width_shift=0.1,
    height_shift=0.1,
    shear=0.05,
    horizontal_flip=True,
    vertical_flip=True,
)
IMAGE_SIZE = (8, 6)
COUNT = 23


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Patches of one colour each: the red value is the patch's number."""
    folder = tmp_path_factory.mktemp("patches")
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10, 10), (number, 7, 200)).save(path)
    return paths


def label_of(number):
    return int(number % 3 == 0)


def training(files, **changes):
    options: dict[str, Any] = {
        "image_size": IMAGE_SIZE,
        "batch_size": 4,
        "augmentation": None,
        "seed": 42,
        "epochs": 2,
    }
    labels = [label_of(number) for number in range(len(files))]
    return training_batches(files, labels, **(options | changes))


def numbers_in(images):
    return np.rint(np.asarray(images)[:, 0, 0, 0] * 255).astype(int).tolist()


# --- Pixels --------------------------------------------------------------------------------------


def keras_pixels(path, size=(48, 48)):
    image = keras.utils.load_img(path, color_mode="rgb", target_size=size, interpolation="nearest")
    return np.asarray(image)


def our_pixels(path, size=(48, 48)):
    return read_patch(tf.constant(str(path)), height=size[0], width=size[1]).numpy()


@pytest.mark.parametrize("target", [48, 50, 7])
def test_resizing_picks_the_columns_that_pillow_picks(target):
    ours = tf.function(lambda side: _nearest_neighbours(side, target))
    for side in [*range(1, 601), *random.Random(0).sample(range(601, 5001), 200)]:
        numbers = Image.fromarray(np.arange(side, dtype=np.int32)[np.newaxis])
        expected = np.asarray(numbers.resize((target, 1), Image.Resampling.NEAREST))[0]
        found = ours(tf.constant(side, tf.float64))
        np.testing.assert_array_equal(found, expected, err_msg=f"side {side}")


def tissue(height, width):
    """A smooth coloured picture, as photographs are, so that JPEG treats it as one."""
    blocks = np.random.default_rng(3).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def with_alpha(picture):
    picture = picture.copy()
    picture.putalpha(picture.convert("L"))
    return picture


PNG_PICTURES = {
    "RGB": lambda picture: picture,
    "gray": lambda picture: picture.convert("L"),
    "gray with alpha": lambda picture: with_alpha(picture.convert("L")),
    "RGB with alpha": with_alpha,
    "palette of 256": lambda picture: picture.quantize(256),
    "palette of 16": lambda picture: picture.quantize(16),
    "palette of 4": lambda picture: picture.quantize(4),
    "black and white": lambda picture: picture.convert("1"),
}


@pytest.mark.parametrize("size", [(50, 50), (50, 37), (32, 48), (1, 3)], ids=str)
@pytest.mark.parametrize("kind", PNG_PICTURES)
def test_png_pixels_equal_load_img(tmp_path, kind, size):
    PNG_PICTURES[kind](tissue(*size)).save(tmp_path / "patch.png")
    np.testing.assert_array_equal(
        our_pixels(tmp_path / "patch.png"), keras_pixels(tmp_path / "patch.png")
    )


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))], ids=["one", "each"])
def test_transparent_colours_of_a_palette_are_dropped(tmp_path, transparency):
    path = tmp_path / "patch.png"
    tissue(50, 50).quantize(16).save(path, transparency=transparency)
    np.testing.assert_array_equal(our_pixels(path), keras_pixels(path))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_grays_equals_load_img(tmp_path, bits):
    grays = np.random.default_rng(0).integers(0, 2**bits, (40, 40))
    rows = b"".join(
        b"\0" + int("".join(f"{gray:0{bits}b}" for gray in row), 2).to_bytes(40 * bits // 8)
        for row in grays
    )

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = struct.pack(">IIBBBBB", 40, 40, bits, 0, 0, 0, 0)
    path = tmp_path / "patch.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert len(np.unique(our_pixels(path))) == 2**bits
    np.testing.assert_array_equal(our_pixels(path), keras_pixels(path))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_pixels_equal_load_img_whatever_the_name_says(tmp_path, subsampling, quality):
    path = tmp_path / "patch.png"
    for mode in ("RGB", "L"):
        patch = tissue(51, 37).convert(mode)
        patch.save(path, format="JPEG", quality=quality, subsampling=subsampling)
        np.testing.assert_array_equal(our_pixels(path), keras_pixels(path))


@pytest.mark.skipif(not REAL_PATCHES.is_dir(), reason="no real patches beside the project")
def test_real_patches_of_every_size_equal_load_img():
    by_size: dict[bytes, list[Path]] = {}
    for file in sorted(REAL_PATCHES.glob("*/*/*.png")):
        by_size.setdefault(file.read_bytes()[16:24], []).append(file)  # Width and height.
    assert len(by_size) > 10
    chosen = [file for same_size in by_size.values() for file in same_size[:20]]
    batches = scoring_batches(chosen, image_size=(48, 48), batch_size=32)
    expected = np.stack([keras_pixels(file) for file in chosen])
    np.testing.assert_array_equal(
        np.concatenate(list(batches)), expected.astype(np.float32) * np.float32(1 / 255)
    )


# --- Batches -------------------------------------------------------------------------------------


def test_scoring_keeps_the_order_and_the_last_batch(files):
    batches = list(scoring_batches(files[::-1], image_size=IMAGE_SIZE, batch_size=5))
    assert [batch.shape for batch in batches] == [(5, *IMAGE_SIZE, 3)] * 4 + [(3, *IMAGE_SIZE, 3)]
    assert numbers_in(np.concatenate(batches)) == list(range(COUNT))[::-1]


def test_images_are_float32_in_0_to_1_and_labels_one_hot(files):
    for images, labels in training(files, augmentation=AUGMENTATION):
        assert images.dtype == labels.dtype == tf.float32
        assert images.shape[1:] == (*IMAGE_SIZE, 3)
        # One colour: no warp changes it, so the number is still there to be read.
        np.testing.assert_allclose(images[..., 2], 200 / 255, rtol=1e-6)
        expected = np.eye(2)[[label_of(number) for number in numbers_in(images)]]
        np.testing.assert_array_equal(labels, expected)


@given(
    count=st.integers(1, COUNT),
    batch_size=st.integers(1, COUNT + 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=10, deadline=None)
def test_every_patch_once_an_epoch(files, count, batch_size, seed):
    epochs = 3
    batches = list(training(files[:count], batch_size=batch_size, seed=seed, epochs=epochs))
    steps = math.ceil(count / batch_size)
    assert len(batches) == epochs * steps
    for epoch in range(epochs):
        numbers = [numbers_in(images) for images, _ in batches[epoch * steps : (epoch + 1) * steps]]
        assert sorted(number for batch in numbers for number in batch) == list(range(count))
        assert all(len(batch) == batch_size for batch in numbers[:-1])


def test_order_differs_by_epoch_and_by_seed_and_by_nothing_else(files):
    def order(**changes):
        return [number for images, _ in training(files, **changes) for number in numbers_in(images)]

    both = order()
    assert both == order()
    assert both[:COUNT] != both[COUNT:] != list(range(COUNT))
    assert both != order(seed=43)
    assert both == order(augmentation=AUGMENTATION)
    # Over the whole set: the first patches do not stay among the first.
    assert len(order(batch_size=1)) == 2 * COUNT
    assert max(both[:5]) > 10


def test_resuming_gives_what_the_full_run_gives(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(9)]
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    full = list(training(files, augmentation=AUGMENTATION, epochs=4))
    resumed = list(training(files, augmentation=AUGMENTATION, epochs=4, first_epoch=2))
    assert len(resumed) == 6
    for (images, labels), (images_again, labels_again) in zip(full[6:], resumed, strict=True):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(labels, labels_again)


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
def test_the_decode_cache_changes_no_pixel(files, augmentation):
    options = {"augmentation": augmentation}
    needed = COUNT * 8 * 6 * 3
    read = list(training(files, **options))
    cached = list(training(files, **options, cache_bytes=needed))
    for (images, labels), (images_again, labels_again) in zip(read, cached, strict=True):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(labels, labels_again)


@pytest.mark.parametrize(("too_little", "survives"), [(0, True), (1, False)])
def test_the_decode_cache_is_bounded(files, tmp_path, too_little, survives):
    copies = [tmp_path / file.name for file in files]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    batches = training(copies, cache_bytes=COUNT * 8 * 6 * 3 - too_little)
    for copy in copies:
        copy.unlink()
    if survives:  # All were read at the start.
        assert len(list(batches)) == 12
    else:
        with pytest.raises(tf.errors.NotFoundError):
            list(batches)


@given(patches=st.integers(1, 500), batch_size=st.integers(1, 40), devices=st.integers(1, 9))
@settings(deadline=None)
def test_every_device_gets_a_patch_of_every_batch(patches, batch_size, devices):
    try:
        steps = steps_per_epoch(patches, batch_size=batch_size, devices=devices)
    except InputError:
        assert devices > 1
        return
    batches = [batch_size] * (steps - 1)
    batches.append(patches - sum(batches))
    assert 0 < batches[-1] <= 2 * batch_size
    for batch in batches:
        share = math.ceil(batch / devices)
        assert batch - share * (devices - 1) > 0
    if devices == 1:
        assert steps == math.ceil(patches / batch_size)


def test_a_last_batch_too_small_for_the_devices_is_joined_to_the_one_before(files):
    for count, sizes in ((9, [4, 5]), (10, [4, 4, 2]), (8, [4, 4]), (2, [2])):
        batches = scoring_batches(files[:count], image_size=IMAGE_SIZE, batch_size=4, devices=2)
        assert [len(batch) for batch in batches] == sizes
        assert numbers_in(np.concatenate(list(batches))) == list(range(count))


@pytest.mark.parametrize(("patches", "batch_size"), [(1, 4), (9, 1), (9, 3)])
def test_batches_that_devices_cannot_share_are_refused(patches, batch_size):
    with pytest.raises(InputError, match="cannot be shared out among 4 devices"):
        steps_per_epoch(patches, batch_size=batch_size, devices=4)


def test_warps_differ_by_epoch_and_step(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    same_file = [tmp_path / "patch.png"] * 4
    images = [images for images, _ in training(same_file, augmentation=AUGMENTATION, batch_size=2)]
    assert len(np.unique(np.concatenate(images), axis=0)) == 8


def test_channels_first_is_the_transpose(files):
    options: dict[str, Any] = {"image_size": IMAGE_SIZE, "batch_size": 5}
    last = np.concatenate(list(scoring_batches(files, **options)))
    first = np.concatenate(list(scoring_batches(files, **options, data_format="channels_first")))
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))
    images, _ = next(iter(training(files, data_format="channels_first")))
    assert images.shape == (4, 3, *IMAGE_SIZE)


class PatchesSeen(keras.metrics.Sum):
    """Counts the patches of an epoch."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(keras.ops.ones_like(y_true[:, 0]))


@pytest.mark.parametrize("first_epoch", [0, 1])
@pytest.mark.parametrize("count", [21, 20, 3])  # Batches of 4: one left over, none, less than one.
def test_fit_sees_every_patch_in_every_epoch(files, count, first_epoch):
    steps = math.ceil(count / 4)
    model = keras.Sequential([keras.Input((*IMAGE_SIZE, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, activation="softmax"))
    model.compile(loss="binary_crossentropy", metrics=[PatchesSeen(name="seen")])
    counted = []
    history = model.fit(
        training(files[:count], epochs=4, first_epoch=first_epoch),
        epochs=4,
        initial_epoch=first_epoch,
        steps_per_epoch=steps,
        shuffle=False,
        class_weight={0: 1.0, 1: 2.0},
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: counted.append(batch)
            )
        ],
        verbose=0,
    )
    assert history.history["seen"] == [count] * (4 - first_epoch)
    assert len(counted) == steps * (4 - first_epoch)


def test_predict_gives_one_row_a_patch_in_order(files):
    model = keras.Sequential([keras.Input((*IMAGE_SIZE, 3)), keras.layers.Flatten()])
    batches = scoring_batches(files, image_size=IMAGE_SIZE, batch_size=4)
    rows = model.predict(batches, verbose=0)
    assert np.rint(rows[:, 0] * 255).tolist() == list(range(COUNT))


# --- Input that cannot be used -------------------------------------------------------------------


def test_no_files_are_refused():
    with pytest.raises(InputError, match="list of files is empty"):
        scoring_batches([], image_size=IMAGE_SIZE, batch_size=4)
    with pytest.raises(InputError, match="list of files is empty"):
        training([])


@pytest.mark.parametrize("labels", [[0], [0, 2], [0, 1, 1]])
def test_labels_that_do_not_fit_are_refused(files, labels):
    with pytest.raises(ValueError, match="2 files need as many labels"):
        training_batches(
            files[:2],
            labels,
            image_size=IMAGE_SIZE,
            batch_size=4,
            augmentation=None,
            seed=1,
            epochs=1,
        )


def test_file_names_that_are_not_ascii(files, tmp_path):
    path = tmp_path / "Gewebe-\u00e4\u6f22.png"
    path.write_bytes(files[5].read_bytes())
    (images,) = scoring_batches([path], image_size=IMAGE_SIZE, batch_size=4)
    assert numbers_in(images) == [5]


def test_tiles_give_the_images_that_files_of_the_same_pixels_give(tmp_path):
    generator = np.random.default_rng(5)
    sizes = [(50, 50), (32, 160), (49, 50), (50, 50), (7, 96), (1, 1), (33, 41), (32, 160)]
    tiles = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    files = [tmp_path / f"{index}.png" for index in range(len(tiles))]
    for tile, file in zip(tiles, files, strict=True):
        Image.fromarray(tile).save(file)
    reading: dict[str, Any] = {"image_size": (48, 40), "batch_size": 3}
    from_tiles = list(tile_batches(tiles, **reading).as_numpy_iterator())
    from_files = list(scoring_batches(files, **reading).as_numpy_iterator())
    assert [len(batch) for batch in from_tiles] == [3, 3, 2]
    for one, other in zip(from_tiles, from_files, strict=True):
        np.testing.assert_array_equal(one, other)
