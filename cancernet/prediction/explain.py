"""Grad-CAM: which parts of a patch speak for malignant (R. R. Selvaraju et al. 2017, ICCV).

The maps of the last separable convolution are weighed by how much the network's evidence for
malignant grows with each, and added up. The result is coarse (a quarter of the patch's pixels a
side), says nothing of parts that speak for benign, and explains the network, not the tissue.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cancernet.cli import SAMPLE_NOTICE, InputError
from cancernet.files import replacing

MOST_PATCHES = 64  # On a contact sheet.
COLUMNS = 8


def grad_cam(
    network: keras.Model, images: NDArray[np.float32], *, data_format: str
) -> NDArray[np.float32]:
    """Tells which parts of each patch speak for class 1, malignant.

    With A the maps of the last separable convolution, rectified, and s the difference of both
    classes' logits, it is ReLU(sum over maps of mean(ds/dA) * A). The softmax itself is left out:
    where it is sure, its gradient is next to nothing.

    Args:
        network: Ends in a dense layer and a softmax of its own, as CancerNet does.
        images: float32 in [0, 1], shape (patches, height, width, 3), or as `data_format` says.
        data_format: "channels_last" or "channels_first".

    Returns:
        At least 0, without an upper bound, shape (patches, rows, columns) of the maps.

    Raises:
        InputError: The network has no separable convolution, or no softmax at its end.
    """
    head, tail = _split(network)
    maps = head(tf.constant(images), training=False)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = maps
        for layer in tail:
            logits = layer(logits, training=False)
        evidence = logits[:, 1] - logits[:, 0]
    gradients = tape.gradient(evidence, maps)
    space, channel = ((2, 3), 1) if data_format == "channels_first" else ((1, 2), 3)
    weights = tf.reduce_mean(gradients, axis=space, keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, axis=channel)).numpy()


def _split(network: keras.Model) -> tuple[keras.Model, list[keras.Layer]]:
    """Parts a network behind its last separable convolution and that one's ReLU.

    Returns:
        From patches to the maps, and the layers from there to what the softmax gets.
    """
    layers = network.layers
    places = [
        place
        for place, layer in enumerate(layers)
        if isinstance(layer, keras.layers.SeparableConv2D)
    ]
    ends_in_softmax = isinstance(layers[-1], keras.layers.Activation)
    if not places or not ends_in_softmax or not isinstance(network, keras.Sequential):
        raise InputError(
            "--explain needs a sequence of layers with a separable convolution among them and a "
            "softmax layer at its end, as CancerNet is. Leave it out for this model."
        )
    last = places[-1]
    if isinstance(layers[last + 1], keras.layers.Activation) and last + 1 < len(layers) - 1:
        last += 1
    return keras.Model(network.inputs, layers[last].output), layers[last + 1 : -1]


def draw_sheet(
    path: Path,
    images: NDArray[np.float32],
    evidence: NDArray[np.float32],
    captions: Sequence[str],
    *,
    sample: bool,
) -> None:
    """Draws a contact sheet: each patch, and beside it the same in grey under its evidence.

    Args:
        path: PNG file to write.
        images: float32 in [0, 1], shape (patches, height, width, 3).
        evidence: As `grad_cam` gives it; each patch's is scaled to its own highest value, since
            the gradient of one patch in a hundred is that of all others many times over.
        captions: One a patch.
        sample: Whether model or patches are synthetic, which the sheet then says.
    """
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    figure = Figure(figsize=(max(columns * 1.9, 6), rows * 1.25 + 1.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    height, width = images.shape[1:3]
    for axes, image, map_, caption in zip(grid.flat, images, evidence, captions, strict=False):
        fine = tf.image.resize(map_[..., np.newaxis], (height, width)).numpy()[..., 0]
        colours = mpl.colormaps["viridis"](fine / max(fine.max(), 1e-12))[..., :3]
        grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
        gap = np.ones((height, 2, 3))
        axes.imshow(np.hstack([image, gap, (grey + colours) / 2]))
        axes.set_title(caption.encode("ascii", "replace").decode(), fontsize=5, parse_math=False)
    notice = f"{SAMPLE_NOTICE}\n" if sample else ""
    figure.suptitle(
        f"{notice}Grad-CAM: bright is what speaks most for malignant within a patch",
        color="red" if sample else "black",
        fontsize=8,
    )
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=150)
