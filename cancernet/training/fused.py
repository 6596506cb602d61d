"""The network's faster twin: the same layers, batch normalization by TensorFlow's fused kernel.

Keras 3 puts batch normalization together from some twenty operations on TensorFlow, which makes it
the most expensive part of a training step; TensorFlow has it as a single one. The twin is for
computing alone: what is saved is always the network of stock layers.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers


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

        Args:
            inputs: float32 or float16, shape (batch, height, width, channels) or (batch, channels).
            training: Whether to take the batch's own mean and variance, or the moving ones.
            mask: Not used; the stock layer has it for sequences.

        Returns:
            The same type and shape.
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
        self._move(mean, variance * ((count - 1) / count))
        return tf.reshape(outputs, tf.shape(inputs))

    def _move(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        devices = tf.distribute.get_replica_context()
        if devices.num_replicas_in_sync > 1:
            mean, variance = devices.all_reduce(tf.distribute.ReduceOp.MEAN, [mean, variance])
        for moving, latest in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + latest * (1 - self.momentum))


def twin(
    network: keras.Sequential,
    *,
    mixed_precision: bool = False,
    dropout: float = 1.0,
    momentum: float | None = None,
) -> keras.Sequential:
    """Makes a network that computes the same, faster, with a copy of the weights.

    Args:
        network: Of stock layers. Batch normalization over another axis than the last stays stock.
        mixed_precision: Compute in float16, but keep weights, normalization and softmax in float32.
        dropout: Factor of all dropout rates.
        momentum: Of the moving mean and variance; None for those of `network`.

    Returns:
        A network whose weights are those of `network`, in the same order: `get_weights` of one is
        for `set_weights` of the other.
    """

    def faster(layer: layers.Layer) -> layers.Layer:
        kind, settings = type(layer), layer.get_config()
        if kind is layers.Dropout:
            settings["rate"] *= dropout
        if kind is layers.BatchNormalization and momentum is not None:
            settings["momentum"] = momentum
        if kind is layers.BatchNormalization and layer.axis == -1:
            kind = FusedBatchNormalization
        if mixed_precision:
            settings["dtype"] = "float32" if layer is network.layers[-1] else "mixed_float16"
        return kind.from_config(settings)

    copy = keras.models.clone_model(network, clone_function=faster)
    copy.set_weights(network.get_weights())
    return copy


def predict(model: keras.Model, batches: tf.data.Dataset) -> np.ndarray:
    """Computes the probability of class 1, float32 in [0, 1], shape (patches,), in their order."""
    return model.predict(batches, verbose=0)[:, 1]
