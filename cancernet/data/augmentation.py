"""The published random affine warp, on whole batches.

The published pipeline warps one patch after the other in Python, with `ImageDataGenerator` of
Keras' legacy preprocessing. Here one TensorFlow operation warps the whole batch: the same
parameters, drawn from the same distribution, give the same pixels.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cancernet.recipes import Augmentation

# Optical density of haematoxylin, eosin and DAB in red, green and blue: A. C. Ruifrok and D. A.
# Johnston 2001 (Anal. Quant. Cytol. Histol. 23).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)

DARKEST = 1 / 255  # Optical density has no end at 0.


class Parameters(NamedTuple):
    """One warp a patch: tensors of shape (batch,), by the names that Keras gives them."""

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
    *,
    augmentation: Augmentation,
    seed: tf.Tensor,
    share: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Warps each image of a batch at random, as `ImageDataGenerator.random_transform` does.

    Args:
        images: float32 in [0, 1], shape (batch, height, width, channels). Square and of red, green
            and blue where the augmentation transposes or stains.
        augmentation: The ranges of the warp, and what else is changed.
        seed: Integers, shape (2,). The same seed gives the same result to the bit.
        share: Where the images are but a share of a batch, the place of the first one in it, and
            how many the batch has: each is warped as it would be among all of them.

    Returns:
        The changed images, of the same type, shape and range.
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    first, whole = share or (0, batch)
    parameters = random_parameters(
        whole, augmentation=augmentation, image_size=(height, width), seed=seed
    )

    def own(drawn: tf.Tensor) -> tf.Tensor:
        return drawn[first : first + batch] if share else drawn

    images = warp(images, Parameters(*map(own, parameters)))
    # Draws of their own, so that those of the published warp are the same with and without.
    if augmentation.transpose:
        drawn = tf.random.stateless_uniform((whole, 1, 1, 1), tf.random.fold_in(seed, 1))
        images = tf.where(own(drawn) < 0.5, images, tf.transpose(images, (0, 2, 1, 3)))
    if augmentation.stain:
        factors = tf.random.stateless_uniform(
            (whole, len(STAINS)),
            tf.random.fold_in(seed, 2),
            minval=1 - augmentation.stain,
            maxval=1 + augmentation.stain,
        )
        images = scale_stains(images, own(factors))
    return images


def scale_stains(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales how much of each stain is in an image: paler or darker, bluer or pinker.

    Light that goes through is 10 to the power of minus the optical density, and densities of
    stains add up (Beer and Lambert); so they are taken apart, scaled and put together again.

    Args:
        images: Red, green and blue, float32 in [0, 1], shape (batch, height, width, 3).
        factors: Of haematoxylin, eosin and the rest, shape (batch, 3).

    Returns:
        The images, of the same type, shape and range.
    """
    mix = tf.einsum("is,bs,sj->bij", np.linalg.inv(STAINS), factors, STAINS)
    shape = tf.shape(images)
    density = tf.reshape(-tf.math.log(tf.maximum(images, DARKEST)), (shape[0], -1, 3))
    scaled = tf.exp(-tf.matmul(density, mix))
    return tf.reshape(tf.minimum(scaled, 1.0), shape)


def random_parameters(
    count: int | tf.Tensor,
    *,
    augmentation: Augmentation,
    image_size: tuple[int | tf.Tensor, int | tf.Tensor],
    seed: tf.Tensor,
) -> Parameters:
    """Draws warps with the distribution of `ImageDataGenerator.get_random_transform`.

    Args:
        count: How many warps.
        augmentation: Their ranges.
        image_size: Height and width of the images in pixels, which the shifts are shares of.
        seed: Integers, shape (2,). The same seed gives the same warps to the bit.

    Returns:
        One independent warp a patch.
    """
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
    """Warps each image by its own parameters, as `ImageDataGenerator.apply_transform` does.

    Pixels are interpolated bilinearly; outside an image its nearest pixel is taken. On patches in
    [0, 1] the result is Keras' own within 0.05/255, since float32 is rounded.

    Args:
        images: float32, shape (batch, height, width, channels).
        parameters: One warp an image.

    Returns:
        The warped images, of the same type, shape and range.
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
    """Works out from where in an image each pixel of the warped one takes its colour.

    That is the product, written out, of the matrices of Keras' `apply_affine_transform`:
    rotation, shift, shear, zoom, all about the centre, and the flips. Keras' x and y end up along
    the width and the height, with two oddities that are kept here: tx, drawn from the height's
    range, shifts along the width; and the centre's x is half the height. Both show only in images
    that are not square.

    Args:
        parameters: One warp an image.
        size: Height and width in pixels, int32, shape (2,).

    Returns:
        The numbers a to h, float32, shape (batch, 8): the pixel at (x, y) comes from
        (a x + b y + c, d x + e y + f). g and h, for perspective, are 0.
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
