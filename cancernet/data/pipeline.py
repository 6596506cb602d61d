"""Files to batches: the one reader of pixels that every script shares.

The published scripts read patches with Keras' `ImageDataGenerator`, one after the other in Python.
Here `tf.data` reads them, with the same pixels and the same warps. Patches stream from disk: no
more than a few batches are in memory at a time.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cancernet.cli import InputError
from cancernet.data.augmentation import augment
from cancernet.recipes import Augmentation

CLASSES = 2  # Benign and malignant.

READ_AT_ONCE = 64  # Patches a task when all are read at the start.

# Functions of TensorFlow operations alone, without Python's own `if` and `for` on tensors, need not
# be rewritten by AutoGraph, which takes half a second at the first.
as_is = tf.autograph.experimental.do_not_convert


def training_batches(
    files: Sequence[str | Path],
    labels: Sequence[int],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    augmentation: Augmentation | None,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    data_format: str = "channels_last",
    devices: int = 1,
    machine: int = 0,
    machines: int = 1,
    cache_bytes: int = 0,
    shares: Sequence[float] | None = None,
) -> tf.data.Dataset:
    """Makes the batches of all epochs, one epoch after the other.

    In each epoch every patch comes once, in an order over the whole set that depends on `seed` and
    the epoch alone; with `shares`, as many are drawn instead, with replacement. The last batch of
    an epoch may be smaller; none holds patches of two epochs. Warps depend on `seed`, the epoch and
    the step in it alone, so that training resumed at `first_epoch` gets exactly what it would have
    got.

    `fit` has to be told where an epoch ends: `steps_per_epoch`, the same `epochs`, and
    `shuffle=False`, since the order is a shuffled one already.

    Args:
        files: Patches, PNG or JPEG.
        labels: 0 benign or 1 malignant, one a file.
        image_size: Height and width of the images in pixels.
        batch_size: Patches a step.
        augmentation: Ranges of the random warp, or None for the patches as they are.
        seed: Fixes order and warps.
        epochs: The epoch to stop before, counted from 0.
        first_epoch: The epoch to start with, counted from 0.
        data_format: "channels_last" or "channels_first".
        devices: Among how many each batch is shared out, over all machines.
        machine: Which machine this is, counted from 0.
        machines: How many there are, with equally many devices: each gets its shares of every
            batch alone.
        cache_bytes: Where the decoded patches need no more memory than this, they are read once,
            now, and kept; else, and with 0, they are read anew in each epoch.
        shares: How often each patch is drawn, in proportion; None for each once.

    Returns:
        Pairs of images, float32 in [0, 1], shape (batch, height, width, 3), or
        (batch, 3, height, width) with "channels_first", and one-hot labels, float32, shape
        (batch, 2), column 1 malignant.

    Raises:
        InputError: There are no files.
        ValueError: There is not one label, 0 or 1, a file.
    """
    paths = _path_tensor(files)
    if len(labels) != len(files) or not set(labels) <= set(range(CLASSES)):
        raise ValueError(
            f"{len(files)} files need as many labels of 0 or 1; "
            f"found {len(labels)} labels with the values {sorted(set(labels))}"
        )
    targets = tf.one_hot(labels, depth=CLASSES)

    pixels = None
    if len(files) * math.prod(image_size) * 3 <= cache_bytes:
        pixels = _read_all(paths, image_size)

    def order_of_epoch(epoch: tf.Tensor) -> tf.Tensor:
        if shares is None:
            return tf.random.experimental.stateless_shuffle(tf.range(len(files)), [seed, epoch])
        logits = tf.math.log(tf.constant([shares], tf.float32))
        return tf.random.stateless_categorical(logits, len(files), [seed, epoch], tf.int32)[0]

    def steps_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = order_of_epoch(epoch)
        steps = _steps(order, batch_size=batch_size, devices=devices).enumerate()
        return steps.map(lambda step, chosen: (epoch, step, chosen))

    def load(epoch: tf.Tensor, step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        share = None
        if machines > 1:
            whole = tf.size(chosen)
            size = -(-whole // devices) * (devices // machines)  # As `_shareable` has it.
            share = (machine * size, whole)
            chosen = chosen[machine * size : (machine + 1) * size]
        if pixels is None:
            read = _read_batch(tf.gather(paths, chosen), image_size)
        else:
            read = tf.gather(pixels, chosen)
        images = _scale(read)
        if augmentation is not None:
            step_seed = tf.random.fold_in([seed, epoch], step)
            images = augment(images, augmentation=augmentation, seed=step_seed, share=share)
        return _arrange(images, data_format), tf.gather(targets, chosen)

    # Parted into steps before anything is read, so that no batch straddles two epochs and the
    # next epoch's first batches are read while the last of this one are trained on.
    steps = tf.data.Dataset.range(first_epoch, epochs).flat_map(steps_of_epoch)
    return _in_parallel(steps, load)


def scoring_batches(
    files: Sequence[str | Path],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    data_format: str = "channels_last",
    devices: int = 1,
) -> tf.data.Dataset:
    """Makes batches of the patches as they are, each once and in the given order.

    Args:
        files: Patches, PNG or JPEG.
        image_size: Height and width of the images in pixels.
        batch_size: Patches a batch; the last one may be smaller.
        data_format: "channels_last" or "channels_first".
        devices: Among how many each batch is shared out.

    Returns:
        Images alone, as `model.predict` takes them: float32 in [0, 1], shape
        (batch, height, width, 3), or (batch, 3, height, width) with "channels_first".

    Raises:
        InputError: There are no files.
    """

    def load(paths: tf.Tensor) -> tf.Tensor:
        return _arrange(_scale(_read_batch(paths, image_size)), data_format)

    steps = _steps(_path_tensor(files), batch_size=batch_size, devices=devices)
    return _in_parallel(steps, load)


def steps_per_epoch(patches: int, *, batch_size: int, devices: int = 1) -> int:
    """Counts the batches that hold every patch once.

    Where the last batch is too small for every device to get a patch of it, which Keras cannot
    train or score, it is joined to the one before.

    Args:
        patches: How many patches there are.
        batch_size: Patches a batch, over all devices.
        devices: Among how many each batch is shared out.

    Raises:
        InputError: A batch is too small for the devices, be it the only one.
    """
    steps = math.ceil(patches / batch_size)
    last = patches - (steps - 1) * batch_size
    if steps > 1 and not _shareable(last, devices):
        steps, last = steps - 1, last + batch_size
    for batch in {batch_size, last} if steps > 1 else {last}:
        if not _shareable(batch, devices):
            raise InputError(
                f"A batch of {batch} patches cannot be shared out among {devices} devices, each "
                f"taking {math.ceil(batch / devices)}: expected some for every one. Make "
                f"BATCH_SIZE a multiple of {devices}, or hide devices (CUDA_VISIBLE_DEVICES)."
            )
    return steps


def _shareable(batch: int, devices: int) -> bool:
    """Whether the last device gets a patch where each other one takes an equal share, rounded up.

    That is how `tf.distribute` shares out a batch.
    """
    return batch > math.ceil(batch / devices) * (devices - 1)


def _steps(items: tf.Tensor, *, batch_size: int, devices: int) -> tf.data.Dataset:
    """Parts items into those of each step: `batch_size` of them, and in the last one the rest."""
    count = len(items)
    steps = steps_per_epoch(count, batch_size=batch_size, devices=devices)

    @as_is
    def items_of_step(step: tf.Tensor) -> tf.Tensor:
        end = tf.where(step == steps - 1, count, (step + 1) * batch_size)
        return items[step * batch_size : end]

    return tf.data.Dataset.range(steps, output_type=tf.int32).map(items_of_step)


def read_patch(path: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Reads one patch as Keras' `load_img(path, target_size=(height, width))` does.

    PNG (8 bits a channel or fewer, of any colour type; transparency is dropped) and JPEG, told
    apart by content, not by name. The pixels are those that Pillow gives, which Keras reads with.

    Args:
        path: The file's name, string, shape ().
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        Red, green and blue, uint8 in [0, 255], shape (height, width, 3).
    """
    # In spite of its name this reads PNG, too. tf.io.decode_image would take the fast arithmetic
    # for JPEG, which is up to 16 levels off; Pillow takes the accurate one.
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
    return _resize(image, height=height, width=width)


