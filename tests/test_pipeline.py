"""Pixels against Pillow and Keras' load_img; order and completeness; errors in words."""

import itertools
import math
import random
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import make_split, recipe_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cancernet.cli import InputError
from cancernet.data.pipeline import (
    Reading,
    _nearest_neighbours,
    explained,
    read_patch,
    scoring_batches,
    steps_per_epoch,
    tile_batches,
    training_batches,
)
from cancernet.recipe import Augmentation

AUGMENTATION = Augmentation(20, 0.05, 0.1, 0.1, 0.05, horizontal_flip=True, vertical_flip=True)
STILL = Augmentation(0, 0, 0, 0, 0, False, False)
IMAGE_SIZE = (8, 6)
READING = Reading(IMAGE_SIZE, batch_size=4)
COUNT = 23


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Patches of one colour each: the red value is the patch's number."""
    folder = tmp_path_factory.mktemp("Gewebe-\u00e4\u6f22")
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10, 10), (number, 7, 200)).save(path)
    return paths


def label_of(number):
    return int(number % 3 == 0)


def training(
    files, *, augmentation=STILL, seed=42, epochs=2, batch_size=4, reading=READING, first_epoch=0
):
    recipe = recipe_of(epochs=epochs, augmentation=augmentation)
    split = make_split(files, [label_of(number) for number in range(len(files))])
    reading = replace(reading, batch_size=batch_size)
    return training_batches(split, recipe, reading, seed=seed, first_epoch=first_epoch)


def numbers_in(images):
    return np.rint(np.asarray(images)[:, 0, 0, 0] * 255).astype(int).tolist()


def assert_as_load_img(path):
    image = keras.utils.load_img(path, target_size=(48, 48), interpolation="nearest")
    ours = read_patch(tf.constant(str(path)), height=48, width=48)
    np.testing.assert_array_equal(ours, np.asarray(image))


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


def pictures(size):
    """Every kind of PNG that a patch may be, with the options to save it."""
    picture = tissue(*size)
    yield from ((picture.convert(mode), {}) for mode in ("RGB", "L", "1"))
    for mode in ("LA", "RGBA"):
        with_alpha = picture.convert(mode)
        with_alpha.putalpha(picture.convert("L"))
        yield with_alpha, {}
    yield from ((picture.quantize(colours), {}) for colours in (256, 16, 4))
    yield picture.quantize(16), {"transparency": bytes(range(0, 160, 10))}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("size", [(50, 50), (50, 37), (32, 48), (1, 3)], ids=str)
def test_png_pixels_equal_load_img(tmp_path, size):
    path = tmp_path / "patch.png"
    for picture, options in pictures(size):
        picture.save(path, **options)
        assert_as_load_img(path)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_pixels_equal_load_img_whatever_the_name_says(tmp_path, mode):
    path = tmp_path / "patch.png"
    for quality, subsampling in itertools.product((30, 75, 95), ("4:4:4", "4:2:2", "4:2:0")):
        patch = tissue(51, 37).convert(mode)
        patch.save(path, format="JPEG", quality=quality, subsampling=subsampling)
        assert_as_load_img(path)


