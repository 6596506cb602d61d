"""The mean over the eight symmetries: which eight, of what, and where there are none."""

import keras
import numpy as np
import pytest

from cancernet.cancernet import CancerNet
from cancernet.cli import InputError
from cancernet.prediction import symmetries

SIDE = 6


def eight(image):
    for turn in range(4):
        turned = np.rot90(image, turn)
        yield from (turned, turned[:, ::-1])


@pytest.fixture
def network():
    """One that finds each of the eight another thing, as a new CancerNet hardly does."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Flatten(), layers.Dense(2, "softmax")]
    )


@pytest.fixture
def images():
    return np.random.default_rng(5).random((3, SIDE, SIDE, 3), dtype=np.float32)


def test_it_is_the_mean_of_a_networks_probabilities_of_all_eight(network, images):
    found = symmetries.averaged(network, data_format="channels_last").predict(images, verbose=0)
    each = [network.predict(np.stack(list(eight(image))), verbose=0) for image in images]
    assert np.ptp(each, axis=1).max() > 0.01  # The eight of a patch are not alike.
    np.testing.assert_allclose(found, np.mean(each, axis=1), atol=1e-6)


def test_a_turned_patch_gets_what_the_patch_gets(network, images):
    averaged = symmetries.averaged(network, data_format="channels_last")
    found = averaged.predict(np.stack(list(eight(images[0]))), verbose=0)
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-6)


def test_channels_first_is_turned_over_height_and_width():
    layers = [keras.Input((3, 4, 4)), keras.layers.Flatten(), keras.layers.Dense(2)]
    network = keras.Sequential(layers)
    image = np.random.default_rng(6).random((4, 4, 3), dtype=np.float32)
    averaged = symmetries.averaged(network, data_format="channels_first")
    found = averaged.predict(image.transpose(2, 0, 1)[np.newaxis], verbose=0)
    each = [
        network.predict(turned.transpose(2, 0, 1)[np.newaxis], verbose=0) for turned in eight(image)
    ]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)


def test_patches_that_are_not_square_are_refused():
    network = CancerNet.build(width=48, height=56, depth=3, classes=2)
    with pytest.raises(InputError, match=r"48 x 56 pixels.*--symmetries"):
        symmetries.averaged(network, data_format="channels_last")
