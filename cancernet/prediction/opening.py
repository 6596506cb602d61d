"""Opens images and slides from any container: the full page, at the scale that the file states."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as TiffPage

from cancernet.data.patch import JPEG_SIGNATURE, PNG_SIGNATURE, ExcludedError, check_image
from cancernet.prediction.slides import LARGEST_PATCH, PIXEL, TOLERANCE, Picture

# For the whole process, since its threads share them. A limit of our own holds; damage shows.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
REDUCED_OR_MASK = 5  # Bits of a page's NewSubfileType (TIFF 6.0).

# Micrometres per pixel that a microscope can have: outside, it is a printer's or a screen's.
FINEST, COARSEST = 0.05, 20.0

INCH = 25_400.0
MICROMETRES = {"nm": 1e-3, "um": 1, "micron": 1, "microns": 1, "mm": 1e3, "cm": 1e4, "inch": INCH}

# Where a file states a scale, and micrometres per pixel along x and y: NaN where that is no number.
Stated = tuple[str, NDArray[np.float64]]


def open_picture(path: Path, *, mpp: float | None, max_pixels: int) -> Picture:
    """Opens an image (PNG, JPEG, TIFF, BMP or WebP), or a whole slide that OpenSlide reads.

    It has `mpp` micrometres per pixel, whatever it says; with None what it states, or 4 if it is a
    plain image that states nothing plausible. No more than `max_pixels` are decoded whole. What
    cannot be read, or at no known resolution, is an ExcludedError.
    """
    try:
        return _open(path, mpp, max_pixels)
    except ExcludedError:
        raise
    except Exception as error:  # Readers raise what they come across, such as struct.error.
        raise ExcludedError("unreadable image", str(error) or repr(error)) from error


def _open(path: Path, mpp: float | None, max_pixels: int) -> Picture:
    if not path.is_file():  # A pipe, say, which would be waited for.
        raise ExcludedError("no file", "a dangling link, a device or a pipe")
    with path.open("rb") as file:
        start = file.read(8)
        pages = _read_pages(file, start) if start.startswith(TIFF_SIGNATURES) else []
    # No slide is a PNG, as most patches are; to find that out takes a while.
    vendor = None if start == PNG_SIGNATURE else openslide.OpenSlide.detect_format(path)
    # What other vendors' pages are, OpenSlide knows.
    number = _full_page(pages) if vendor in (None, "generic-tiff") else 0
    page: Mapping[int, Any] = pages[number] if pages else {}
    if (bits := np.max(page.get(Tag.BitsPerSample, 1))) > 8:
        raise ExcludedError("not 8 bits a channel", f"{bits} bits: save it with 8")
    slide: Any = openslide.OpenSlide(path) if vendor else None
    size = page.get(Tag.ImageWidth), page.get(Tag.ImageLength)
    # OpenSlide would show another page of a TIFF that has its thumbnail first.
    if slide and vendor == "generic-tiff" and slide.dimensions != size:
        slide = None
    needed, tags, info = slide is not None or Tag.TileWidth in page, page, {}
    if not slide:
        image = _decode(path, start, number, max_pixels=max_pixels)
        slide = openslide.ImageSlide(image)
        if max(image.size) <= LARGEST_PATCH:
            return Picture(slide, (PIXEL, PIXEL))
        if not page:
            tags, info = image.getexif(), image.info
    scale, words = _choose(list(_stated(tags, info, slide.properties)), mpp, needed=needed)
    if number:
        words += f"; page {number + 1} of {len(pages)}"
    if max(scale) > PIXEL * TOLERANCE:
        detail = f"{words}, at most {PIXEL:g} needed; where that is wrong, name --mpp"
        raise ExcludedError("too coarse a resolution", detail)
    return Picture(slide, scale, words)


def _read_pages(file: BinaryIO, header: bytes) -> list[TiffPage]:
    """Reads the tags of every page, none of its pixels."""
    if b"+" in header[:4]:  # BigTIFF.
        header += file.read(8)
    pages: list[TiffPage] = []
    offset, seen = TiffPage(header).next, {0}
    while offset not in seen:
        seen.add(offset)
        file.seek(offset)
        pages.append(TiffPage(header))
        pages[-1].load(file)
        offset = pages[-1].next
    return pages


def _full_page(pages: Sequence[TiffPage]) -> int:
    """Finds the page that is the image, and not its thumbnail, label, mask or smaller copy."""
    areas = [
        page.get(Tag.ImageWidth, 0) * page.get(Tag.ImageLength, 0)
        if not page.get(Tag.NewSubfileType, 0) & REDUCED_OR_MASK
        else 0
        for page in pages
    ]
    largest = max(areas, default=0)
    if (alike := sum(2 * area > largest for area in areas)) > 1:
        detail = f"{alike} pages of like size, as of a stack: save the one wanted as a file"
        raise ExcludedError("several images in one file", detail)
    return areas.index(largest) if areas else 0


def _decode(path: Path, start: bytes, page: int, *, max_pixels: int) -> Image.Image:
    """Decodes a plain image with its transparency, once its header has been found harmless."""
    if start.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):  # Pillow reads some that are damaged.
        check_image(path.read_bytes(), min_side=1, max_pixels=max_pixels)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if page:
                image.seek(page)
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}: save it as a tiled TIFF"
                raise ExcludedError(f"more than {max_pixels:,} pixels", size)
            if image.mode in ("CMYK", "LAB", "HSV"):
                raise ExcludedError("not 8 bits of grey or colour", f"Pillow's mode {image.mode}")
            return image.convert("RGBA")
    except UnidentifiedImageError as error:
        detail = f"starts with {start!r}" if start else "empty"
        raise ExcludedError("no image or slide of a known kind", detail) from error


def _stated(
    tags: Mapping[int, Any], info: Mapping[Any, Any], properties: Mapping[str, str]
) -> Iterator[Stated]:
    """Lists the scales that a file states, the most trustworthy one first.

    By OpenSlide's properties, the tags of a TIFF's page or of EXIF, and what Pillow has read.
    """
    yield "the slide", _numbers(*(properties.get(f"openslide.mpp-{axis}") for axis in "xy"))
    text = str(tags.get(Tag.ImageDescription, ""))
    ome = dict(re.findall(r"\bPhysicalSize(X|Y|XUnit)\s*=\s*[\"']([^\"']*)", text))
    sides = _numbers(ome.get("X"), ome.get("Y"))
    yield "OME's description", _micrometres(ome.get("XUnit", "um")) * sides
    across = tags.get(Tag.XResolution)
    density = _numbers(across, tags.get(Tag.YResolution, across))
    named = re.search(r"^unit=(.*)$", text, re.MULTILINE)
    if text.startswith("ImageJ=") and named:
        yield "ImageJ's description", _micrometres(named[1]) / density
    unit = {2: INCH, 3: 1e4}.get(tags.get(Tag.ResolutionUnit, 2), nan)
    yield "its tags", unit / density
    yield "its header", INCH / _numbers(*info.get("dpi", (None, None)))


def _micrometres(unit: str) -> float:
    # The Greek letter in any encoding, or as ImageJ escapes it.
    return MICROMETRES.get(re.sub(r"(\\u00B5|[^a-z])+", "u", unit.strip()), nan)


def _numbers(*values: Any) -> NDArray[np.float64]:
    """Makes numbers of what a file states; 0 is none, either."""
    found = []
    for value in values:
        try:
            found.append(float(value) or nan)
        except (TypeError, ValueError, ZeroDivisionError):
            found.append(nan)
    return np.array(found)


def _choose(
    stated: Sequence[Stated], given: float | None, *, needed: bool
) -> tuple[tuple[float, float], str]:
    """Chooses micrometres per pixel, and says where they are from; refuses none if needed."""
    numbers = [each for each in stated if not np.isnan(each[1]).any()]
    plausible = [each for each in numbers if np.all((each[1] >= FINEST) & (each[1] <= COARSEST))]
    place, (across, down) = (plausible or numbers or [("", np.full(2, nan))])[0]
    sides = f"{across:.4g}" if across == down else f"{across:.4g} x {down:.4g}"
    in_file = f"{sides} by {place}" if place else "none"
    if given:
        return (given, given), f"{given:g} micrometres per pixel by --mpp (stated: {in_file})"
    if plausible:
        # Containers round differently: four digits are the same in all.
        rounded = float(f"{across:.4g}"), float(f"{down:.4g}")
        return rounded, f"{sides} micrometres per pixel, stated by {place}"
    what = f"states an implausible scale ({in_file})" if place else "states no scale"
    if needed:
        raise ExcludedError("no resolution to go by", f"it {what}: name micrometres with --mpp")
    words = f"taken as {PIXEL:g} micrometres per pixel, since it {what}"
    return (PIXEL, PIXEL), f"{words}: where that is wrong, name --mpp"