@given(count=st.integers(1, COUNT), size=st.integers(1, COUNT + 1), seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_every_patch_with_its_label_once_an_epoch(files, count, size, seed):
    changes = {"augmentation": AUGMENTATION, "batch_size": size, "seed": seed, "epochs": 3}
    batches, steps = list(training(files[:count], **changes)), math.ceil(count / size)
    assert len(batches) == 3 * steps
    for begin in range(0, 3 * steps, steps):
        numbers = [numbers_in(images) for images, _ in batches[begin : begin + steps]]
        assert sorted(itertools.chain(*numbers)) == list(range(count))
        assert all(len(batch) == size for batch in numbers[:-1])
    for images, labels in batches:
        assert images.dtype == labels.dtype == tf.float32
        assert images.shape[1:] == (*IMAGE_SIZE, 3)
        # One colour: no warp changes it, so the number is still there to be read.
        np.testing.assert_allclose(images[..., 2], 200 / 255, rtol=1e-6)
        expected = np.eye(2)[[label_of(number) for number in numbers_in(images)]]
        np.testing.assert_array_equal(labels, expected)


def test_order_differs_by_epoch_and_by_seed_and_by_nothing_else(files):
    def order(**changes):
        return numbers_in(np.concatenate([images for images, _ in training(files, **changes)]))

    both = order()
    assert both[:COUNT] != both[COUNT:] != list(range(COUNT))
    assert both != order(seed=43)
    assert both == order(augmentation=AUGMENTATION)
    assert max(both[:5]) > 10  # Over the whole set: the first do not stay among the first.


def test_resuming_gives_what_the_full_run_gives_and_no_warp_comes_twice(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    files = [tmp_path / "patch.png"] * 9
    full = list(training(files, augmentation=AUGMENTATION, epochs=4))
    assert len(np.unique(np.concatenate([images for images, _ in full]), axis=0)) == 4 * 9
    resumed = list(training(files, augmentation=AUGMENTATION, epochs=4, first_epoch=2))
    for batch, again in zip(full[6:], resumed, strict=True):
        np.testing.assert_array_equal(batch[0], again[0])


@given(patches=st.integers(1, 500), batch_size=st.integers(1, 40), replicas=st.integers(1, 9))
@settings(deadline=None)
def test_every_device_gets_a_patch_of_every_batch(patches, batch_size, replicas):
    try:
        steps = steps_per_epoch(patches, Reading(IMAGE_SIZE, batch_size, replicas))
    except InputError:
        assert replicas > 1
        return
    last = patches - batch_size * (steps - 1)
    assert 0 < last <= 2 * batch_size
    for batch in {last, batch_size} if steps > 1 else {last}:
        assert batch - math.ceil(batch / replicas) * (replicas - 1) > 0
    if replicas == 1:
        assert steps == math.ceil(patches / batch_size)


@pytest.mark.parametrize(
    ("count", "replicas", "sizes"),
    # A last batch too small for the devices is joined to the one before.
    [(23, 1, [4, 4, 4, 4, 4, 3]), (9, 2, [4, 5]), (10, 2, [4, 4, 2]), (2, 2, [2])],
)
def test_scoring_keeps_the_order_and_the_last_batch(files, count, replicas, sizes):
    batches = list(scoring_batches(files[:count][::-1], replace(READING, replicas=replicas)))
    assert [len(batch) for batch in batches] == sizes
    assert numbers_in(np.concatenate(batches)) == list(range(count))[::-1]


def test_batches_that_devices_cannot_share_and_no_files_are_refused():
    with pytest.raises(InputError, match="cannot be shared out among 4 devices"):
        steps_per_epoch(9, Reading(IMAGE_SIZE, 3, replicas=4))
    for make in (lambda: scoring_batches([], READING), lambda: training([])):
        with pytest.raises(InputError, match="list of files is empty"):
            make()


@pytest.mark.parametrize("replicas", [3, 6])
def test_the_shards_of_all_workers_are_the_batch(files, replicas):
    options: Any = {"augmentation": AUGMENTATION, "epochs": 1, "batch_size": 12}
    reading = replace(READING, replicas=replicas)
    whole = list(training(files, **options, reading=reading))
    shards = [
        list(training(files, **options, reading=replace(reading, worker=worker, workers=3)))
        for worker in range(3)
    ]
    assert all(len(images) > 0 for shard in shards for images, _ in shard)
    for (images, labels), *parts in zip(whole, *shards, strict=True):
        again, labels_again = map(np.concatenate, zip(*parts, strict=True))
        np.testing.assert_allclose(images, again, rtol=0, atol=1e-7)  # Float32 is rounded.
        np.testing.assert_array_equal(labels, labels_again)


def test_tiles_give_the_images_that_files_of_the_same_pixels_give(tmp_path):
    generator = np.random.default_rng(5)
    sizes = [(50, 50), (32, 160), (49, 50), (50, 50), (7, 96), (1, 1), (33, 41), (32, 160)]
    tiles = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    files = [tmp_path / f"{index}.png" for index in range(len(tiles))]
    for tile, file in zip(tiles, files, strict=True):
        Image.fromarray(tile).save(file)
    reading = Reading((48, 40), batch_size=3)
    from_tiles = list(tile_batches(tiles, reading).as_numpy_iterator())
    from_files = list(scoring_batches(files, reading).as_numpy_iterator())
    assert [len(batch) for batch in from_tiles] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate(from_tiles), np.concatenate(from_files))


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_the_patch_that_cannot_be_read_is_named(tmp_path, write_patch, damage):
    files = [write_patch(tmp_path / f"patch {number}.png") for number in range(80)]
    if damage == "removed":
        files[70].unlink()
    else:
        files[70].write_bytes(files[70].read_bytes()[:1000])
    with (
        pytest.raises(InputError, match=r"patch 70\.png cannot be read \(.+\).*Build"),
        explained(files, batch_size=4),
    ):
        list(scoring_batches(files, READING))


LOST = tf.errors.UnavailableError(None, None, "Collective ops is aborted")
MEMORY = r"at 512 patches.*BATCH_SIZE.*other programs"


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("work", "lost", "error", "message"),
    [
        (lambda: tf.zeros(2) + tf.zeros(3), None, tf.errors.InvalidArgumentError, "Incompatible"),
        (lambda: fail(LOST), lambda _: InputError("worker 1 is gone"), InputError, "worker 1"),
        (lambda: fail(LOST), lambda _: None, tf.errors.UnavailableError, "aborted"),
        (lambda: tf.zeros((10**6, 10**7)), None, InputError, MEMORY),  # 40 terabytes.
        (lambda: fail(MemoryError()), None, InputError, MEMORY),
    ],
)
def test_errors_of_memory_and_workers_are_explained_and_no_others(work, lost, error, message):
    with pytest.raises(error, match=message), explained([], batch_size=512, lost=lost):
        work()
