"""Large images and whole slides, read a rectangle at a time in the pixels of IDC patches.

A pixel of an IDC patch is 4 micrometres wide (slides scanned at 40 x and scaled down to 2.5 x; A.
Cruz-Roa et al. 2014). Whole slides are read through OpenSlide, a strip at a time, from the level
that is just finer than that; OpenSlide is imported where a slide is opened and nowhere else.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.patches import PATCH_SIDE, ExcludedError

PIXEL = 4.0  # Micrometres a pixel.

# An image with both sides up to this many pixels is one patch.
LARGEST_PATCH = 100

# A pixel may be this much coarser than 4 micrometres: a pyramid's levels are rarely exact.
TOLERANCE = 1.01

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SLIDE_ENDINGS = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"))
TILE_WIDTH_TAG = 322  # Of a TIFF (Adobe TIFF 6.0, section 15): its pixels are stored in tiles.
COLOUR_MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr"))

NO_OPENSLIDE = "OpenSlide is not installed: pip install -r requirements-slides.txt"


class Picture(Protocol):
    """An image open for reading, in pixels of 4 micrometres."""

    width: int
    height: int
    finer: float  # Stored pixels a pixel of 4 micrometres, along a side.

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Reads a rectangle: red, green and blue, uint8, shape (height, width, 3)."""

    def close(self) -> None:
        """Lets go of the file."""


def open_picture(path: Path, *, mpp: float | None, max_pixels: int) -> Picture:
    """Opens a large image or a whole slide.

    Args:
        path: PNG, JPEG or TIFF, or what OpenSlide reads.
        mpp: Micrometres a pixel, whatever the file says; None for what a slide states, and 4 for
            an image, which states nothing that can be relied on.
        max_pixels: The most pixels that are decoded whole; checked before.

    Raises:
        ExcludedError: It cannot be read, or at no known resolution.
    """
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4).startswith(TIFF_SIGNATURES)
    except OSError as error:
        raise ExcludedError("unreadable file", str(error.strerror)) from error
    if path.suffix.lower() in SLIDE_ENDINGS or (is_tiff and _is_slide(path)):
        return WholeSlide(path, mpp=mpp)
    return PlainImage(path, mpp=mpp, max_pixels=max_pixels)


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scales a tile, or a patch in its place, to a picture in which a square has `side` pixels."""
    height, width = (
        min(side, max(1, round(length * side / PATCH_SIDE))) for length in pixels.shape[:2]
    )
    box = [0, 0, pixels.shape[1], pixels.shape[0]]
    return _resample(Image.fromarray(pixels), (width, height), box)


def _import_openslide() -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the wrapper is there, the library is not.
        raise ExcludedError("a whole slide, and this cannot be read", NO_OPENSLIDE) from error
    return openslide


def _is_slide(path: Path) -> bool:
    """Tells whether a TIFF is a whole slide, one that is stored in tiles, or a plain image."""
    try:
        openslide = _import_openslide()
    except ExcludedError:
        # Not silently as an image: with OpenSlide the same file may have another resolution.
        with _opened(path, max_pixels=None) as image:
            if TILE_WIDTH_TAG in getattr(image, "tag_v2", {}):
                raise
        return False
    return openslide.OpenSlide.detect_format(path) is not None


def _opened(path: Path, *, max_pixels: int | None) -> Image.Image:
    """Opens an image with Pillow, which reads no more than its header."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            # Pillow warns from MAX_IMAGE_PIXELS on and refuses from twice as many.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path, formats=("PNG", "JPEG", "TIFF"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ExcludedError(f"more than {max_pixels:,} pixels", str(error)) from error
    except Exception as error:  # Pillow raises what it comes across, such as struct.error.
        raise ExcludedError("unreadable image", str(error)) from error


def _scaled(size: tuple[int, int], finer: tuple[float, float]) -> tuple[int, int]:
    width, height = (
        # Whole pixels alone; the least of tolerance for the rounding of the division.
        max(1, int(side / factor + 1e-6))
        for side, factor in zip(size, finer, strict=True)
    )
    return width, height


