"""What the benchmarks run on: patches in a folder, as they are or normalised, or drawn ones."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from imutils import paths

from cancernet.cli import InputError
from cancernet.data.dataset import Row
from cancernet.data.patches import read_pixels
from cancernet.data.sample import draw_sample


def draw_patches(folder: Path, count: int) -> None:
    """Draws synthetic patches as `<folder>/<patient>/<class>/<file>.png`, all different.

    Args:
        folder: An empty folder.
        count: How many at least; above the sample's, each of its patches is used several times,
            with another first pixel and under other patients.
    """
    drawn = draw_sample(folder, seed=42)
    originals = sorted(folder.rglob("*.png"))
    for copy in range(1, -(-count // drawn)):
        for path in originals:
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            pixels[0, 0] = copy
            patient, label, name = path.parts[-3:]
            renamed = str(int(patient) - 100 * copy)
            target = folder / renamed / label / name.replace(patient, renamed)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def draw_classes(folder: Path) -> None:
    """Draws the synthetic sample as `<folder>/<class>/<file>.png`, as a split of a data set is."""
    draw_sample(folder / "drawn", seed=42)
    for path in sorted((folder / "drawn").rglob("*.png")):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


@contextmanager
def classes(folder: Path | None) -> Iterator[tuple[Path, str]]:
    """Gives a folder that holds 0/ and 1/, synthetic patches where none is named, and its source.

    Raises:
        InputError: The folder named holds no patches.
    """
    if folder:
        list_classes(folder)
        yield folder, str(folder)
    else:
        with tempfile.TemporaryDirectory() as drawn:
            draw_classes(Path(drawn))
            yield Path(drawn), "SYNTHETIC SAMPLE, drawn by a program"


def list_classes(folder: Path) -> tuple[list[Path], list[int]]:
    """Lists the patches in `<folder>/0` and `<folder>/1`, and their labels.

    Raises:
        InputError: There are none.
    """
    files, labels = [], []
    for label in (0, 1):
        found = sorted(Path(path) for path in paths.list_images(str(folder / str(label))))
        if not found:
            raise InputError(
                f"Found no patch in {folder / str(label)}. Name a directory that holds the folders "
                "0 and 1, such as datasets/idc/training."
            )
        files += found
        labels += [label] * len(found)
    return files, labels


def normalise(rows: Iterable[Row], folder: Path, target: Path) -> None:
    """Writes each patch with its own mean and deviation of each colour made those of all.

    Each colour becomes 128 in the mean with a deviation of 48, of 255, where it fits into 8 bits;
    a colour that is the same all over becomes 128.

    Args:
        rows: The patches.
        folder: The data set that they are in.
        target: Where they go, under the same names.
    """
    for row in rows:
        pixels = read_pixels(folder / row.file).astype(np.float32)
        spread = np.maximum(pixels.std(axis=(0, 1)), 1)
        normalised = 128 + 48 * (pixels - pixels.mean(axis=(0, 1))) / spread
        path = target / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        rounded = np.clip(np.rint(normalised), 0, 255).astype(np.uint8)
        path.write_bytes(cv2.imencode(".png", rounded[..., ::-1])[1].tobytes())
