"""Grad-CAM: which parts of a patch speak for malignant (R. R. Selvaraju et al. 2017, ICCV).

The maps of the last separable convolution are weighed by how much the network's evidence for
malignant grows with each, and added up. The result is coarse (a quarter of the patch's pixels per
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

from cancernet.cli import SAMPLE_NOTICE
from cancernet.files import replacing

COLUMNS = 8  # Of a contact sheet.

# A patch's file, its probability of class 1, and the image as the network sees it.
Example = tuple[str, np.float32, NDArray[np.float32]]


def grad_cam(network: keras.Sequential, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tells which parts of each patch speak for class 1, malignant.

    With A the maps of the last separable convolution, rectified, and s the difference of both
    classes' logits, it is ReLU(sum over maps of mean(ds/dA) * A). The softmax itself is left out:
    where it is sure, its gradient is next to nothing.

    Of images in [0, 1], shape (patches, height, width, 3), it is at least 0, shape (patches, rows,
    columns) of the maps.
    """
    kinds = [type(layer) for layer in network.layers]
    behind = len(kinds) - kinds[::-1].index(keras.layers.SeparableConv2D) + 1  # And its ReLU.
    head = keras.Model(network.inputs, network.layers[behind - 1].output)
    maps = head(tf.constant(images), training=False)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = maps
        for layer in network.layers[behind:-1]:
            logits = layer(logits, training=False)
        evidence = logits[:, 1] - logits[:, 0]
    weights = tf.reduce_mean(tape.gradient(evidence, maps), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, axis=3)).numpy()


def draw_sheet(
    path: Path, network: keras.Sequential, examples: Sequence[Example], *, sample: bool
) -> None:
    """Draws a contact sheet: each patch, and beside it the same in grey under its evidence.

    Evidence is scaled to each patch's own highest value, since the gradient of one patch in a
    hundred is that of all others many times over.
    """
    maps = grad_cam(network, np.stack([image for _, _, image in examples]))
    rows = -(-len(examples) // COLUMNS)
    columns = min(COLUMNS, len(examples))
    figure = Figure(figsize=(max(columns * 1.9, 6), rows * 1.25 + 1.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (file, probability, image), evidence in zip(grid.flat, examples, maps, strict=False):
        height, width, _ = image.shape
        fine = tf.image.resize(evidence[..., np.newaxis], (height, width)).numpy()[..., 0]
        colours = mpl.colormaps["viridis"](fine / max(fine.max(), 1e-12))[..., :3]
        grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
        axes.imshow(np.hstack([image, np.ones((height, 2, 3)), (grey + colours) / 2]))
        caption = f"{probability:.2f}  {Path(file).name[-32:]}".encode("ascii", "replace").decode()
        axes.set_title(caption, fontsize=5, parse_math=False)
    notice = f"{SAMPLE_NOTICE}\n" if sample else ""
    figure.suptitle(
        f"{notice}Grad-CAM: bright is what speaks most for malignant within a patch",
        color="red" if sample else "black",
        fontsize=8,
    )
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=150)
