"""The whole-batch warp against Keras' ImageDataGenerator, which the published scripts use."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from cancernet.data.augmentation import Parameters, augment, random_parameters, warp
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
IDENTITY = dict(theta=0.0, tx=0.0, ty=0.0, shear=0.0, zx=1.0, zy=1.0)
IDENTITY |= dict(flip_horizontal=False, flip_vertical=False)


def random_images(count, height, width, channels=3):
    pixels = np.random.default_rng(1).random((count, height, width, channels))
    return pixels.astype(np.float32)


def warp_by_keras(images, parameters):
    generator = ImageDataGenerator(fill_mode="nearest", data_format="channels_last")
    columns = {name: column.numpy() for name, column in parameters._asdict().items()}
    return np.stack(
        [
            generator.apply_transform(
                image, {name: column[index] for name, column in columns.items()}
            )
            for index, image in enumerate(images)
        ]
    )


def draw(count, augmentation, image_size=(48, 48), seed=(1, 2)):
    return random_parameters(count, augmentation, image_size=image_size, seed=tf.constant(seed))


@pytest.mark.parametrize("image_size", [(48, 48), (48, 31), (20, 64), (1, 5)])
@pytest.mark.parametrize("augmentation", [PUBLISHED, UNEVEN])
def test_warp_equals_keras(image_size, augmentation):
    images = random_images(64, *image_size)
    parameters = draw(64, augmentation, image_size)
    np.testing.assert_allclose(
        warp(images, parameters), warp_by_keras(images, parameters), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize(
    "part",
    [
        {"theta": 20.0},
        {"tx": 4.5},
        {"ty": -4.5},
        {"shear": 10.0},
        {"zx": 0.95},
        {"zy": 1.05},
        {"flip_horizontal": True},
        {"flip_vertical": True},
        {"tx": 3.0, "flip_horizontal": True},  # The flip comes after the shift.
        {"theta": 20.0, "flip_vertical": True},
    ],
    ids=str,
)
def test_each_part_alone_equals_keras_and_changes_the_image(part):
    images = random_images(1, 12, 9)
    values = {name: tf.constant([value]) for name, value in (IDENTITY | part).items()}
    result = warp(images, Parameters(**values)).numpy()
    expected = warp_by_keras(images, Parameters(**values))
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(result - images).max() > 0.1


def test_each_worker_warps_its_shard_as_one_would_warp_the_batch():
    images = tf.constant(random_images(9, 12, 12))
    changes = dataclasses.replace(PUBLISHED, transpose=True)
    whole = augment(images, changes, seed=tf.constant([1, 2]))
    for first, last in ((0, 5), (5, 9)):
        shard = augment(images[first:last], changes, seed=tf.constant([1, 2]), shard=(first, 9))
        np.testing.assert_allclose(shard, whole[first:last], rtol=0, atol=1e-6)


def test_a_shift_by_whole_pixels_repeats_the_nearest_edge():
    row = tf.reshape(tf.constant([1.0, 2.0, 3.0, 4.0]), (1, 1, 4, 1))
    values = {name: tf.constant([value]) for name, value in (IDENTITY | {"tx": 2.0}).items()}
    # By x Keras means the width here; the centre of the height is not moved in a single row.
    np.testing.assert_array_equal(tf.squeeze(warp(row, Parameters(**values))), [3, 4, 4, 4])


def test_parameters_have_the_distribution_that_keras_draws():
    count, image_size = 4000, (48, 96)
    augmentation = dataclasses.replace(UNEVEN, vertical_flip=False)
    generator = ImageDataGenerator(
        rotation_range=augmentation.rotation,
        zoom_range=augmentation.zoom,
        width_shift_range=augmentation.width_shift,
        height_shift_range=augmentation.height_shift,
        shear_range=augmentation.shear,
        horizontal_flip=augmentation.horizontal_flip,
        vertical_flip=augmentation.vertical_flip,
    )
    ours = draw(count, augmentation, image_size)
    theirs = [generator.get_random_transform((*image_size, 3), seed=seed) for seed in range(count)]
    for name, drawn in ours._asdict().items():
        expected = np.array([parameters[name] for parameters in theirs], dtype=np.float64)
        assert scipy.stats.ks_2samp(tf.cast(drawn, tf.float64), expected).pvalue > 0.01, name
    assert not np.any(ours.flip_vertical)


def test_each_parameter_is_drawn_on_its_own():
    drawn = np.stack([tf.cast(column, tf.float32) for column in draw(4000, PUBLISHED)])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.06


def test_the_seed_alone_decides():
    images = tf.constant(random_images(8, 48, 48))
    first, again, other = (
        augment(images, PUBLISHED, seed=tf.constant([7, number])).numpy() for number in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_batches_of_unknown_size_in_a_data_set():
    images = random_images(7, 20, 30)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    augmented = batches.map(lambda batch: augment(batch, PUBLISHED, seed=tf.constant([1, 2])))
    assert augmented.element_spec.shape.as_list() == [None, 20, 30, 3]
    first, rest = augmented
    np.testing.assert_allclose(
        rest, warp(images[4:], draw(3, PUBLISHED, (20, 30))), rtol=0, atol=TOLERANCE
    )
    assert (len(first), len(rest)) == (4, 3)


def test_transposing_gives_all_eight_symmetries_of_the_square():
    image = random_images(1, 4, 4)
    turned = [np.rot90(image[0], number) for number in range(4)]
    symmetries = {each.tobytes() for one in turned for each in (one, one[:, ::-1])}
    flips = dataclasses.replace(NONE, horizontal_flip=True, vertical_flip=True, transpose=True)
    found = augment(tf.repeat(image, 200, axis=0), flips, seed=tf.constant([3, 4]))
    assert len(symmetries) == 8
    assert {each.tobytes() for each in found.numpy()} == symmetries
