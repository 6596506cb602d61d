"""The published random affine warp, on whole batches.

The published pipeline warps one patch after the other in Python, with `ImageDataGenerator` of
Keras' legacy preprocessing. Here one TensorFlow operation warps the whole batch: the same
parameters, drawn from the same distribution, give the same pixels.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from cancernet.console import InputError


@dataclass(frozen=True)
class Augmentation:
    """How far the training patches are warped at random. 0 or False leaves a part out.

    Attributes:
        rotation: Largest angle either way, in degrees.
        zoom: Each axis is scaled by its own factor from 1 - zoom to 1 + zoom.
        width_shift: Largest shift either way, as a share of the width, from 0 to below 1.
        height_shift: Largest shift either way, as a share of the height, from 0 to below 1.
        shear: Largest angle either way, in degrees.
        horizontal_flip: Mirror every second patch left to right.
        vertical_flip: Mirror every second patch top to bottom.
    """

    rotation: float
    zoom: float
    width_shift: float
    height_shift: float
    shear: float
    horizontal_flip: bool
    vertical_flip: bool

    def __post_init__(self) -> None:
        """Checks the shares.

        Raises:
            InputError: A share is below 0 or not below 1, an angle no number, a flip no bool.
        """
        for name in ("rotation", "shear"):
            angle = getattr(self, name)
            if not (isinstance(angle, int | float) and -360 <= angle <= 360):
                raise InputError(
                    f"The augmentation's {name} is {angle!r}; it is an angle, -360 to 360 degrees. "
                    "Change its range in the configuration."
                )
        for name in ("horizontal_flip", "vertical_flip"):
            flip = getattr(self, name)
            if flip not in (True, False):
                raise InputError(
                    f"The augmentation's {name} is {flip!r}; it is True or False. "
                    "Change it in the configuration."
                )
        for name in ("zoom", "width_shift", "height_shift"):
            share = getattr(self, name)
            if not (isinstance(share, int | float) and 0 <= share < 1):
                raise InputError(
                    f"The augmentation's {name} is {share!r}; it is a share, from 0 to below 1. "
                    "Change its range in the configuration."
                )


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


def augment(images: tf.Tensor, *, augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Warps each image of a batch at random, as `ImageDataGenerator.random_transform` does.

    Args:
        images: float32, shape (batch, height, width, channels).
        augmentation: The ranges of the warp.
        seed: Integers, shape (2,). The same seed gives the same result to the bit.

    Returns:
        The warped images, of the same type, shape and range.
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    parameters = random_parameters(
        batch, augmentation=augmentation, image_size=(height, width), seed=seed
    )
    return warp(images, parameters)


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
