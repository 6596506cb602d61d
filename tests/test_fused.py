"""The fused twin against the stock layers: same numbers, same weights."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of
from keras import layers

from cancernet.cancernet import CancerNet
from cancernet.training import fused, training
from cancernet.training.fused import FusedBatchNormalization

RNG = np.random.default_rng(3)
# Float32 has 24 bits; sums of some hundred numbers lose a few of them.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def pair(shape):
    """A stock layer and a fused one with the same odd weights."""
    stock = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    twin = FusedBatchNormalization(momentum=0.9, epsilon=1e-3)
    channels = shape[-1]
    weights = [RNG.normal(1, 0.5, channels), RNG.normal(0, 1, channels)]
    weights += [RNG.normal(0, 1, channels), RNG.uniform(0.5, 2, channels)]
    for layer in (stock, twin):
        layer.build(shape)
        layer.set_weights(weights)
    return stock, twin


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape", [(5, 6, 4, 3), (7, 3), (2, 1), (1, 2, 2, 3), (32, 12, 12, 128)], ids=str
)
def test_outputs_gradients_and_moving_statistics_are_those_of_the_stock_layer(shape, training):
    inputs = tf.constant(RNG.normal(3, 2, shape), tf.float32)
    upstream = tf.constant(RNG.normal(0, 1, shape), tf.float32)
    found = []
    for layer in pair(shape):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
        sources = [inputs, layer.gamma.value, layer.beta.value]
        gradients = tape.gradient(outputs, sources, output_gradients=upstream)
        found.append([outputs, *gradients, layer.moving_mean, layer.moving_variance])
    for stock, twin in zip(*found, strict=True):
        assert stock.shape == twin.shape
        size = np.abs(stock).max()
        np.testing.assert_allclose(np.asarray(twin), np.asarray(stock), atol=1e-5 * size + 1e-6)


def test_moving_variance_is_without_bessels_correction():
    _, twin = pair((4, 1))
    twin.set_weights([np.ones(1), *[np.zeros(1)] * 3])
    twin(tf.constant([[0.0], [0.0], [4.0], [4.0]]), training=True)
    # Variance 4 where divided by N, 16/3 by N - 1; a tenth of it is taken.
    assert np.asarray(twin.moving_variance)[0] == pytest.approx(0.4)
    assert np.asarray(twin.moving_mean)[0] == pytest.approx(0.2)


def test_the_twin_has_the_networks_weights_and_probabilities():
    network = CancerNet.build(24, 16, 3, 2)
    network.set_weights([RNG.normal(0.5, 0.2, w.shape) for w in network.get_weights()])
    twin = fused.twin(network)
    assert sum(isinstance(layer, FusedBatchNormalization) for layer in twin.layers) == 7
    images = RNG.random((6, 16, 24, 3), dtype=np.float32)
    np.testing.assert_allclose(
        twin.predict(images, verbose=0), network.predict(images, verbose=0), **CLOSE
    )
    for ours, stock in zip(twin.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, stock)
    assert not {id(v) for v in twin.variables} & {id(v) for v in network.variables}


def without_dropout(network):
    return keras.models.clone_model(
        network,
        clone_function=lambda layer: layer.__class__.from_config(
            layer.get_config() | ({"rate": 0.0} if isinstance(layer, layers.Dropout) else {})
        ),
    )


def test_the_first_20_losses_of_the_published_recipe_are_those_of_the_stock_network():
    keras.utils.set_random_seed(0)
    network = without_dropout(CancerNet.build(24, 24, 3, 2))
    twin = fused.twin(network)
    for model in (network, twin):
        training.compile_network(model, recipe_of(), steps=1)
    expected, found = [], []
    for _ in range(20):
        images = RNG.random((32, 24, 24, 3), dtype=np.float32)
        targets = np.eye(2, dtype=np.float32)[RNG.integers(0, 2, 32)]
        # From the same weights at each step. Left to itself either network takes another path
        # after a few steps whenever anything is rounded otherwise: the stock network does so when
        # it gets the patches of each batch in reverse order.
        twin.set_weights(network.get_weights())
        found.append(twin.train_on_batch(images, targets)[0])
        expected.append(network.train_on_batch(images, targets)[0])
        for model in (network, twin):
            model.reset_metrics()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(expected) > 0.1


def test_mixed_precision_keeps_weights_normalization_and_softmax_in_float32():
    network = CancerNet.build(16, 16, 3, 2)
    twin = fused.twin(network, mixed_precision=True)
    assert twin.layers[0].compute_dtype == "float16"
    assert twin.layers[-1].compute_dtype == "float32"
    assert {variable.dtype for variable in twin.trainable_variables} == {"float32"}
    images = RNG.random((6, 16, 16, 3), dtype=np.float32)
    outputs = twin(images)
    assert outputs.dtype == tf.float32
    np.testing.assert_allclose(outputs, network(images), atol=0.01)
    assert {variable.dtype for variable in network.weights} == {"float32"}
