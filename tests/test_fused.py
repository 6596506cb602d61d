"""The fused model against the stock layers: same numbers, same weights; and its statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import recipe_of
from keras import layers

from cancernet.cancernet import CancerNet
from cancernet.training import fused
from cancernet.training.fused import FusedBatchNormalization

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape", [(5, 6, 4, 3), (7, 3), (2, 1), (1, 2, 2, 3), (32, 12, 12, 128)], ids=str
)
def test_outputs_gradients_and_moving_statistics_are_those_of_the_stock_layer(shape, training):
    inputs = tf.constant(RNG.normal(3, 2, shape), tf.float32)
    upstream = tf.constant(RNG.normal(0, 1, shape), tf.float32)
    channels = shape[-1]
    weights = [RNG.normal(1, 0.5, channels), *RNG.normal(0, 1, (2, channels))]
    weights += [RNG.uniform(0.5, 2, channels)]
    found = []
    for kind in (layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-3)
        layer.build(shape)
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
        sources = [inputs, layer.gamma.value, layer.beta.value]
        gradients = tape.gradient(outputs, sources, output_gradients=upstream)
        found.append([outputs, *gradients, layer.moving_mean, layer.moving_variance])
    for stock, fast in zip(*found, strict=True):
        assert stock.shape == fast.shape
        size = np.abs(stock).max()
        np.testing.assert_allclose(np.asarray(fast), np.asarray(stock), atol=1e-5 * size + 1e-6)


def test_the_fused_model_has_the_networks_weights_and_probabilities():
    network = CancerNet.build(24, 16, 3, 2)
    network.set_weights([RNG.normal(0.5, 0.2, w.shape) for w in network.get_weights()])
    fast = fused.fuse(network)
    assert sum(isinstance(layer, FusedBatchNormalization) for layer in fast.layers) == 7
    images = RNG.random((6, 16, 24, 3), dtype=np.float32)
    found, expected = (model.predict(images, verbose=0) for model in (fast, network))
    # Float32 has 24 bits; sums of some hundred numbers lose a few of them.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for ours, stock in zip(fast.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, stock)
    assert not {id(v) for v in fast.variables} & {id(v) for v in network.variables}


def test_the_first_20_losses_of_the_published_recipe_are_those_of_the_stock_network():
    keras.utils.set_random_seed(0)
    network = fused.stock(fused.fuse(CancerNet.build(24, 24, 3, 2), dropout=0))
    fast = fused.fuse(network)
    for model in (network, fast):
        model.compile(recipe_of().optimizer(), "categorical_crossentropy")
    expected, found = [], []
    for _ in range(20):
        images = RNG.random((32, 24, 24, 3), dtype=np.float32)
        targets = np.eye(2, dtype=np.float32)[RNG.integers(0, 2, 32)]
        # From the same weights at each step. Left to itself either network takes another path
        # after a few steps whenever anything is rounded otherwise: the stock network does so when
        # it gets the patches of each batch in reverse order.
        fast.set_weights(network.get_weights())
        found.append(fast.train_on_batch(images, targets))
        expected.append(network.train_on_batch(images, targets))
        for model in (network, fast):
            model.reset_metrics()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(expected) > 0.1


def test_mixed_precision_keeps_weights_normalization_and_softmax_in_float32():
    network = CancerNet.build(16, 16, 3, 2)
    fast = fused.fuse(network, mixed_precision=True)
    assert fast.layers[0].compute_dtype == "float16"
    assert fast.layers[-1].compute_dtype == "float32"
    assert {variable.dtype for variable in fast.trainable_variables} == {"float32"}
    images = RNG.random((6, 16, 16, 3), dtype=np.float32)
    outputs = fast(images)
    assert outputs.dtype == tf.float32
    np.testing.assert_allclose(outputs, network(images), atol=0.01)
    assert {variable.dtype for variable in network.weights} == {"float32"}


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_what_is_saved_is_of_stock_layers_and_would_train_on_as_the_model(mixed_precision):
    network = CancerNet.build(16, 16, 3, 2)
    model = fused.fuse(network, dropout=0.5, mixed_precision=mixed_precision)
    saved = fused.stock(model)
    assert [type(layer) for layer in saved.layers] == [type(layer) for layer in network.layers]
    assert {layer.dtype_policy.name for layer in saved.layers} == {"float32"}
    rates = [layer.rate for layer in saved.layers if isinstance(layer, layers.Dropout)]
    assert rates == [0.125, 0.125, 0.125, 0.25]
    for ours, its in zip(saved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, its)


# --- Batch-norm re-estimation --------------------------------------------------------------------


def half_precision(network: keras.Sequential) -> keras.Sequential:
    return fused.fuse(network, mixed_precision=True)


@pytest.mark.parametrize("make", [lambda network: network, fused.fuse, half_precision])
def test_each_layer_gets_the_statistics_of_its_inputs_in_scoring(make):
    images = RNG.random((30, 8, 8, 3), dtype=np.float32)
    keras.utils.set_random_seed(3)
    network = make(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.SeparableConv2D(6, 3, activation="relu"),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
                layers.Flatten(),
                layers.Dense(5),
                layers.BatchNormalization(axis=1),
                layers.Dense(2, "softmax"),
            ]
        )
    )
    fused.reestimate(network, images)
    for index in (1, 5):
        part = keras.Model(network.inputs, network.layers[index].output)
        values = part.predict(images, verbose=0)
        others = tuple(range(values.ndim - 1))
        # Less than 1 by epsilon, 0.001, over the variance.
        np.testing.assert_allclose(values.mean(axis=others), 0, atol=5e-3)
        assert values.std(axis=others).max() == pytest.approx(1, abs=0.1)
