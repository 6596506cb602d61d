"""Files to batches: the one reader of pixels that every script shares.

Where the published scripts use Keras' `ImageDataGenerator`, `tf.data` gives the same pixels and the
same warps. Patches stream from disk: only a few batches are in memory at a time.
"""

import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.data.augmentation import augment
from cancernet.recipe import Augmentation

CLASSES = 2  # Benign and malignant.

READ_AT_ONCE = 64  # Patches per task when all are read at the start.

# Functions of TensorFlow operations alone, without Python's own `if` and `for` on tensors, need not
# be rewritten by AutoGraph, which takes half a second at the first.
as_is = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Reading:
    """How patches are read, whatever for."""

    image_size: tuple[int, int]  # Height and width in pixels, which patches are resized to.
    batch_size: int  # Patches per batch, over all workers; the last one may be smaller.
    data_format: str = "channels_last"  # Or "channels_first".
    replicas: int = 1  # Among how many devices each batch is shared out, over all workers.


def training_batches(
    files: Sequence[str | Path],
    labels: Sequence[int] | NDArray[np.integer],
    *,
    reading: Reading,
    augmentation: Augmentation | None,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    cache_bytes: int = 0,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Makes the batches of all epochs, one epoch after the other.

    In each epoch every patch comes once, in an order over the whole set; no batch holds patches of
    two epochs. Order and warps depend on `seed`, the epoch and the step in it alone, so that
    training resumed at `first_epoch` gets exactly what it would have got. `fit` has to be told
    `steps_per_epoch`, the same `epochs`, and `shuffle=False`.

    Args:
        files: Patches, PNG or JPEG.
        labels: 0 benign or 1 malignant, one per file.
        reading: How they are read.
        augmentation: Ranges of the random warp, or None for the patches as they are.
        seed: Fixes order and warps.
        epochs: The epoch to stop before, counted from 0.
        first_epoch: The epoch to start with, counted from 0.
        cache_bytes: Where the decoded patches need no more memory than this, they are read once,
            now, and kept; else they are read anew in each epoch.
        worker: Which worker this is, counted from 0.
        workers: How many there are, each with as many replicas: it gets its shard of every batch.

    Returns:
        Pairs of images, as `scoring_batches` gives them, and one-hot labels, float32, shape
        (batch, 2), column 1 malignant.

    Raises:
        InputError: There are no files.
    """
    paths = _path_tensor(files)
    targets = tf.one_hot(labels, depth=CLASSES)

    pixels = None
    if len(files) * math.prod(reading.image_size) * 3 <= cache_bytes:
        pixels = _read_all(paths, reading.image_size)

    def steps_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(files)), [seed, epoch])
        return _steps(order, reading).enumerate().map(lambda step, chosen: (epoch, step, chosen))

    def load(epoch: tf.Tensor, step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shard = None
        if workers > 1:
            whole = tf.size(chosen)
            size = -(-whole // reading.replicas) * (reading.replicas // workers)  # See _shareable.
            shard = (worker * size, whole)
            chosen = chosen[worker * size : (worker + 1) * size]
        if pixels is None:
            images = _read_batch(tf.gather(paths, chosen), reading.image_size)
        else:
            images = tf.gather(pixels, chosen)
        images = _scale(images)
        if augmentation is not None:
            step_seed = tf.random.fold_in([seed, epoch], step)
            images = augment(images, augmentation=augmentation, seed=step_seed, shard=shard)
        return _arrange(images, reading), tf.gather(targets, chosen)

    # Parted into steps before anything is read, so that no batch straddles two epochs and the
    # next epoch's first batches are read while the last of this one are trained on.
    steps = tf.data.Dataset.range(first_epoch, epochs).flat_map(steps_of_epoch)
    return _in_parallel(steps, load)


def scoring_batches(files: Sequence[str | Path], reading: Reading) -> tf.data.Dataset:
    """Makes batches of the patches, PNG or JPEG, each once and in the given order.

    Returns:
        Images alone, as `model.predict` takes them: float32 in [0, 1], shape
        (batch, height, width, 3), or (batch, 3, height, width) with "channels_first".

    Raises:
        InputError: There are no files.
    """
    return _in_parallel(
        _steps(_path_tensor(files), reading),
        lambda paths: _finish(_read_batch(paths, reading.image_size), reading),
    )


def tile_batches(tiles: Sequence[NDArray[np.uint8]], reading: Reading) -> tf.data.Dataset:
    """Makes batches of tiles cut from a larger image, as `scoring_batches` does of files.

    Args:
        tiles: Red, green and blue, uint8 in [0, 255], each of shape (height, width, 3) of its own.
        reading: How they are resized and put together.
    """
    height, width = reading.image_size
    pixels = np.empty((len(tiles), height, width, 3), np.uint8)
    for shape in {tile.shape for tile in tiles}:
        alike = [index for index, tile in enumerate(tiles) if tile.shape == shape]
        stack = np.stack([tiles[index] for index in alike])
        pixels[alike] = _resize(stack, height=height, width=width)

    batches = tf.data.Dataset.from_tensor_slices(pixels).batch(reading.batch_size)
    return _in_parallel(batches, lambda batch: _finish(batch, reading))


def read_sample(
    files: Sequence[Path], count: int, reading: Reading, *, seed: int
) -> NDArray[np.float32] | None:
    """Reads some patches, drawn at random: of which batch-norm statistics are re-estimated.

    Returns:
        At most `count` images, as `scoring_batches` gives them; None where `count` is 0.
    """
    count = min(count, len(files))
    if not count:
        return None
    chosen = random.Random(seed).sample(files, count)
    batches = scoring_batches(chosen, replace(reading, replicas=1))
    return np.concatenate(list(batches.as_numpy_iterator()))


# --- Steps ---------------------------------------------------------------------------------------


def steps_per_epoch(patches: int, *, batch_size: int, replicas: int = 1) -> int:
    """Counts the batches that hold every patch once.

    Where the last batch is too small for every replica to get a patch of it, which Keras cannot
    train or score, it is joined to the one before.

    Raises:
        InputError: A batch is too small for the replicas, be it the only one.
    """
    steps = math.ceil(patches / batch_size)
    last = patches - (steps - 1) * batch_size
    if steps > 1 and not _shareable(last, replicas):
        steps, last = steps - 1, last + batch_size
    for batch in {batch_size, last} if steps > 1 else {last}:
        if not _shareable(batch, replicas):
            raise InputError(
                f"A batch of {batch} patches cannot be shared out among {replicas} devices, each "
                f"taking {math.ceil(batch / replicas)}: expected some for every one. Make "
                f"BATCH_SIZE a multiple of {replicas}, or hide devices (CUDA_VISIBLE_DEVICES)."
            )
    return steps


def _shareable(batch: int, replicas: int) -> bool:
    """Whether the last replica gets a patch: `tf.distribute` rounds up the share of each other."""
    return batch > math.ceil(batch / replicas) * (replicas - 1)


def _steps(items: tf.Tensor, reading: Reading) -> tf.data.Dataset:
    """Parts items into those of each step: `batch_size` of them, and in the last one the rest."""
    count, size = len(items), reading.batch_size
    steps = steps_per_epoch(count, batch_size=size, replicas=reading.replicas)

    @as_is
    def items_of_step(step: tf.Tensor) -> tf.Tensor:
        end = tf.where(step == steps - 1, count, (step + 1) * size)
        return items[step * size : end]

    return tf.data.Dataset.range(steps, output_type=tf.int32).map(items_of_step)


# --- Pixels --------------------------------------------------------------------------------------


def read_patch(path: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Reads one patch as Keras' `load_img(path, target_size=(height, width))` does.

    PNG (8 bits a channel or fewer, of any colour type; transparency is dropped) and JPEG, told
    apart by content, not by name. The pixels are those that Pillow gives, which Keras reads with.

    Args:
        path: The file's name, string, shape ().
        height: Rows of the result.
        width: Its columns.

    Returns:
        Red, green and blue, uint8 in [0, 255], shape (height, width, 3).
    """
    # In spite of its name this reads PNG, too. tf.io.decode_image would take the fast arithmetic
    # for JPEG, which is up to 16 levels off; Pillow takes the accurate one.
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
    return _resize(image, height=height, width=width)


def _resize(images: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Resizes images of shape (..., height, width, channels) to their nearest neighbours."""
    sides = tf.cast(tf.shape(images), tf.float64)
    rows = _nearest_neighbours(sides[-3], height)
    columns = _nearest_neighbours(sides[-2], width)
    return tf.gather(tf.gather(images, rows, axis=-3), columns, axis=-2)


def _nearest_neighbours(side: tf.Tensor, target: int) -> tf.Tensor:
    """Tells which row or column of an image each one of the resized image comes from.

    Pixel i of the result lies at (i + 1/2) * side / target, rounded down. Pillow
    (`ImagingScaleAffine`) gets there by adding up side / target, and so does this: where the place
    is a whole number, as often at sides of 32 or 160 resized to 48, any other order of rounding
    may pick the neighbour.
    """
    # Not `side / target`: TensorFlow's graph optimizer makes that a product with 1 / target.
    step = tf.math.divide_no_nan(side, target)
    places = tf.cumsum(step * tf.constant([0.5] + [1.0] * (target - 1), tf.float64))
    return tf.cast(places, tf.int32)


def _read_batch(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Reads patches, uint8, shape (batch, height, width, 3)."""
    height, width = image_size
    # A loop inside one step of tf.data: a step per patch was half as fast.
    return tf.map_fn(
        lambda path: read_patch(path, height=height, width=width),
        paths,
        parallel_iterations=1,  # The steps run in parallel already.
        fn_output_signature=tf.uint8,
    )


def _read_all(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Reads all patches into memory, uint8, shape (patches, height, width, 3)."""
    pixels = np.empty((len(paths), *image_size, 3), np.uint8)
    steps = _steps(paths, Reading(image_size, READ_AT_ONCE))
    batches = _in_parallel(steps, lambda paths: _read_batch(paths, image_size))
    for first, batch in zip(range(0, len(paths), READ_AT_ONCE), batches, strict=True):
        pixels[first : first + len(batch)] = batch
    return tf.convert_to_tensor(pixels)


def _scale(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels, tf.float32) * (1 / 255)


def _finish(pixels: tf.Tensor, reading: Reading) -> tf.Tensor:
    return _arrange(_scale(pixels), reading)


def _arrange(images: tf.Tensor, reading: Reading) -> tf.Tensor:
    first = reading.data_format == "channels_first"
    return tf.transpose(images, (0, 3, 1, 2)) if first else images


def _in_parallel(steps: tf.data.Dataset, load: Callable[..., object]) -> tf.data.Dataset:
    """Loads several batches at a time, and the next while one is in use; keeps their order."""
    batches = steps.map(as_is(load), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _path_tensor(files: Sequence[str | Path]) -> tf.Tensor:
    if len(files) == 0:
        raise InputError("No patches to read: the list of files is empty. Name at least one.")
    # Bytes, since a file name on Linux need not be valid text.
    return tf.constant([os.fsencode(file) for file in files])