class PlainImage:
    """A PNG, JPEG or TIFF image, decoded whole."""

    def __init__(self, path: Path, *, mpp: float | None, max_pixels: int) -> None:
        """Decodes it; see `open_picture`."""
        with _opened(path, max_pixels=max_pixels) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ExcludedError("several images in one file", f"{image.n_frames}")  # type: ignore[attr-defined]
            if image.mode not in COLOUR_MODES:
                raise ExcludedError("not 8 bits of grey or colour", f"Pillow's mode {image.mode}")
            try:
                self._image = image.convert("RGB")
            except Exception as error:  # Decoders raise what they come across.
                raise ExcludedError("unreadable image", str(error)) from error
        one_patch = max(self._image.size) <= LARGEST_PATCH
        self.finer = 1.0 if mpp is None or one_patch else _check_mpp(mpp)
        self.width, self.height = _scaled(self._image.size, (self.finer, self.finer))

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Reads a rectangle: red, green and blue, uint8, shape (height, width, 3)."""
        box = [side * self.finer for side in (x, y, x + width, y + height)]
        return _resample(self._image, (width, height), box)

    def close(self) -> None:
        """Gives the memory back."""
        self._image.close()


class WholeSlide:
    """A slide that OpenSlide reads, a part at a time."""

    def __init__(self, path: Path, *, mpp: float | None) -> None:
        """Opens it and chooses the level to read from; see `open_picture`."""
        self._openslide = _import_openslide()
        try:
            self._slide = self._openslide.OpenSlide(path)
        except (self._openslide.OpenSlideError, OSError) as error:
            raise ExcludedError("no slide that OpenSlide reads", str(error)) from error
        try:
            self._choose_level(mpp)
        except ExcludedError:
            self.close()
            raise

    def _choose_level(self, mpp: float | None) -> None:
        stated = [self._slide.properties.get(f"openslide.mpp-{axis}") for axis in ("x", "y")]
        if mpp is None and None in stated:
            raise ExcludedError("no resolution stated", "name micrometres a pixel with --mpp")
        # Pixels of level 0 a pixel of 4 micrometres, along each axis.
        try:
            self._step = [_check_mpp(mpp or float(value)) for value in stated]
        except ValueError as error:
            raise ExcludedError("no resolution stated", f"it says {stated}") from error
        sizes = self._slide.level_dimensions
        for level, (size, downsample) in enumerate(
            zip(sizes, self._slide.level_downsamples, strict=True)
        ):
            if level == 0 or downsample <= min(self._step) * TOLERANCE:
                self._level = level
                # Not OpenSlide's downsample, a mean of both axes.
                self._downsample = [sizes[0][axis] / size[axis] for axis in (0, 1)]
        self.finer = max(
            step / down for step, down in zip(self._step, self._downsample, strict=True)
        )
        self.width, self.height = _scaled(sizes[0], (self._step[0], self._step[1]))

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Reads a rectangle: red, green and blue, uint8, shape (height, width, 3).

        Raises:
            ExcludedError: That part of the slide is damaged.
        """
        start, box, size = [], [0.0, 0.0, 0.0, 0.0], []
        for axis, (first, length) in enumerate(((x, width), (y, height))):
            at = first * self._step[axis]  # In pixels of level 0, where OpenSlide wants it.
            start.append(math.floor(at))
            box[axis] = (at - start[axis]) / self._downsample[axis]
            extent = length * self._step[axis] / self._downsample[axis]
            size.append(math.ceil(box[axis] + extent))
            box[axis + 2] = min(box[axis] + extent, size[axis])
        try:
            region = self._slide.read_region(tuple(start), self._level, tuple(size))
        except self._openslide.OpenSlideError as error:
            raise ExcludedError("damaged slide", str(error)) from error
        # Where a scanner saw nothing, OpenSlide's pixels are transparent.
        glass = Image.new("RGBA", region.size, "white")
        return _resample(Image.alpha_composite(glass, region).convert("RGB"), (width, height), box)

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()


def _check_mpp(mpp: float) -> float:
    """Gives the pixels of that size a pixel of 4 micrometres."""
    if not 0 < mpp <= PIXEL * TOLERANCE:
        raise ExcludedError(
            "too coarse a resolution", f"{mpp:g} micrometres a pixel, at most {PIXEL:g} needed"
        )
    return PIXEL / mpp


def _resample(image: Image.Image, size: tuple[int, int], box: Sequence[float]) -> NDArray[np.uint8]:
    """Scales part of an image down by the mean of the pixels, as a scanner's own levels are."""
    left, top, right, bottom = box
    right, bottom = min(right, image.width), min(bottom, image.height)
    scaled = image.resize(size, Image.Resampling.BOX, box=(left, top, right, bottom))
    return np.asarray(scaled)
