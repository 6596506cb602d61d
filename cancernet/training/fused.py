"""Batch normalization by TensorFlow's fused kernel, and its statistics computed anew for scoring.

Keras 3 puts batch normalization together from some twenty operations on TensorFlow, which makes it
the most expensive part of a training step; TensorFlow has it as a single one. The fused model is
for computing alone: what is saved is always a network of stock layers.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalization over the last axis, equal to the stock layer within float32 rounding.

    On several devices each normalizes its share of a batch by that share's own mean and variance,
    as stock Keras does; but the moving ones take the average over the devices, so that they stay
    the same on all of them, where those of the stock layer drift apart.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalizes each channel and, in training, moves the moving mean and variance on.

        Inputs are float32 or float16, shape (batch, height, width, channels) or (batch, channels).
        """
        if not training:  # A product and a sum, which take less time than the fused kernel.
            return super().call(inputs, training=False)
        images = inputs if inputs.shape.rank == 4 else inputs[:, tf.newaxis, tf.newaxis, :]
        batch_own = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=batch_own,
            variance=batch_own,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel divides by N - 1 (Bessel's correction), the stock layer by N.
        count = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), tf.float32)
        latest = [mean, variance * ((count - 1) / count)]
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:
            latest = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, latest)
        for moving, its in zip((self.moving_mean, self.moving_variance), latest, strict=True):
            moving.assign(moving * self.momentum + its * (1 - self.momentum))
        return tf.reshape(outputs, tf.shape(inputs))


def fuse(
    network: keras.Sequential, *, dropout: float = 1.0, mixed_precision: bool = False
) -> keras.Sequential:
    """Makes a network that computes the same, faster, with a copy of the weights in their order.

    Batch normalization over another axis than the last stays stock. `dropout` is a factor of all
    dropout rates. Mixed precision computes in float16, but weights, normalization and softmax stay
    in float32.
    """

    def faster(layer: layers.Layer) -> layers.Layer:
        kind, settings = type(layer), layer.get_config()
        if kind is layers.Dropout:
            settings["rate"] *= dropout
        if kind is layers.BatchNormalization and layer.axis == -1:
            kind = FusedBatchNormalization
        if mixed_precision:
            settings["dtype"] = "float32" if layer is network.layers[-1] else "mixed_float16"
        return kind.from_config(settings)

    return _clone(network, faster)


def stock(model: keras.Sequential) -> keras.Sequential:
    """Makes the network of stock layers, in float32, that a fused model stands for, to be saved.

    It keeps the dropout rates of the model, so that it would train on as the model does.
    """

    def plain(layer: layers.Layer) -> layers.Layer:
        is_fused = isinstance(layer, FusedBatchNormalization)
        kind = layers.BatchNormalization if is_fused else type(layer)
        return kind.from_config(layer.get_config() | {"dtype": "float32"})

    return _clone(model, plain)


def _clone(
    model: keras.Sequential, clone_layer: Callable[[layers.Layer], layers.Layer]
) -> keras.Sequential:
    # Keras' `clone_model` would compile the copy, so that an optimizer is saved with it.
    copy = keras.Sequential(
        [keras.Input(model.input_shape[1:]), *map(clone_layer, model.layers)], name=model.name
    )
    copy.set_weights(model.get_weights())
    return copy


def reestimate(model: keras.Sequential, images: NDArray) -> None:
    """Gives each batch normalization the mean and variance that its inputs have in scoring.

    The moving ones are of training, where dropout spreads the values: at scoring they are too
    large, and probabilities come out too high or too low on all patches alike (X. Li et al. 2019,
    Understanding the disharmony between dropout and batch normalization by variance shift, CVPR).
    `images` are of training, float32 in [0, 1], as many as go through the network at once.
    """
    values = tf.convert_to_tensor(images)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            rank = values.shape.rank
            others = [axis for axis in range(rank) if axis != layer.axis % rank]
            mean, variance = tf.nn.moments(tf.cast(values, tf.float32), others)
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
        values = layer(values, training=False)
