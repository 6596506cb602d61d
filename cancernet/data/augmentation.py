"""The published random affine warp, that of Keras' legacy `ImageDataGenerator`, on whole batches.

The same parameters, drawn from the same distribution, give the same pixels.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from cancernet.recipe import Augmentation


class Parameters(NamedTuple):
    """One warp per patch: tensors of shape (batch,), by the names that Keras gives them."""

    theta: tf.Tensor  # Rotation, degrees.
    tx: tf.Tensor  # Shift, pixels; drawn from the height's range.
    ty: tf.Tensor  # Shift, pixels; drawn from the width's range.
    shear: tf.Tensor  # Degrees.
    zx: tf.Tensor  # Factor, above 1 shows more of the image.
    zy: tf.Tensor
    flip_horizontal: tf.Tensor  # Bool; flips come after the warp.
    flip_vertical: tf.Tensor


def augment(
    images: tf.Tensor,
    augmentation: Augmentation,
    *,
    seed: tf.Tensor,
    shard: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Warps each image of a batch at random, as `ImageDataGenerator.random_transform` does.

    Images are float32 in [0, 1], shape (batch, height, width, channels), `seed` two integers. Where
    they are but a part of a batch, `shard` is the place of the first one in it, and how many it
    has: each is warped as it would be among all of them.
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    first, whole = shard or (0, batch)
    drawn = random_parameters(whole, augmentation, image_size=(height, width), seed=seed)

    def own(values: tf.Tensor) -> tf.Tensor:
        # Not cut where nothing is to cut off: the graph would be another, and round otherwise.
        return values[first : first + batch] if shard else values

    images = warp(images, Parameters(*map(own, drawn)))
    # Draws of their own, so that those of the published warp are the same with and without.
    if augmentation.transpose:
        draws = tf.random.stateless_uniform((whole, 1, 1, 1), tf.random.fold_in(seed, 1))
        images = tf.where(own(draws) < 0.5, images, tf.transpose(images, (0, 2, 1, 3)))
    return images


def random_parameters(
    count: int | tf.Tensor,
    augmentation: Augmentation,
    *,
    image_size: tuple[int | tf.Tensor, int | tf.Tensor],
    seed: tf.Tensor,
) -> Parameters:
    """Draws `count` warps as `get_random_transform` does; `image_size`: height and width."""
    # Stateless: the draws depend on the seed alone, not on what was drawn before.
    draws = tf.random.stateless_uniform((count, len(Parameters._fields)), seed, minval=-1, maxval=1)
    drawn = Parameters(*tf.unstack(draws, axis=1))
    height, width = (tf.cast(side, tf.float32) for side in image_size)
    return Parameters(
        theta=augmentation.rotation * drawn.theta,
        tx=augmentation.height_shift * height * drawn.tx,
        ty=augmentation.width_shift * width * drawn.ty,
        shear=augmentation.shear * drawn.shear,
        zx=1 + augmentation.zoom * drawn.zx,
        zy=1 + augmentation.zoom * drawn.zy,
        flip_horizontal=(drawn.flip_horizontal < 0) & augmentation.horizontal_flip,
        flip_vertical=(drawn.flip_vertical < 0) & augmentation.vertical_flip,
    )


def warp(images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
    """Warps images of shape (batch, height, width, channels) each by its own parameters.

    As `ImageDataGenerator.apply_transform` does, within 0.05/255 on patches in [0, 1].
    """
    size = tf.shape(images)[1:3]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(parameters, size),
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,  # Not used with this fill mode.
    )
    return tf.ensure_shape(warped, images.shape)  # The operation forgets a shape known before.


def _transforms(parameters: Parameters, size: tf.Tensor) -> tf.Tensor:
    """Gives a to h, shape (batch, 8): pixel (x, y) comes from (a x + b y + c, d x + e y + f).

    That is the product of the matrices of Keras' `apply_affine_transform`: rotation, shift, shear,
    zoom, all about the centre, and the flips. Two oddities, which show only in images that are not
    square, are kept: tx, drawn from the height's range, shifts along the width; and the centre's x
    is half the height. g and h, for perspective, are 0.
    """
    height, width = tf.unstack(tf.cast(size, tf.float32))
    centre_x, centre_y = height / 2 - 0.5, width / 2 - 0.5  # 23.5 for a side of 48.
    theta = parameters.theta * (math.pi / 180)
    sheared = theta + parameters.shear * (math.pi / 180)
    cos, sin = tf.cos(theta), tf.sin(theta)

    a, b = cos * parameters.zx, -tf.sin(sheared) * parameters.zy
    d, e = sin * parameters.zx, tf.cos(sheared) * parameters.zy
    c = centre_x + cos * parameters.tx - sin * parameters.ty - a * centre_x - b * centre_y
    f = centre_y + sin * parameters.tx + cos * parameters.ty - d * centre_x - e * centre_y

    # The flips come after the warp: a mirrored pixel looks up what its mirror image would.
    mirror_x = tf.where(parameters.flip_horizontal, -1.0, 1.0)
    mirror_y = tf.where(parameters.flip_vertical, -1.0, 1.0)
    last_x = tf.where(parameters.flip_horizontal, width - 1, 0.0)
    last_y = tf.where(parameters.flip_vertical, height - 1, 0.0)
    c, f = c + a * last_x + b * last_y, f + d * last_x + e * last_y
    none = tf.zeros_like(theta)
    return tf.stack([a * mirror_x, b * mirror_y, c, d * mirror_x, e * mirror_y, f, none, none], 1)
