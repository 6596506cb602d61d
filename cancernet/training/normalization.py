"""Mean and variance of batch normalization, computed anew for scoring."""

import keras
import tensorflow as tf
from numpy.typing import NDArray


def settle(network: keras.Sequential, images: NDArray) -> None:
    """Gives each batch normalization the mean and variance that its inputs have in scoring.

    The moving ones are of training, where dropout spreads the values: at scoring they are too
    large, and probabilities come out too high or too low on all patches alike (X. Li et al. 2019,
    Understanding the disharmony between dropout and batch normalization by variance shift, CVPR).

    Args:
        network: Its layers follow each other; those before a batch normalization are settled first.
        images: Of training, float32 in [0, 1], as many as one goes through the network with.
    """
    values = tf.convert_to_tensor(images)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            rank = values.shape.rank
            others = [axis for axis in range(rank) if axis != layer.axis % rank]
            mean, variance = tf.nn.moments(tf.cast(values, tf.float32), others)
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
        values = layer(values, training=False)
