"""A network's mean over the eight symmetries of the square: tissue has no up, down or side."""

import keras
from keras import ops

from cancernet.cli import InputError


def averaged(network: keras.Model, *, data_format: str) -> keras.Model:
    """Makes a network that gives the mean of another one over a patch's mirror images and turns.

    It takes eight times as many multiplications, and memory for eight times as many patches.

    Args:
        network: From images, shape (batch, side, side, 3), or (batch, 3, side, side) with
            "channels_first", to probabilities, shape (batch, 2).
        data_format: "channels_last" or "channels_first".

    Raises:
        InputError: Its images are not square, so that they cannot be turned.
    """
    rows, columns = (1, 2) if data_format == "channels_last" else (2, 3)
    height, width = network.input_shape[rows], network.input_shape[columns]
    if height != width:
        raise InputError(
            f"The model takes patches of {width} x {height} pixels, which cannot be turned by 90 "
            "degrees. Leave --symmetries out."
        )
    images = keras.Input(network.input_shape[1:])
    turned = [images, ops.swapaxes(images, rows, columns)]
    for axis in (rows, columns):
        turned += [ops.flip(image, axis) for image in turned]
    probabilities = network(ops.concatenate(turned, axis=0))
    of_each = ops.reshape(probabilities, (len(turned), -1, 2))
    return keras.Model(images, ops.mean(of_each, axis=0))
