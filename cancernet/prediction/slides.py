"""Large images and whole slides, read a strip at a time and cut into patches of 50 pixels.

A pixel of an IDC patch is 4 micrometres wide (slides scanned at 40 x and scaled down to 2.5 x; A.
Cruz-Roa et al. 2014). OpenSlide reads whole slides from the level that is just finer than that; its
`ImageSlide` gives plain images the same interface, with one level.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.patch import PATCH_SIDE, ExcludedError

PIXEL = 4.0  # Micrometres per pixel.
LARGEST_PATCH = 100  # An image with both sides up to this many pixels is one patch.
TOLERANCE = 1.01  # A pixel may be this much coarser: a pyramid's levels are rarely exact.

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SLIDE_ENDINGS = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"))
COLOUR_MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr"))

# What is read from a slide at a time: a strip one patch high and up to this many pixels wide.
STRIP = 4096

# Of 16,955 real patches none is as pale and as even as this: mean of all channels, and standard
# deviation of each, from 0 to 255. A tile of one colour, whichever, holds nothing either.
PALE, EVEN, ONE_COLOUR = 210.0, 6.0, 1.0
WHITE = 255

MOST_SIDE = 1000  # The longest side of a reassembled slide, in pixels: a little over a map's.


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


class Picture:
    """An image open for reading, in pixels of 4 micrometres.

    Attributes:
        width: In such pixels.
        height: In such pixels.
        finer: Stored pixels per pixel of 4 micrometres, along a side.
        one_patch: Whether it is a patch, which is not cut.
    """

    def __init__(self, slide: Any, mpp: tuple[float, float]) -> None:
        """Chooses the level to read from.

        Args:
            slide: An `OpenSlide` or `ImageSlide`, open.
            mpp: Micrometres per pixel of its finest level, along x and along y.
        """
        self._slide = slide
        self._step = PIXEL / np.array(mpp)  # Pixels of level 0 per pixel of 4 micrometres.
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

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Reads a rectangle: red, green and blue, uint8, shape (height, width, 3).

        Raises:
            ExcludedError: That part of the slide is damaged.
        """
        at = np.array((x, y)) * self._step  # In pixels of level 0, where OpenSlide wants it.
        start = np.floor(at).astype(int)
        first = (at - start) / self._downsample
        last = first + np.array((width, height)) * self._step / self._downsample
        size = np.ceil(last).astype(int)
        try:
            region = self._slide.read_region(start.tolist(), self._level, size.tolist())
        except openslide.OpenSlideError as error:
            raise ExcludedError("damaged slide", str(error)) from error
        # Where a scanner saw nothing, OpenSlide's pixels are transparent.
        glass = Image.new("RGBA", region.size, "white")
        shown = Image.alpha_composite(glass, region).convert("RGB")
        # The mean of the pixels, as a scanner's own levels are.
        box = (*first.tolist(), *last.tolist())
        return np.asarray(shown.resize((width, height), Image.Resampling.BOX, box=box))

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()


def open_picture(path: Path, *, mpp: float | None, max_pixels: int) -> Picture:
    """Opens a large image or a whole slide.

    Args:
        path: PNG, JPEG or TIFF, or what OpenSlide reads.
        mpp: Micrometres per pixel, whatever the file says; None for what a slide states, and 4 for
            an image, which states nothing that can be relied on.
        max_pixels: The most pixels that are decoded whole; checked before.

    Raises:
        ExcludedError: It cannot be read, or at no known resolution.
    """
    named_so = path.suffix.lower() in SLIDE_ENDINGS
    if not named_so and openslide.OpenSlide.detect_format(path) is None:
        slide = openslide.ImageSlide(_decode(path, max_pixels=max_pixels))
        whole = max(slide.dimensions) <= LARGEST_PATCH
        stated = [PIXEL if whole else mpp or PIXEL] * 2
    else:
        try:
            slide = openslide.OpenSlide(path)
            names = ("openslide.mpp-x", "openslide.mpp-y")
            stated = [mpp or float(slide.properties[name]) for name in names]
        except (openslide.OpenSlideError, OSError) as error:
            raise ExcludedError("no slide that OpenSlide reads", str(error)) from error
        except (KeyError, ValueError) as error:
            detail = "name micrometres per pixel with --mpp"
            raise ExcludedError("no resolution stated", detail) from error
    across, down = stated
    if not (0 < across <= PIXEL * TOLERANCE and 0 < down <= PIXEL * TOLERANCE):
        detail = f"{max(stated):g} micrometres per pixel, at most {PIXEL:g} needed"
        raise ExcludedError("too coarse a resolution", detail)
    return Picture(slide, (across, down))


def _decode(path: Path, *, max_pixels: int) -> Image.Image:
    """Decodes a plain image, once its header has been found harmless."""
    pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}"
                raise ExcludedError(f"more than {max_pixels:,} pixels", size)
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ExcludedError("several images in one file", f"{frames}")
            if image.mode not in COLOUR_MODES:
                raise ExcludedError("not 8 bits of grey or colour", f"Pillow's mode {image.mode}")
            return image.convert("RGB")
    except ExcludedError:
        raise
    except Exception as error:  # Decoders raise what they come across, such as struct.error.
        raise ExcludedError("unreadable image", str(error)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_limit


def cut(picture: Picture, *, min_side: int) -> Iterator[Tile]:
    """Cuts a picture into tiles, row by row.

    What is left at the right and lower edges gives smaller tiles, as in the data set; those with a
    side under `min_side` pixels are left out. A picture with both sides up to 100 is one tile.
    """
    if picture.one_patch:
        yield Tile(None, None, picture.read(0, 0, picture.width, picture.height), background=False)
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
    if picture.one_patch:
        return 1, 1
    if min(width, height) < min_side:
        size = f"{width} x {height} at 4 micrometres per pixel"
        raise ExcludedError(f"side under {min_side} pixels", size)
    return len(_starts(height, min_side)), len(_starts(width, min_side))


def _starts(length: int, min_side: int) -> range:
    """Where tiles begin along a side, the last one not under `min_side` long."""
    return range(0, length - min(min_side, PATCH_SIDE) + 1, PATCH_SIDE)


def is_background(pixels: NDArray[np.uint8]) -> bool:
    """Tells whether a tile holds glass alone."""
    spread = pixels.std(axis=(0, 1), dtype=np.float64).max()
    return bool(spread <= ONE_COLOUR or (spread <= EVEN and pixels.mean() >= PALE))


def picture_side(rows: int, columns: int) -> int:
    """Chooses the pixels per square of a reassembled slide, so that its size stays bounded."""
    return max(1, min(PATCH_SIDE, MOST_SIDE // max(rows, columns)))


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scales a tile, or a patch in its place, to a picture in which a square has `side` pixels.

    Returns:
        uint8, shape (side, side, 3); a smaller tile, from a right or lower edge, is in the upper
        left, on white.
    """
    height, width = (min(side, max(1, round(n * side / PATCH_SIDE))) for n in pixels.shape[:2])
    square = np.full((side, side, 3), WHITE, np.uint8)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    square[:height, :width] = np.asarray(small)
    return square
