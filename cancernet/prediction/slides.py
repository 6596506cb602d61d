"""Large images and whole slides, read a strip at a time and cut into patches of 50 pixels.

A pixel of an IDC patch is 4 micrometres wide (slides scanned at 40 x and scaled down to 2.5 x; A.
Cruz-Roa et al. 2014). OpenSlide reads whole slides from the level that is just finer than that; its
`ImageSlide` gives plain images the same interface, with one level.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.patch import PATCH_SIDE, ExcludedError

PIXEL = 4.0  # Micrometres per pixel.
LARGEST_PATCH = 100  # An image with both sides up to this many pixels is one patch.
TOLERANCE = 1.01  # A pixel may be this much coarser: a pyramid's levels are rarely exact.

# What is read from a slide at a time: a strip one patch high and up to this many pixels wide.
STRIP = 4096

# Of 41,897 real patches none with tissue is as pale and as even as this: mean of all channels, and
# standard deviation of each, from 0 to 255. A tile of one colour, whichever, holds nothing.
PALE, EVEN, ONE_COLOUR = 190.0, 6.0, 1.0

# Haematoxylin and eosin take away green most. A pixel is stained where its channels lie further
# apart than glass, grey or black has them, a quarter of that between red and green, which blue and
# green ink lack, and where it is not dark. All of the real patches with fewer such pixels than 1 %
# show the coverslip's edge, ink or nothing (165 of them, none malignant): see docs/slides.md.
CHROMA, DARK, LEAST_STAINED = 12, 50, 0.01
WHITE = 255

MOST_SIDE = 1000  # The longest side of a reassembled slide, in pixels: a little over a map's.


@dataclass(frozen=True)
class Frame:
    """How the positions of a slide's patches become pixels of its finest level.

    Attributes:
        first: The position of the upper left corner.
        scale: Pixels of the finest level per pixel of the positions, along x and y.
        corner: Where the corner is, in pixels of the finest level.
        size: Width and height of the whole, in pixels of the positions; None where unknown.
        micrometres: Per pixel of the positions; None where unknown.
    """

    first: tuple[int, int] = (0, 0)
    scale: tuple[float, float] = (1.0, 1.0)
    corner: tuple[float, float] = (0.0, 0.0)
    size: tuple[int, int] | None = None
    micrometres: float | None = PIXEL


class Tile(NamedTuple):
    """A square cut from an image."""

    x: int  # Left edge in pixels of 4 micrometres, 1 more than a multiple of 50 as IDC has it.
    y: int  # Upper edge, likewise.
    pixels: NDArray[np.uint8]  # Red, green and blue, shape (height, width, 3), sides up to 50.
    background: bool  # No tissue: glass, a border, a stroke of a pen.


class Picture:
    """An image open for reading, in pixels of 4 micrometres.

    Attributes:
        width, height: In such pixels.
        finer: Stored pixels per such pixel, along a side.
        one_patch: Whether it is a patch, which is not cut.
        scale: Says which scale was taken from where; empty where an image of any scale is a patch.
        identity: The same for all files of one slide, where it may have several; else None.
    """

    def __init__(self, slide: Any, mpp: tuple[float, float], scale: str = "") -> None:
        """Chooses the level of an open slide to read from, whose finest has pixels of `mpp`."""
        self._slide, self.scale = slide, scale
        in_files = slide.properties.get("openslide.vendor") == "dicom"  # One per level.
        self.identity = slide.properties["openslide.quickhash-1"] if in_files else None
        self._step = PIXEL / np.array(mpp)  # Pixels of level 0 per pixel of 4 micrometres.
        corner = [slide.properties.get(f"openslide.bounds-{axis}") or 0 for axis in "xy"]
        self._corner = (-float(corner[0]), -float(corner[1]))
        coarsest = self._step.min() * TOLERANCE
        fine_enough = [each for each in slide.level_downsamples if each <= coarsest]
        self._level = max(0, len(fine_enough) - 1)
        # Not OpenSlide's downsample, a mean of both axes.
        full = np.array(slide.level_dimensions[0])
        self._downsample = full / slide.level_dimensions[self._level]
        self.finer = float(max(self._step / self._downsample))
        # Whole pixels alone; the least of tolerance for the rounding of the division.
        self.width, self.height = (max(1, int(side)) for side in full / self._step + 1e-6)
        self.one_patch = max(self.width, self.height) <= LARGEST_PATCH

    @property
    def frame(self) -> Frame:
        """How positions of tiles become pixels of the finest level, without an empty margin.

        As QuPath shows a slide that states the bounds of what was scanned.
        """
        across, down = self._step.tolist()
        return Frame((1, 1), (across, down), self._corner, (self.width, self.height))

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Reads a rectangle: red, green and blue, uint8, shape (height, width, 3)."""
        at = np.array((x, y)) * self._step  # In pixels of level 0, where OpenSlide wants it.
        start = np.floor(at).astype(int)
        first = (at - start) / self._downsample
        last = first + np.array((width, height)) * self._step / self._downsample
        size = np.ceil(last).astype(int)
        try:
            region = self._slide.read_region(start.tolist(), self._level, size.tolist())
        except Exception as error:  # Of OpenSlide, Pillow or the memory.
            raise ExcludedError("damaged slide", str(error) or repr(error)) from error
        # Where a scanner saw nothing, OpenSlide's pixels are transparent.
        glass = Image.new("RGBA", region.size, "white")
        shown = Image.alpha_composite(glass, region).convert("RGB")
        # The mean of the pixels, as a scanner's own levels are.
        box = (*first.tolist(), *last.tolist())
        return np.asarray(shown.resize((width, height), Image.Resampling.BOX, box=box))

    def read_all(self) -> NDArray[np.uint8]:
        """Reads the whole, as `read` does."""
        return self.read(0, 0, self.width, self.height)

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()


