"""The network."""

import keras
from keras import layers


class CancerNet:
    """The published network: depthwise separable convolutions in three blocks, then two dense."""

    @staticmethod
    def build(width: int, height: int, depth: int, classes: int) -> keras.Sequential:
        """Builds the network, not compiled, from stock Keras layers only.

        Convolutions keep the size ("same" padding); each pooling halves it. Every convolution and
        the hidden dense layer are followed by ReLU and, after it, batch normalization.

        Returns:
            A network from float32 patches in [0, 1], of shape (batch, height, width, depth), or
            (batch, depth, height, width) where Keras is set to channels_first, to softmax
            probabilities of shape (batch, classes). At 48, 48, 3, 2 it has 1,235,133 parameters.
        """
        if keras.config.image_data_format() == "channels_first":
            shape, channel_axis = (depth, height, width), 1
        else:
            shape, channel_axis = (height, width, depth), -1

        model = keras.Sequential(name="cancernet")
        model.add(keras.Input(shape))
        for filters, convolutions in ((32, 1), (64, 2), (128, 3)):
            for _ in range(convolutions):
                model.add(layers.SeparableConv2D(filters, (3, 3), padding="same"))
                model.add(layers.Activation("relu"))
                model.add(layers.BatchNormalization(axis=channel_axis))
            model.add(layers.MaxPooling2D(pool_size=(2, 2)))
            model.add(layers.Dropout(0.25))

        model.add(layers.Flatten())
        model.add(layers.Dense(256))
        model.add(layers.Activation("relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.Dropout(0.5))
        model.add(layers.Dense(classes))
        model.add(layers.Activation("softmax"))
        return model
