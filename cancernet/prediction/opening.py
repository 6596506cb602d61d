"""Opens images and slides from any container: the full page, at the scale that the file states."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import openslide
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as TiffPage

from cancernet.data.patch import ExcludedError
from cancernet.prediction.slides import LARGEST_PATCH, PIXEL, TOLERANCE, Picture

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
COLOUR_MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"))

# Tags of a TIFF's page, some of which EXIF has, too (TIFF 6.0).
WIDTH, HEIGHT, BITS, TILE_WIDTH = 256, 257, 258, 322
DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, UNIT = 270, 282, 283, 296
KIND, REDUCED_OR_MASK = 254, 5

# Properties in which OpenSlide hands on a slide's bits per channel.
DEPTHS = ("BitsPerSample", "BitsAllocated", "ComponentBitCount")

# Micrometres per pixel that a microscope can have: outside, it is a printer's or a screen's.
FINEST, COARSEST = 0.05, 20.0

INCH = 25_400.0
MICROMETRES = {"nm": 1e-3, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4}
MICROMETRES |= {"inch": INCH, "in": INCH}

# Where a file states a scale, and micrometres per pixel along x and y: NaN where that is no number.
Stated = tuple[str, float, float]


def open_picture(path: Path, *, mpp: float | None, max_pixels: int) -> Picture:
    """Opens an image or a whole slide.

    Args:
        path: What OpenSlide reads, or PNG, JPEG, TIFF, BMP or WebP.
        mpp: Micrometres per pixel, whatever the file says; None for what it states, or 4 for a
            plain image that states nothing plausible.
        max_pixels: The most pixels that are decoded whole.

    Raises:
        ExcludedError: It cannot be read, or at no known resolution.
    """
    try:
        return _open(path, mpp, max_pixels)
    except ExcludedError:
        raise
    except Exception as error:  # Readers raise what they come across, such as struct.error.
        raise ExcludedError("unreadable image", str(error) or repr(error)) from error


def _open(path: Path, mpp: float | None, max_pixels: int) -> Picture:
    pages = _read_pages(path)
    vendor = openslide.OpenSlide.detect_format(path)
    # What other vendors' pages are, OpenSlide knows.
    number = _full_page(pages) if vendor in (None, "generic-tiff") else 0
    page: Mapping[int, Any] = pages[number] if pages else {}
    _check_bits([page.get(BITS)])
    slide: Any = openslide.OpenSlide(path) if vendor else None
    # OpenSlide would show another page of a TIFF that has its thumbnail first.
    if slide and vendor == "generic-tiff" and slide.dimensions != (page[WIDTH], page[HEIGHT]):
        slide = None
    if slide:
        _check_bits(text for name, text in slide.properties.items() if name.endswith(DEPTHS))
        stated = _stated(page, {}, slide.properties)
    else:
        image = _decode(path, number, max_pixels=max_pixels)
        if max(image.size) <= LARGEST_PATCH:
            return Picture(openslide.ImageSlide(image), (PIXEL, PIXEL))
        stated = _stated(page, {}, {}) if page else _stated(_exif(image), image.info, {})
    scale, words = _choose(list(stated), mpp, needed=slide is not None or TILE_WIDTH in page)
    if number:
        words += f"; page {number + 1} of {len(pages)}"
    if max(scale) > PIXEL * TOLERANCE:
        detail = f"{words}, at most {PIXEL:g} needed; where that is wrong, name --mpp"
        raise ExcludedError("too coarse a resolution", detail)
    return Picture(slide or openslide.ImageSlide(image), scale, words)


def _read_pages(path: Path) -> list[TiffPage]:
    """Reads the tags of every page of a TIFF, none of its pixels; of another file, nothing."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of damage, which shows soon enough.
        header = file.read(8)
        if not header.startswith(TIFF_SIGNATURES):
            return []
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
    return [page for page in pages if WIDTH in page and HEIGHT in page]


