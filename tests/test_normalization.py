"""Mean and variance of batch normalization, computed anew: of what they are."""

import keras
import numpy as np
import pytest
from keras import layers

from cancernet.training import fused, normalization


def make_network(*, dropout: float = 0.5) -> keras.Sequential:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.SeparableConv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Flatten(),
            layers.Dense(5),
            layers.BatchNormalization(axis=1),
            layers.Dense(2, "softmax"),
        ]
    )


@pytest.fixture
def images():
    return np.random.default_rng(5).random((30, 8, 8, 3), dtype=np.float32)


@pytest.mark.parametrize("make", [lambda network: network, fused.twin])
def test_each_layer_gets_the_statistics_of_its_inputs_in_scoring(images, make):
    network = make(make_network())
    normalization.settle(network, images)
    for index in (1, 5):
        values = keras.Model(network.inputs, network.layers[index].output).predict(
            images, verbose=0
        )
        others = tuple(range(values.ndim - 1))
        # Less than 1 by epsilon, 0.001, over the variance.
        np.testing.assert_allclose(values.mean(axis=others), 0, atol=1e-3)
        assert values.std(axis=others).max() == pytest.approx(1, abs=0.1)


def test_without_dropout_they_are_those_of_training(images):
    # So what differs with dropout is what dropout does, which scoring does not have.
    moved, settled = (make_network(dropout=0.0) for _ in range(2))
    for layer in moved.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    moved(images, training=True)
    normalization.settle(settled, images)
    for ours, its in zip(settled.get_weights(), moved.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-4, atol=1e-5)


def test_half_precision_is_settled_in_full(images):
    whole, half = make_network(), fused.twin(make_network(), mixed_precision=True)
    for network in (whole, half):
        normalization.settle(network, images)
    for ours, its in zip(half.get_weights(), whole.get_weights(), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, its, rtol=0.02, atol=0.02)