def cut(picture: Picture, *, min_side: int) -> Iterator[Tile]:
    """Cuts a picture into tiles, row by row.

    What is left at the right and lower edges gives smaller tiles, as in the data set; those with a
    side under `min_side` pixels are left out.
    """
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
    """Counts the rows and the columns of tiles that `cut` makes; refuses a picture without any."""
    width, height = picture.width, picture.height
    if min(width, height) < min_side:
        size = f"{width} x {height} at 4 micrometres per pixel"
        raise ExcludedError(f"side under {min_side} pixels", size)
    return len(_starts(height, min_side)), len(_starts(width, min_side))


def _starts(length: int, min_side: int) -> range:
    """Where tiles begin along a side, the last one not under `min_side` long."""
    return range(0, length - min(min_side, PATCH_SIDE) + 1, PATCH_SIDE)


def is_background(pixels: NDArray[np.uint8]) -> bool:
    """Tells whether a tile holds no tissue: glass, a border, dirt or ink alone."""
    spread = pixels.std(axis=(0, 1), dtype=np.float64).max()
    if spread <= ONE_COLOUR or (spread <= EVEN and pixels.mean() >= PALE):
        return True
    calm = cv2.medianBlur(np.ascontiguousarray(pixels), 3).astype(np.int16)  # Without noise.
    brightest = calm.max(axis=2)
    chroma, red = brightest - calm.min(axis=2), calm[..., 0] - calm[..., 1]
    stained = (chroma > CHROMA) & (4 * red > chroma) & (brightest > DARK)
    return bool(stained.mean() < LEAST_STAINED)


def picture_side(rows: int, columns: int) -> int:
    """Chooses the pixels per square of a reassembled slide, so that its size stays bounded."""
    return max(1, min(PATCH_SIDE, MOST_SIDE // max(rows, columns)))


def shrink(pixels: NDArray[np.uint8], side: int, *, whole: int = PATCH_SIDE) -> NDArray[np.uint8]:
    """Scales a tile to a picture of `side` x `side` pixels, which one of `whole` pixels fills.

    A smaller tile, from a right or lower edge, is in the upper left, on white.
    """
    height, width = (min(side, max(1, round(n * side / whole))) for n in pixels.shape[:2])
    square = np.full((side, side, 3), WHITE, np.uint8)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    square[:height, :width] = np.asarray(small)
    return square
