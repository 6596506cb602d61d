"""Larger images cut into the 50-pixel grid that the network's patches come from."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cancernet.data.patches import PATCH_SIDE, ExcludedError
from cancernet.prediction.slides import LARGEST_PATCH, Picture

# What is read from a slide at a time: a strip one patch high and up to this many pixels wide.
STRIP = 4096

# Of 16,955 real patches none is as pale and as even as this: mean of all channels, and standard
# deviation of each, from 0 to 255. A tile of one colour, whichever, holds nothing either.
PALE, EVEN, ONE_COLOUR = 210.0, 6.0, 1.0


class Tile(NamedTuple):
    """A square cut from an image.

    Attributes:
        x: Left edge in pixels of 4 micrometres, 1 more than a multiple of 50 as in IDC's names;
            None where the image is one patch.
        y: Upper edge, likewise.
        pixels: Red, green and blue, uint8, shape (height, width, 3), each side up to 50 pixels.
        background: Glass: near-white and near-constant, or of one colour.
    """

    x: int | None
    y: int | None
    pixels: NDArray[np.uint8]
    background: bool


def cut(picture: Picture, *, min_side: int) -> Iterator[Tile]:
    """Cuts a picture into tiles, row by row.

    What is left at the right and lower edges gives smaller tiles, as in the data set; those with a
    side under `min_side` are left out. A picture with both sides up to 100 pixels is one tile.

    Args:
        picture: Open.
        min_side: The shortest side of a tile, in pixels.
    """
    if max(picture.width, picture.height) <= LARGEST_PATCH:
        whole = picture.read(0, 0, picture.width, picture.height)
        yield Tile(None, None, whole, background=False)
        return
    across = max(1, int(STRIP / (PATCH_SIDE * picture.finer))) * PATCH_SIDE
    for y in _starts(picture.height, min_side):
        height = min(PATCH_SIDE, picture.height - y)
        for left in range(0, picture.width, across):
            width = min(across, picture.width - left)
            strip = picture.read(left, y, width, height)
            for x in _starts(width, min_side):
                pixels = strip[:, x : x + PATCH_SIDE]
                yield Tile(left + x + 1, y + 1, pixels, background=is_background(pixels))


def grid_size(picture: Picture, *, min_side: int) -> tuple[int, int]:
    """Counts the rows and the columns of tiles that `cut` makes, background included.

    Raises:
        ExcludedError: There is none: the picture is long, and narrower than `min_side`.
    """
    width, height = picture.width, picture.height
    if max(width, height) <= LARGEST_PATCH:
        return 1, 1
    if min(width, height) < min_side:
        raise ExcludedError(
            f"side under {min_side} pixels", f"{width} x {height} at 4 micrometres a pixel"
        )
    return len(_starts(height, min_side)), len(_starts(width, min_side))


def _starts(length: int, min_side: int) -> range:
    """Where tiles begin along a side, the last one not under `min_side` long."""
    return range(0, length - min(min_side, PATCH_SIDE) + 1, PATCH_SIDE)


def is_background(pixels: NDArray[np.uint8]) -> bool:
    """Tells whether a tile holds glass alone."""
    spread = pixels.std(axis=(0, 1), dtype=np.float64).max()
    return bool(spread <= ONE_COLOUR or (spread <= EVEN and pixels.mean() >= PALE))
