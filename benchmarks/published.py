"""The published training and testing as they run today, for the benchmarks to compare with.

`ImageDataGenerator` warps patch after patch in Python; the network is that of stock layers. What
Keras 3 does not run any more (the optimizer's `decay`, an array of class weights) is spelled as the
pipeline spells it.
"""

from pathlib import Path
from typing import Any

SIDE, BATCH_SIZE = 48, 32

WARP = {
    "rotation_range": 20,
    "zoom_range": 0.05,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 0.05,
    "horizontal_flip": True,
    "vertical_flip": True,
    "fill_mode": "nearest",
}


def batches(folder: Path, *, training: bool) -> Any:
    """Makes the published batches of `<folder>/<class>/`: warped and shuffled only in training."""
    # Keras 3 keeps the generator under its old TensorFlow name alone.
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator(rescale=1 / 255, **(WARP if training else {})).flow_from_directory(
        str(folder),
        classes=["0", "1"],
        class_mode="categorical",
        target_size=(SIDE, SIDE),
        color_mode="rgb",
        shuffle=training,
        batch_size=BATCH_SIZE,
    )
