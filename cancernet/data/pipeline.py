"""Files to batches: the one reader of pixels that every script shares.

Where the published scripts use Keras' `ImageDataGenerator`, `tf.data` gives the same pixels and the
same warps. Patches stream from disk: only a few batches are in memory at a time.
"""

import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cancernet.cli import InputError, map_files
from cancernet.data.augmentation import augment
from cancernet.data.dataset import Split
from cancernet.recipe import Recipe

CLASSES = 2  # Benign and malignant.

READ_AT_ONCE = 64  # Patches per task when a sample is read.

# AutoGraph's rewriting of `if` and `for` on tensors, of which there are none here, takes half a
# second at the first function.
as_is = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Reading:
    """How patches are read, whatever for."""

    image_size: tuple[int, int]  # Height and width in pixels, which patches are resized to.
    batch_size: int  # Patches per batch, over all workers; the last one may be smaller.
    replicas: int = 1  # Among how many devices each training batch is shared out, over all workers.
    worker: int = 0  # Which worker this is; each trains on its shard of every batch.
    workers: int = 1  # How many there are, each with as many replicas, each scoring all patches.


def training_batches(
    split: Split, recipe: Recipe, reading: Reading, *, seed: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """Makes the batches of all epochs: images as of `scoring_batches`, warped, and labels.

    The labels are one-hot, float32, shape (batch, 2), column 1 malignant. In each epoch every patch
    comes once. Order and warps depend on `seed`, the epoch and the step in it alone, so that
    training resumed at `first_epoch`, counted from 0, gets exactly what it would have got.
    """
    paths, count = _path_tensor(split.files), len(split.files)
    targets = tf.one_hot(split.labels, depth=CLASSES)

    def steps_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), [seed, epoch])
        return _steps(order, reading).enumerate().map(lambda step, chosen: (epoch, step, chosen))

    def load(epoch: tf.Tensor, step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shard = None
        if reading.workers > 1:
            whole = tf.size(chosen)
            each = reading.replicas // reading.workers
            size = -(-whole // reading.replicas) * each  # See _shareable.
            shard = (reading.worker * size, whole)
            chosen = chosen[shard[0] : shard[0] + size]
        images = _read_batch(tf.gather(paths, chosen), reading.image_size)
        step_seed = tf.random.fold_in([seed, epoch], step)
        images = augment(images, recipe.augmentation, seed=step_seed, shard=shard)
        return images, tf.gather(targets, chosen)

    # Parted into steps before anything is read, so that no batch straddles two epochs and the
    # next epoch's first batches are read while the last of this one are trained on.
    return _in_parallel(
        tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(steps_of_epoch), load
    )


def scoring_batches(files: Sequence[str | Path], reading: Reading) -> tf.data.Dataset:
    """Makes batches of the patches, PNG or JPEG, each once and in the given order.

    They are as `model.predict` takes them: float32 in [0, 1], shape (batch, height, width, 3).
    """
    if reading.workers > 1:
        reading = replace(reading, replicas=1)
    return _in_parallel(
        _steps(_path_tensor(files), reading),
        lambda paths: _read_batch(paths, reading.image_size),
    )


def tile_batches(tiles: Sequence[NDArray[np.uint8]], reading: Reading) -> tf.data.Dataset:
    """Makes batches as `scoring_batches` does, of tiles: uint8, each (height, width, 3) its own."""
    pixels = np.empty((len(tiles), *reading.image_size, 3), np.uint8)
    for shape in {tile.shape for tile in tiles}:
        alike = [index for index, tile in enumerate(tiles) if tile.shape == shape]
        pixels[alike] = _resize(np.stack([tiles[index] for index in alike]), reading.image_size)
    return _in_parallel(
        tf.data.Dataset.from_tensor_slices(pixels).batch(reading.batch_size), _scale
    )


def read_sample(
    split: Split, recipe: Recipe, reading: Reading, *, seed: int
) -> NDArray[np.float32] | None:
    """Reads so many patches at random as the recipe re-estimates batch normalization by, if any."""
    if not recipe.reestimation:
        return None
    chosen = random.Random(seed).sample(split.files, min(recipe.reestimation, len(split)))
    batches = scoring_batches(chosen, Reading(reading.image_size, READ_AT_ONCE))
    return np.concatenate(list(batches.as_numpy_iterator()))


def steps_per_epoch(patches: int, reading: Reading) -> int:
    """Counts the batches of an epoch.

    Where the last one is too small for every replica to get a patch of it, which Keras cannot train
    or score, it is joined to the one before; where all are too small, that is an InputError.
    """
    batch_size, replicas = reading.batch_size, reading.replicas
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
    steps = steps_per_epoch(count, reading)

    @as_is
    def items_of_step(step: tf.Tensor) -> tf.Tensor:
        end = tf.where(step == steps - 1, count, (step + 1) * size)
        return items[step * size : end]

    return tf.data.Dataset.range(steps, output_type=tf.int32).map(items_of_step)


def _in_parallel(steps: tf.data.Dataset, load: Callable[..., object]) -> tf.data.Dataset:
    """Loads several batches at a time, and the next while one is in use; keeps their order."""
    batches = steps.map(as_is(load), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def read_patch(path: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Reads a PNG or JPEG as Keras' `load_img(path, target_size=(height, width))` does, by Pillow.

    Transparency is dropped. Gives red, green and blue, uint8, shape (height, width, 3).
    """
    # In spite of its name this reads PNG, too. tf.io.decode_image would take the fast arithmetic
    # for JPEG, which is up to 16 levels off; Pillow takes the accurate one.
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
    return _resize(image, (height, width))


def _resize(images: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Resizes images of shape (..., height, width, channels) to their nearest neighbours."""
    sides = tf.cast(tf.shape(images), tf.float64)
    rows, columns = map(_nearest_neighbours, (sides[-3], sides[-2]), image_size)
    return tf.gather(tf.gather(images, rows, axis=-3), columns, axis=-2)


def _nearest_neighbours(side: tf.Tensor, target: int) -> tf.Tensor:
    """Tells which row or column each one of the resized image comes from.

    Pixel i lies at (i + 1/2) * side / target, rounded down. Pillow adds up side / target, and so
    does this: where the place is a whole number, as often at sides of 32 or 160 resized to 48, any
    other order of rounding may pick the neighbour.
    """
    # Not `side / target`: TensorFlow's graph optimizer makes that a product with 1 / target.
    step = tf.math.divide_no_nan(side, target)
    places = tf.cumsum(step * tf.constant([0.5] + [1.0] * (target - 1), tf.float64))
    return tf.cast(places, tf.int32)


def _read_batch(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    height, width = image_size
    # A loop inside one step of tf.data: a step per patch was half as fast.
    pixels = tf.map_fn(
        lambda path: read_patch(path, height=height, width=width),
        paths,
        parallel_iterations=1,  # The steps run in parallel already.
        fn_output_signature=tf.uint8,
    )
    return _scale(pixels)


def _scale(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels, tf.float32) * (1 / 255)


def _path_tensor(files: Sequence[str | Path]) -> tf.Tensor:
    if len(files) == 0:
        raise InputError("No patches to read: the list of files is empty. Name at least one.")
    # Bytes, since a file name on Linux need not be valid text.
    return tf.constant([os.fsencode(file) for file in files])


@contextmanager
def explained(
    files: Sequence[str | Path],
    *,
    batch_size: int,
    lost: Callable[[tf.errors.OpError], InputError | None] | None = None,
) -> Iterator[None]:
    """Turns TensorFlow's errors on files, memory and workers into an InputError.

    Since TensorFlow does not name the file that it cannot decode, all `files` are tried after a
    failure, and only then. `lost` says which worker is gone, where an error comes of that.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise InputError(
            f"The memory does not suffice at {batch_size} patches per step ({_first_line(error)}). "
            "Lower BATCH_SIZE in cancernet/config.py, or close other programs."
        ) from error
    except tf.errors.OpError as error:
        if lost and (of_worker := lost(error)):
            raise of_worker from error
        problems = map_files(_problem, files, what="Looking for the cause")
        for file, problem in zip(files, problems, strict=True):
            if problem:
                raise InputError(
                    f"{file} cannot be read ({problem}): it was damaged or removed since the data "
                    "set was built. Build the data set again."
                ) from error
        raise


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "message", error)).strip().split("\n", maxsplit=1)[0]


def _problem(file: str | Path) -> str | None:
    try:
        read_patch(tf.constant(os.fsencode(file)), height=1, width=1)
    except tf.errors.OpError as error:
        return _first_line(error)
    return None