def _full_page(pages: Sequence[TiffPage]) -> int:
    """Finds the page that is the image, and not its thumbnail, label, mask or smaller copy."""
    areas = [
        0 if page.get(KIND, 0) & REDUCED_OR_MASK else page[WIDTH] * page[HEIGHT] for page in pages
    ]
    largest = max(areas, default=0)
    if (alike := sum(2 * area > largest for area in areas)) > 1:
        detail = f"{alike} pages of like size, as of a stack: save the one wanted as a file"
        raise ExcludedError("several images in one file", detail)
    return areas.index(largest) if areas else 0


def _check_bits(depths: Iterable[Any]) -> None:
    for depth in depths:
        most = max(map(_number, depth if isinstance(depth, tuple) else (depth,)))
        if most > 8:
            raise ExcludedError("not 8 bits a channel", f"{most:g} bits: save it with 8")


def _decode(path: Path, page: int, *, max_pixels: int) -> Image.Image:
    """Decodes a plain image with its transparency, once its header has been found harmless."""
    pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=FORMATS) as image:
            if page:
                image.seek(page)
            elif image.format == "WEBP" and getattr(image, "n_frames", 1) > 1:
                raise ExcludedError("several images in one file", "an animation")
            if image.width * image.height > max_pixels:
                size = f"{image.width} x {image.height}: save it as a tiled TIFF"
                raise ExcludedError(f"more than {max_pixels:,} pixels", size)
            if image.mode not in COLOUR_MODES:
                raise ExcludedError("not 8 bits of grey or colour", f"Pillow's mode {image.mode}")
            return image.convert("RGBA")
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_limit


def _exif(image: Image.Image) -> Mapping[int, Any]:
    try:
        return image.getexif()
    except Exception:  # Damaged, as the pixels are not.
        return {}


def _stated(
    tags: Mapping[int, Any], info: Mapping[Any, Any], properties: Mapping[str, str]
) -> Iterator[Stated]:
    """Lists the scales that a file states, the most trustworthy one first.

    Args:
        tags: Of a TIFF's page, or of EXIF.
        info: What Pillow has read of a plain image's header.
        properties: What OpenSlide has read of a slide.
    """
    across, down = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    yield "the slide", across, down
    text = str(tags.get(DESCRIPTION, ""))
    ome = dict(re.findall(r"\bPhysicalSize(X|Y|XUnit)\s*=\s*[\"']([^\"']*)", text))
    unit = _micrometres(ome.get("XUnit", "um"))
    yield "OME's description", unit * _number(ome.get("X")), unit * _number(ome.get("Y"))
    density = tags.get(X_RESOLUTION), tags.get(Y_RESOLUTION, tags.get(X_RESOLUTION))
    named = re.search(r"^unit=(.*)$", text, re.MULTILINE)
    if text.startswith("ImageJ=") and named:
        yield _inverse("ImageJ's description", _micrometres(named[1]), density)
    yield _inverse("its tags", {2: INCH, 3: 1e4}.get(tags.get(UNIT, 2), nan), density)
    yield _inverse("its header", INCH, info.get("dpi", (None, None)))


def _micrometres(unit: str) -> float:
    # The Greek letter in any encoding, or as ImageJ escapes it.
    return MICROMETRES.get(re.sub(r"(\\u00B5|[^a-z])+", "u", unit.strip()), nan)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return nan


def _inverse(place: str, unit: float, density: tuple[Any, Any]) -> Stated:
    across, down = (unit / (_number(each) or nan) for each in density)
    return place, across, down


def _choose(
    stated: Sequence[Stated], given: float | None, *, needed: bool
) -> tuple[tuple[float, float], str]:
    """Chooses micrometres per pixel, and says where they are from; refuses none if needed."""
    numbers = [each for each in stated if not isnan(each[1] + each[2])]
    plausible = [each for each in numbers if all(FINEST <= side <= COARSEST for side in each[1:])]
    place, across, down = (plausible or numbers or [("", nan, nan)])[0]
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
