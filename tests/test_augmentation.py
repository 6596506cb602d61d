"""The whole-batch warp against Keras' ImageDataGenerator, which the published scripts use."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import skimage.color
import tensorflow as tf
from conftest import REAL_PATCHES
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from cancernet.cli import InputError
from cancernet.data.augmentation import Parameters, augment, random_parameters, scale_stains, warp
from cancernet.data.pipeline import read_patch
from cancernet.recipes import Augmentation

# Keras' generator still asks SciPy for its functions by their old place.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Please import `affine_transform` from the `scipy.ndimage` namespace:DeprecationWarning"
)

TOLERANCE = 0.05 / 255
PUBLISHED = Augmentation(
    rotation=20,
    zoom=0.05,
    width_shift=0.1,
    height_shift=0.1,
    shear=0.05,
    horizontal_flip=True,
    vertical_flip=True,
)
# Each part far from the others, so that two that are mixed up show.
UNEVEN = dataclasses.replace(PUBLISHED, zoom=0.3, width_shift=0.3, shear=15)
NONE = Augmentation(0, 0, 0, 0, 0, False, False)
IDENTITY = {
    "theta": 0.0,
    "tx": 0.0,
    "ty": 0.0,
    "shear": 0.0,
    "zx": 1.0,
    "zy": 1.0,
    "flip_horizontal": False,
    "flip_vertical": False,
}


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
    return random_parameters(
        count, augmentation=augmentation, image_size=image_size, seed=tf.constant(seed)
    )


@pytest.mark.parametrize("image_size", [(48, 48), (48, 31), (20, 64), (1, 5)])
@pytest.mark.parametrize("augmentation", [PUBLISHED, UNEVEN])
def test_warp_equals_keras(image_size, augmentation):
    images = random_images(64, *image_size)
    parameters = draw(64, augmentation, image_size)
    np.testing.assert_allclose(
        warp(images, parameters), warp_by_keras(images, parameters), rtol=0, atol=TOLERANCE
    )


@pytest.mark.skipif(not REAL_PATCHES.is_dir(), reason="no real patches beside the project")
def test_warp_equals_keras_on_real_patches():
    files = sorted(REAL_PATCHES.glob("*/*/*.png"))[::150]
    patches = [read_patch(tf.constant(str(file)), height=48, width=48) for file in files]
    images = np.stack(patches).astype(np.float32) / 255
    parameters = draw(len(images), PUBLISHED)
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


def test_ranges_of_0_leave_the_images_as_they_are():
    images = random_images(5, 48, 48)
    unchanged = augment(tf.constant(images), augmentation=NONE, seed=tf.constant([1, 2]))
    np.testing.assert_array_equal(unchanged, images)


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
    first = augment(images, augmentation=PUBLISHED, seed=tf.constant([7, 1]))
    tf.random.uniform(())  # Draws in between do not matter.
    np.testing.assert_array_equal(
        augment(images, augmentation=PUBLISHED, seed=tf.constant([7, 1])), first
    )
    other = augment(images, augmentation=PUBLISHED, seed=tf.constant([7, 2]))
    assert not np.array_equal(other, first)


def test_batches_of_unknown_size_in_a_data_set():
    images = random_images(7, 20, 30)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    augmented = batches.map(
        lambda batch: augment(batch, augmentation=PUBLISHED, seed=tf.constant([1, 2]))
    )
    assert augmented.element_spec.shape.as_list() == [None, 20, 30, 3]
    first, rest = augmented
    np.testing.assert_allclose(
        rest, warp(images[4:], draw(3, PUBLISHED, (20, 30))), rtol=0, atol=TOLERANCE
    )
    assert (len(first), len(rest)) == (4, 3)


@pytest.mark.parametrize("part", ["zoom", "width_shift", "height_shift"])
@pytest.mark.parametrize("share", [-0.1, 1, 5])
def test_a_share_that_is_none_is_refused(part, share):
    with pytest.raises(InputError, match=f"{part} is {share}"):
        dataclasses.replace(PUBLISHED, **{part: share})


# --- What the published scripts do not have ------------------------------------------------------


def test_stains_are_those_of_scikit_image():
    images = random_images(4, 6, 6)
    factors = np.array([[1.3, 1, 1], [1, 0.7, 1], [1, 1, 1.2], [0.8, 1.1, 1]], np.float32)
    found = scale_stains(tf.constant(images), tf.constant(factors)).numpy()
    for image, factor, scaled in zip(images, factors, found, strict=True):
        # Logarithms to any base give the same image in the end; scikit-image cuts off below 0.
        density = -np.log(np.maximum(image, 1 / 255))
        expected = np.exp(-separate_stains_of(density) * factor @ skimage.color.rgb_from_hed)
        np.testing.assert_allclose(scaled, np.minimum(expected, 1), atol=1e-5)


def separate_stains_of(density):
    return density @ skimage.color.hed_from_rgb


def test_pure_stains_come_apart_as_rgb2hed_says():
    amounts = np.array([[[0.5, 0.2, 0.0], [0.1, 0.6, 0.0]]])
    image = skimage.color.hed2rgb(amounts * 0.2).astype(np.float32)
    darker = scale_stains(tf.constant(image[np.newaxis]), tf.constant([[1.5, 1.0, 1.0]]))
    before, after = (skimage.color.rgb2hed(each) for each in (image, darker.numpy()[0]))
    np.testing.assert_allclose(after[..., 0], before[..., 0] * 1.5, rtol=1e-3)
    np.testing.assert_allclose(after[..., 1], before[..., 1], rtol=1e-3)


def test_stains_scaled_by_1_change_nothing():
    images = np.maximum(random_images(2, 5, 5), 1 / 255)
    same = scale_stains(tf.constant(images), tf.ones((2, 3)))
    np.testing.assert_allclose(same, images, atol=1e-6)


def test_transposing_gives_all_eight_symmetries_of_the_square():
    image = random_images(1, 4, 4)
    turned = [np.rot90(image[0], number) for number in range(4)]
    symmetries = {each.tobytes() for one in turned for each in (one, one[:, ::-1])}
    flips = dataclasses.replace(NONE, horizontal_flip=True, vertical_flip=True, transpose=True)
    found = augment(tf.repeat(image, 200, axis=0), augmentation=flips, seed=tf.constant([3, 4]))
    assert len(symmetries) == 8
    assert {each.tobytes() for each in found.numpy()} == symmetries


def test_the_published_warp_is_the_same_with_and_without_stains():
    images, seed = tf.constant(np.maximum(random_images(8, 12, 12), 1 / 255)), tf.constant([5, 6])
    plain = augment(images, augmentation=PUBLISHED, seed=seed)
    faint = dataclasses.replace(PUBLISHED, stain=1e-7)
    np.testing.assert_allclose(augment(images, augmentation=faint, seed=seed), plain, atol=1e-4)
    strong = dataclasses.replace(PUBLISHED, stain=0.3)
    assert np.abs(augment(images, augmentation=strong, seed=seed) - plain).max() > 0.05
