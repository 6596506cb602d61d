"""The published build, training and testing as they run today, for the benchmarks to compare with.

`ImageDataGenerator` warps patch after patch in Python; the network is that of stock layers. What
Keras 3 does not run any more (the optimizer's `decay`, an array of class weights) is spelled as the
pipeline spells it.
"""

import random
import shutil
import sys
from pathlib import Path
from typing import Any

from imutils import paths

SIDE, BATCH_SIZE = 48, 32


def batches(folder: Path, *, training: bool) -> Any:
    """Makes the published batches of `<folder>/<class>/`: warped and shuffled only in training."""
    # Keras 3 keeps the generator under its old TensorFlow name alone.
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    warp = {
        "rotation_range": 20,
        "zoom_range": 0.05,
        "width_shift_range": 0.1,
        "height_shift_range": 0.1,
        "shear_range": 0.05,
        "horizontal_flip": True,
        "vertical_flip": True,
        "fill_mode": "nearest",
    }
    images = ImageDataGenerator(rescale=1 / 255, **(warp if training else {}))
    return images.flow_from_directory(
        str(folder),
        classes=["0", "1"],
        class_mode="categorical",
        target_size=(SIDE, SIDE),
        color_mode="rgb",
        shuffle=training,
        batch_size=BATCH_SIZE,
    )


def build(original: Path, dataset: Path) -> None:
    """Copies patches into splits one after the other, with no checks, as the published script."""
    files = list(paths.list_images(str(original)))
    random.seed(42)
    random.shuffle(files)
    end = int(len(files) * 0.8)
    start = int(end * 0.1)
    splits = {"training": files[start:end], "validation": files[:start], "testing": files[end:]}
    for split, members in splits.items():
        for file in members:
            name = Path(file).name
            folder = dataset / split / name[-5:-4]
            if not folder.exists():
                folder.mkdir(parents=True)
            shutil.copy2(file, folder / name)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
