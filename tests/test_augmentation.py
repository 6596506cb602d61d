"""The whole-batch warp against Keras' ImageDataGenerator, which the published scripts use."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from cancernet.data.augmentation import augment, random_parameters, warp
from cancernet.recipe import Augmentation

# Keras' generator still asks SciPy for its functions by their old place.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Please import `affine_transform` from the `scipy.ndimage` namespace:DeprecationWarning"
)

TOLERANCE = 0.05 / 255
PUBLISHED = Augmentation(20, 0.05, 0.1, 0.1, 0.05, horizontal_flip=True, vertical_flip=True)
# Each part far from the others, so that two that are mixed up show.
UNEVEN = dataclasses.replace(PUBLISHED, zoom=0.3, width_shift=0.3, shear=15)
NONE = Augmentation(0, 0, 0, 0, 0, False, False)


def random_images(count, height, width):
    return np.random.default_rng(1).random((count, height, width, 3)).astype(np.float32)


def warp_by_keras(images, parameters):
    generator = ImageDataGenerator(fill_mode="nearest", data_format="channels_last")
    names, rows = parameters._fields, zip(*(column.numpy() for column in parameters), strict=True)
    each = [dict(zip(names, row, strict=True)) for row in rows]
    return np.stack([*map(generator.apply_transform, images, each)])


def draw(count, augmentation, image_size=(48, 48)):
    return random_parameters(count, augmentation, image_size=image_size, seed=tf.constant([1, 2]))


@pytest.mark.parametrize("image_size", [(48, 48), (48, 31), (20, 64), (1, 5)])
@pytest.mark.parametrize("augmentation", [PUBLISHED, UNEVEN])
def test_warp_equals_keras(image_size, augmentation):
    images = random_images(64, *image_size)
    parameters = draw(64, augmentation, image_size)
    np.testing.assert_allclose(
        warp(images, parameters), warp_by_keras(images, parameters), rtol=0, atol=TOLERANCE
    )


def test_each_worker_warps_its_shard_as_one_would_warp_the_batch():
    images = tf.constant(random_images(9, 12, 12))
    changes = dataclasses.replace(PUBLISHED, transpose=True)
    whole = augment(images, changes, seed=tf.constant([1, 2]))
    for first, last in ((0, 5), (5, 9)):
        shard = augment(images[first:last], changes, seed=tf.constant([1, 2]), shard=(first, 9))
        np.testing.assert_allclose(shard, whole[first:last], rtol=0, atol=1e-6)


def test_parameters_have_the_distribution_that_keras_draws():
    count, image_size = 4000, (48, 96)
    names = ("rotation", "zoom", "width_shift", "height_shift", "shear")
    ranges = {f"{name}_range": getattr(UNEVEN, name) for name in names}
    generator = ImageDataGenerator(**ranges, horizontal_flip=True, vertical_flip=True)
    ours = draw(count, UNEVEN, image_size)
    theirs = [generator.get_random_transform((*image_size, 3), seed=seed) for seed in range(count)]
    for name, drawn in ours._asdict().items():
        expected = np.array([parameters[name] for parameters in theirs], dtype=np.float64)
        found = scipy.stats.ks_2samp(tf.cast(drawn, tf.float64), expected, method="asymp")
        assert found.pvalue > 0.01, name
    drawn = np.stack([tf.cast(column, tf.float32) for column in ours])  # Each on its own.
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.06


def test_transposing_gives_all_eight_symmetries_of_the_square():
    image = random_images(1, 4, 4)
    turned = [np.rot90(image[0], number) for number in range(4)]
    symmetries = {each.tobytes() for one in turned for each in (one, one[:, ::-1])}
    flips = dataclasses.replace(NONE, horizontal_flip=True, vertical_flip=True, transpose=True)
    found = augment(tf.repeat(image, 200, axis=0), flips, seed=tf.constant([3, 4]))
    assert len(symmetries) == 8
    assert {each.tobytes() for each in found.numpy()} == symmetries