def tile_batches(
    tiles: Sequence[NDArray[np.uint8]],
    *,
    image_size: tuple[int, int],
    batch_size: int,
    data_format: str = "channels_last",
) -> tf.data.Dataset:
    """Makes batches of tiles cut from a larger image, as `scoring_batches` does of files.

    Args:
        tiles: Red, green and blue, uint8 in [0, 255], each of shape (height, width, 3) of its own.
        image_size: Height and width of the images in pixels.
        batch_size: Tiles a batch; the last one may be smaller.
        data_format: "channels_last" or "channels_first".

    Returns:
        Images alone, in the order of the tiles: a file of the same pixels gives the same image.
    """
    height, width = image_size
    pixels = np.empty((len(tiles), height, width, 3), np.uint8)
    for shape in {tile.shape for tile in tiles}:
        alike = [index for index, tile in enumerate(tiles) if tile.shape == shape]
        stack = np.stack([tiles[index] for index in alike])
        pixels[alike] = _resize(stack, height=height, width=width)

    def load(batch: tf.Tensor) -> tf.Tensor:
        return _arrange(_scale(batch), data_format)

    return _in_parallel(tf.data.Dataset.from_tensor_slices(pixels).batch(batch_size), load)


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

    Args:
        side: Pixels along the image's side, float64, shape ().
        target: Pixels along the result's side.

    Returns:
        int32, shape (target,).
    """
    # Not `side / target`: TensorFlow's graph optimizer makes that a product with 1 / target.
    step = tf.math.divide_no_nan(side, target)
    places = tf.cumsum(step * tf.constant([0.5] + [1.0] * (target - 1), tf.float64))
    return tf.cast(places, tf.int32)


def _read_batch(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Reads patches, uint8, shape (batch, height, width, 3)."""
    height, width = image_size
    # A loop inside one step of tf.data: a step a patch was half as fast.
    return tf.map_fn(
        lambda path: read_patch(path, height=height, width=width),
        paths,
        parallel_iterations=1,  # The steps run in parallel already.
        fn_output_signature=tf.uint8,
    )


def _read_all(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Reads all patches into memory, uint8, shape (patches, height, width, 3)."""
    steps = _steps(paths, batch_size=READ_AT_ONCE, devices=1)
    pixels = np.empty((len(paths), *image_size, 3), np.uint8)
    done = 0
    for batch in _in_parallel(steps, lambda paths: _read_batch(paths, image_size)):
        pixels[done : done + len(batch)] = batch
        done += len(batch)
    return tf.convert_to_tensor(pixels)


def _scale(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels, tf.float32) * (1 / 255)


def _arrange(images: tf.Tensor, data_format: str) -> tf.Tensor:
    return tf.transpose(images, (0, 3, 1, 2)) if data_format == "channels_first" else images


def _in_parallel(steps: tf.data.Dataset, load: Callable[..., object]) -> tf.data.Dataset:
    """Loads several batches at a time, and the next while one is in use; keeps their order."""
    batches = steps.map(as_is(load), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _path_tensor(files: Sequence[str | Path]) -> tf.Tensor:
    if len(files) == 0:
        raise InputError("No patches to read: the list of files is empty. Name at least one.")
    # Bytes, since a file name on Linux need not be valid text.
    return tf.constant([os.fsencode(file) for file in files])
