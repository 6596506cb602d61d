"""The network's size, layers and both data formats."""

import keras
import numpy as np
import pytest
from keras import layers

from cancernet.cancernet import CancerNet


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


SETTINGS = ("filters", "kernel_size", "strides", "padding", "pool_size", "rate", "units")


def described(layer):
    settings = layer.get_config()
    values = [settings[name] for name in (*SETTINGS, "activation") if name in settings]
    return " ".join(map(str, [type(layer).__name__, *values]))


def convolution(filters):
    layer = f"SeparableConv2D {filters} (3, 3) (1, 1) same linear"
    return [layer, "Activation relu", "BatchNormalization"]


def test_layers_stand_in_the_published_order_and_are_stock_layers_not_compiled():
    network = CancerNet.build(48, 48, 3, 2)
    end_of_block = ["MaxPooling2D (2, 2) valid (2, 2)", "Dropout 0.25"]
    assert [described(layer) for layer in network.layers] == [
        *convolution(32) * 1,
        *end_of_block,
        *convolution(64) * 2,
        *end_of_block,
        *convolution(128) * 3,
        *end_of_block,
        *["Flatten", "Dense 256 linear", "Activation relu", "BatchNormalization", "Dropout 0.5"],
        *["Dense 2 linear", "Activation softmax"],
    ]
    assert type(network) is keras.Sequential
    assert {type(layer).__module__.split(".")[0] for layer in network.layers} == {"keras"}
    assert not network.compiled
    assert network.count_params() == 1_235_133


@pytest.mark.parametrize(
    ("width", "height", "depth", "classes"), [(8, 8, 3, 2), (64, 40, 3, 2), (48, 48, 1, 5)]
)
def test_other_sizes_and_numbers_of_classes_can_be_built(width, height, depth, classes):
    model = CancerNet.build(width, height, depth, classes)
    assert model.input_shape == (None, height, width, depth)
    images = np.random.default_rng(0).random((5, height, width, depth), dtype=np.float32)
    probabilities = model.predict(images, verbose=0)
    assert probabilities.shape == (5, classes)
    assert np.all(probabilities >= 0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_both_data_formats_give_the_same_probabilities(request):
    size = {"width": 24, "height": 16, "depth": 3, "classes": 2}
    random = np.random.default_rng(1)
    images = random.random((3, 16, 24, 3), dtype=np.float32)
    channels_last = CancerNet.build(**size)
    for layer in channels_last.layers:
        if isinstance(layer, layers.BatchNormalization):  # Each channel is changed in its own way.
            layer.set_weights([random.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    expected = channels_last.predict(images, verbose=0)

    request.getfixturevalue("channels_first")
    channels_first = CancerNet.build(**size)
    assert channels_first.input_shape == (None, 3, 16, 24)
    channels_first.set_weights(channels_last.get_weights())
    found = channels_first.predict(images.transpose(0, 3, 1, 2), verbose=0)
    assert np.all((expected > 0.001) & (expected < 0.999))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
